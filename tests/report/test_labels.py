"""Report of sets of labels."""

import dataclasses
import re

import numpy as np
import pytest

from covidscan.config import Config
from covidscan.evaluation.multilabel import summarize
from covidscan.evaluation.subgroups import evaluate_subgroups
from covidscan.metrics import metrics_json, thresholds
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import Baseline, Evaluation, Metric, OperatingPoint
from covidscan.report import console, wording, write
from tests.support.evaluations import chest, files_in, provenance

POINT = OperatingPoint(
    criterion="youden",
    description="Youden's J. Each label has its own: a 0.4, b 0.5.",
    threshold=None,
    temperature=1.3,
    num_studies=30,
    step=1200,
    grade_thresholds=[0.4, 0.5],
    offsets=[0.1, -0.2],
)


@pytest.fixture(scope="module")
def evaluated():
    rng = np.random.default_rng(0)
    label = (rng.random((40, 2)) < [0.5, 0.3]).astype(int)
    probability = np.clip(0.25 + 0.5 * label + rng.normal(0, 0.2, label.shape), 0.01, 0.99)
    ids = [f"s{number}" for number in range(40)]
    predictions = Predictions(ids, [""] * 40, label, probability, ("a", "b"), "multilabel")
    threshold = thresholds.frozen(None, POINT.grade_thresholds)
    evaluation = summarize(predictions, threshold, POINT)
    columns = {"site": ["Rome", "Bern"] * 20}
    rival = Baseline("Prevalence", "Each label's share.", "constant", {"auroc": Metric(0.5)})
    evaluation = dataclasses.replace(
        evaluation, subgroups=evaluate_subgroups(predictions, threshold, columns), baselines=[rival]
    )
    return predictions, threshold, evaluation


@pytest.fixture(scope="module")
def folder(evaluated, tmp_path_factory):
    made = tmp_path_factory.mktemp("sets")
    predictions, threshold, evaluation = evaluated
    shown = write.shown_studies(predictions, threshold, evaluation)
    made_from = provenance(
        config=Config(task="multilabel", dataset="ct_table/64x64x32").to_json(),
        counts={"train": {"a": 50, "b": 20}, "test": evaluation.counts},
    )
    write.write_evaluation(
        made, predictions, threshold, evaluation, made_from, dict.fromkeys(shown, chest((5,))), history=()
    )
    return made


def test_each_label_has_the_metrics_of_its_question(evaluated):
    predictions, _, evaluation = evaluated
    assert [label.threshold for label in evaluation.labels] == [0.4, 0.5]
    for index, label in enumerate(evaluation.labels):
        has, called = predictions.label[:, index] == 1, predictions.probability[:, index] >= (0.4, 0.5)[index]
        assert label.num_positive == has.sum() == evaluation.counts[label.name]
        assert label.metrics["sensitivity"].value == pytest.approx(called[has].mean())
        assert label.metrics["specificity"].value == pytest.approx((~called[~has]).mean())
        assert label.metrics["auroc"].method == "DeLong"
    mean = np.mean([label.metrics["auroc"].value for label in evaluation.labels])
    assert evaluation.metrics["macro_auroc"].value == pytest.approx(mean)
    assert evaluation.metrics["macro_auroc"].method == "DeLong"


def test_the_page_has_a_table_of_labels_and_their_curves(folder):
    page = (folder / "report.html").read_text()
    words = re.sub(r"<[^>]*>", " ", page.partition("<script")[0].partition("</style>")[2])
    for text in ("AUROC, macro average", "AUROC, micro average", "Each label by itself", "Calibration of each label"):
        assert text in words
    for text in ("Confusion matrix", "fold’s threshold", "was not examined"):
        assert text not in words, text
    assert "roc.png" in files_in(folder)
    assert "confusion_matrix.png" not in files_in(folder)
    card = (folder / "model_card.md").read_text()
    assert "for each label by its threshold, a 0.4, b 0.5" in card
    assert "own fold" not in card


def test_wrong_sets_are_failures_with_the_label(evaluated):
    predictions, threshold, evaluation = evaluated
    decision = thresholds.decide("multilabel", predictions.probability, threshold)
    wrong = (decision != predictions.label).any(axis=1)
    ids = {failure.study_id for failure in evaluation.failures}
    assert ids <= {study_id for study_id, is_wrong in zip(predictions.study_id, wrong, strict=True) if is_wrong}
    assert evaluation.metrics["exact_match"].value == pytest.approx((~wrong).mean())
    assert len(ids) == len(evaluation.failures) > 0


def test_it_reads_back_and_is_printed(evaluated):
    _, _, evaluation = evaluated
    assert metrics_json.load(Evaluation, metrics_json.evaluation_to_json(evaluation)) == evaluation
    assert "AUROC, macro average" in console.evaluation_text(evaluation)
    assert wording.not_beaten(evaluation) == []
