"""Report of predicted numbers."""

import dataclasses
import re

import numpy as np
import pytest

from covidscan.config import Config
from covidscan.evaluation.regression import summarize
from covidscan.evaluation.subgroups import evaluate_subgroups
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import Baseline, Metric, OperatingPoint
from covidscan.report import console, wording, write
from tests.support.evaluations import chest, files_in, provenance

POINT = OperatingPoint("default", "The prediction is the network's output; there is no threshold.", None, 1.0, 30, 1200)
HISTORY = [
    {"step": step, "split": split, "loss": 1 / step, "mae": 30 / step, "learning_rate": 0.1}
    for step in range(1, 9)
    for split in ("train", "validation")
]


def _predictions(noise, studies=40):
    rng = np.random.default_rng(0)
    label = rng.uniform(0, 60, studies).round(1)
    value = 30 + 0.8 * (label - 30) + rng.normal(0, noise, studies) if noise else np.full(studies, 45.0)
    ids = [f"s{number}" for number in range(studies)]
    return Predictions(ids, [str(each) for each in label], label, value[:, None], ("value",), "regression")


def _evaluation(noise=6.0, **changes):
    predictions = _predictions(noise)
    columns = {"label": predictions.label.tolist(), "site": ["Rome", "Bern"] * 20}
    made = summarize(predictions, POINT, constant=29.0)
    return predictions, dataclasses.replace(made, subgroups=evaluate_subgroups(predictions, None, columns), **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("regression")
    baselines = [Baseline("Mean of the training studies", "Predicts 29.", "constant", {"mae": Metric(15.0, (12, 18))})]
    predictions, evaluation = _evaluation(baselines=baselines)
    shown = write.shown_studies(predictions, None, evaluation)
    made_from = provenance(
        config=Config(task="regression", dataset="ct_table/64x64x32").to_json(),
        counts={"train": {"value": 90}, "test": {"value": 40}},
    )
    write.write_evaluation(
        made, predictions, None, evaluation, made_from, dict.fromkeys(shown, chest((5,))), history=HISTORY
    )
    return made


def test_a_missing_interval_is_noted():
    label = np.array([0.0] * 20 + [1, 60])
    value = label + np.random.default_rng(0).normal(0, 2, 22)
    ids = [f"s{number}" for number in range(22)]
    decided_by_one = Predictions(ids, [""] * 22, label, value[:, None], ("value",), "regression")
    [note] = summarize(decided_by_one, POINT, constant=3.0).notes
    assert note.startswith("No interval")
    assert note.endswith(": r2, pearson.")
    assert summarize(_predictions(6.0), POINT, constant=29.0).notes == []


def test_the_page_has_the_agreement_and_nothing_of_labels(folder):
    page = (folder / "report.html").read_text().partition("<script")[0]
    for text in ("Bland-Altman", "limits of agreement", "Root mean squared error", "Mean absolute error", "Huber"):
        assert text in page
    assert not {"Category", "Positive"} & set(re.findall(r"<th [^>]*>(\w+)</th>", page))
    words = re.sub(r"<[^>]*>", " ", page.partition("</style>")[2])
    for text in ("AUROC", "Sensitivity", "probability", "confusion", "Cross-entropy"):
        assert text not in words, text
    assert {"scatter.png", "bland_altman.png", "residuals.png", "figures/bland_altman.svg"} <= files_in(folder)
    assert not {"roc.png", "confusion_matrix.png", "reliability.png"} & files_in(folder)


def test_card_and_checklists_have_the_numbers(folder):
    card, checklist = ((folder / name).read_text() for name in ("model_card.md", "checklist.md"))
    assert "Output: a number, in the unit of the labels" in card
    assert "Huber loss" in checklist
    assert "lowest mean absolute error on the validation studies" in checklist
    for text in (card, checklist):
        assert not any(part in text for part in ("AUROC", "probability of value"))


def test_a_network_that_does_not_beat_the_constant_is_named():
    _, good = _evaluation()
    assert wording.not_beaten(good) == []
    _, poor = _evaluation(noise=0)
    titles = [each.title for each in wording.not_beaten(poor)]
    assert titles == ["No better than a constant"] * 2
    assert all(each.is_certain for each in wording.not_beaten(poor))
    assert console.evaluation_text(poor).startswith(titles[0])
    rival = Baseline("Mean lung density", "Ridge.", "features", {"mae": Metric(0.1)})
    _, beaten = _evaluation(baselines=[rival])
    (called,) = wording.not_beaten(beaten)
    assert "Mean lung density (0.100)" in called.text


def test_the_largest_errors_are_listed_with_their_sign():
    predictions, evaluation = _evaluation()
    error = predictions.probability[:, 0] - predictions.label
    assert abs(evaluation.failures[0].probability) == pytest.approx(np.abs(error).max())
    for failure in evaluation.failures:
        assert (failure.kind == "Overestimated") == (failure.probability > 0)
