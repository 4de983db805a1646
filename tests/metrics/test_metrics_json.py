"""Evaluations are read back from metrics.json as they were written."""

import json

import pytest

from covidscan.metrics import metrics_json
from covidscan.metrics.provenance import Provenance
from covidscan.metrics.results import Evaluation
from tests.support import reported
from tests.support.evaluations import SEVERITY, THIRTEEN, evaluated
from tfds_mosmed.errors import UserError

STORED = {**reported.result(), "context": reported.context()}


@pytest.mark.parametrize("stored", [STORED, {**STORED, "comparison": None, "repeats": None, "decision_curve": None}])
def test_an_evaluation_is_read_and_written_byte_for_byte(stored, tmp_path):
    text = json.dumps(stored, indent=2)
    (tmp_path / "metrics.json").write_text(text)
    assert json.dumps(metrics_json.to_json(*metrics_json.read(tmp_path)), indent=2) == text


@pytest.mark.parametrize("predictions", [THIRTEEN, SEVERITY])
def test_an_evaluation_is_written_and_read(predictions):
    evaluation = evaluated(predictions)
    stored = json.loads(json.dumps(metrics_json.evaluation_to_json(evaluation), allow_nan=False))
    assert metrics_json.load(Evaluation, stored) == evaluation
    assert ("disease" in stored) == (predictions.task == "severity")
    assert list(stored["figures"]["accuracy"]) == ["value", "interval", "method", "baseline"]
    assert list(stored["calibration"]["after"]["figures"]["brier"]) == ["value", "interval", "method"]


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({**STORED, "figures": 3})])
def test_a_damaged_file_is_named(text, tmp_path):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=r"metrics\.json is not as it was written .*: evaluate again"):
        metrics_json.read(tmp_path)


PARTS = metrics_json.load(Evaluation, STORED), metrics_json.load(Provenance, STORED["context"])


def test_an_edited_evaluation_and_that_of_another_run_are_refused(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(metrics_json.to_text(*PARTS, {}, owner="a run"))
    assert metrics_json.read(tmp_path, "a run") == PARTS
    with pytest.raises(UserError, match=r"metrics\.json .* was edited, or is of another run.*: evaluate again"):
        metrics_json.read(tmp_path, "another")
    path.write_text(path.read_text().replace('"value": 0.', '"value": 1.', 1))
    with pytest.raises(UserError, match="was edited"):
        metrics_json.read(tmp_path, "a run")
    assert metrics_json.read(tmp_path, edited=True) is not None


def test_the_other_files_of_an_evaluation_are_those_written_with_it(tmp_path):
    table = tmp_path / "predictions.csv"
    table.write_text("study_id\na\n")
    (tmp_path / "metrics.json").write_text(metrics_json.to_text(*PARTS, {"predictions.csv": table.read_bytes()}))
    assert metrics_json.read_file(tmp_path, "predictions.csv") == b"study_id\na\n"
    table.write_text("study_id\nb\n")
    with pytest.raises(UserError, match=r"predictions\.csv .* was written with another one.*: evaluate again"):
        metrics_json.read_file(tmp_path, "predictions.csv")
    table.unlink()
    with pytest.raises(UserError, match=r"predictions\.csv is not as it was written .*: evaluate again"):
        metrics_json.read_file(tmp_path, "predictions.csv")


def test_no_evaluation_is_none(tmp_path):
    assert metrics_json.read(tmp_path) is None
