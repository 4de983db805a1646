"""Evaluations are read back from metrics.json as they were written."""

import json

import pytest

from covidscan.metrics import metrics_json
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


def test_no_evaluation_is_none(tmp_path):
    assert metrics_json.read(tmp_path) is None
