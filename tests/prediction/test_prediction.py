"""Rows of predictions: hostile names and texts of files stay text, a prevalence is applied and told."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from covidscan.data.domain_shift import Flag
from covidscan.prediction.prediction import Prediction
from covidscan.prediction.predictor import Predictor
from covidscan.prediction.reading import prepare_scan
from covidscan.trained_models.model_info import ModelInfo
from tests.support.chest import SPACING_MM, chest
from tfds_mosmed.errors import UserError
from tfds_mosmed.scans.scan import scan_of_array

ESCAPES = "B30\x1b]0;title\x07\x1b[2J\x9b31m"


def _prediction(**changes):
    values = {
        "path": "scan.nii",
        "probability": 0.25,
        "decision": "negative",
        "probabilities": {"negative": 0.75, "positive": 0.25},
        "flags": (),
        "seen": {},
        "warnings": (),
        "seconds": 1.0,
    }
    return Prediction(**(values | changes))


def test_no_cell_is_a_formula_and_numbers_stay_numbers():
    hostile = _prediction(
        path="=cmd|' /C calc'!A0", decision="@SUM(1)", warnings=("+1+2",), error="-x", file="=x",
        threshold=0.5, model="0123456789ab", number=3, files=("0003.png", "0003.html"), source="cdef",
    )  # fmt: skip
    (cells,) = csv.reader([hostile.to_csv(["negative", "positive"])])
    assert cells == [
        "'=cmd|' /C calc'!A0", "0.250000", "'@SUM(1)", "0.750000", "0.250000", "", "'+1+2", "1.000", "'-x", "0.500000",
        "0123456789ab", "3", "'=x", "0003.png 0003.html", "cdef",
    ]  # fmt: skip


@pytest.mark.parametrize(("value", "cell"), [(3.21e-8, "3.21e-08"), (-0.0123456789, "-0.0123457"), (2 / 3, "0.666667")])
def test_a_small_number_keeps_its_digits(value, cell):
    predicted = _prediction(value=value, probability=None, decision=None, probabilities={})
    assert next(csv.reader([predicted.to_csv([])]))[1] == cell
    assert json.loads(predicted.to_json())["value"] == pytest.approx(value, rel=1e-5)


def test_a_reader_gets_probabilities_with_their_threshold_then_what_to_be_wary_of():
    flagged = _prediction(threshold=0.4861, flags=(Flag("kernel", "B70", "B30"),), warnings=("two\nlines",))
    assert flagged.to_text().splitlines() == [
        "scan.nii: negative; probabilities: negative 0.7500, positive 0.2500; threshold: 0.4861",
        "  kernel: B70, B30",
        "  two lines",
    ]
    assert _prediction(grade_thresholds=(0.4, 0.2)).to_text().endswith("; thresholds: 0.4000, 0.2000")
    assert _prediction(value=12.34567, probability=None, decision=None, probabilities={}).to_text() == "scan.nii: 12.35"
    assert _prediction(error="scan.nii: is empty").to_text() == "scan.nii: is empty"


def test_texts_of_files_have_no_control_characters():
    hostile = _prediction(path=f"a{ESCAPES}", flags=(Flag("kernel", ESCAPES),), warnings=(ESCAPES,), error=ESCAPES)
    row = hostile.to_csv(["negative", "positive"])
    assert row.isprintable()
    assert r"B30\x1b]0;title\x07" in row
    line = json.loads(hostile.to_json())
    assert line["path"] == f"a{ESCAPES}", "names of files stay exact in JSON, which escapes them"
    assert "".join([line["flags"][0]["seen"], *line["warnings"], line["error"]]).isprintable()
    assert hostile.to_json().isprintable()


def _adapting(criterion, prevalence):
    info = ModelInfo(
        "binary",
        ("negative", "positive"),
        0.6,
        (1.0,),
        "32x32x16",
        ((-600.0, 1500.0),),
        "ct_phantom/tiny",
        "Chosen.",
        None,
        criterion=criterion,
        prevalence=0.77,
    )
    return Predictor(info, lambda _: np.asarray([[0.3, 0.7]]), sha256="ab" * 32, prevalence=prevalence)


@pytest.mark.parametrize(("criterion", "decision"), [("youden", "positive"), ("accuracy", "negative")])
def test_a_prediction_is_adapted_to_a_prevalence_and_says_so(criterion, decision):
    adapted = _adapting(criterion, 0.1)(chest(), SPACING_MM)
    odds = 0.7 / 0.3 * (0.1 / 0.9) / (0.77 / 0.23)
    assert adapted.probability == pytest.approx(odds / (1 + odds))
    assert adapted.decision == decision
    assert adapted.model == "abababababab+prevalence=0.1"
    assert '"prevalence": 0.1' in adapted.to_json()
    assert "+prevalence=0.1" in adapted.to_csv(("negative", "positive"))
    usual = _adapting(criterion, None)(chest(), SPACING_MM)
    assert (usual.probability, usual.decision, usual.prevalence) == (0.7, "positive", None)


def test_thresholds_of_several_criteria_are_not_adapted():
    with pytest.raises(UserError, match=r"--prevalence=0\.1: .* different --operating_point"):
        _adapting("", 0.1)


EXPLAINED = {
    "binary": ([0.3, 0.7], 0.5, (), None, "positive, P(positive) = 0.700 (threshold 0.500)"),
    "severity": ([0.2, 0.5, 0.3], 0.5, (0.5, 0.5), None, "mid, P(above low) = 0.800 (threshold 0.500)"),
    "classes": ([0.2, 0.5, 0.3], None, (), 1, "mid, P(mid) = 0.500"),
    "multilabel": ([0.2, 0.45, 0.3], None, (0.1, 0.5, 0.2), 2, "low|high, P(high) = 0.300 (threshold 0.200)"),
    "multilabel, none": ([0.2, 0.45, 0.3], None, (0.5, 0.5, 0.5), 1, "none, P(mid) = 0.450 (threshold 0.500)"),
}


@pytest.mark.parametrize("case", EXPLAINED)
def test_maps_are_of_disease_or_of_the_likeliest_predicted_label_and_the_caption_names_it(case, tmp_path):
    probability, threshold, each, label, caption = EXPLAINED[case]
    task, asked = case.partition(",")[0], []
    names = ("negative", "positive") if task == "binary" else ("low", "mid", "high")

    class Explainer:
        def picture(self, prepared, label):
            asked.append(label)
            return b""

        def write(self, folder, name, scan, prepared, label, answer):
            asked.append((label, answer.caption))
            return [], []

    info = ModelInfo(task, names, threshold, (1.0,), "32x32x16", ((-600, 1500),), "x", "", None, grade_thresholds=each)
    predictor = Predictor(info, lambda _: np.asarray([probability]), explainer=Explainer())
    reading = prepare_scan("a", scan_of_array(chest(), SPACING_MM), predictor.grid, 0.0, with_scan=True)
    prediction = predictor.predict(reading)
    prediction.picture()  # type: ignore[misc]
    predictor.explain(reading, dataclasses.replace(prediction, flags=()), tmp_path, "a")
    assert asked == [label, (label, f"Study: {caption}")]
