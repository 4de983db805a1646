"""Metrics and baseline, predictions.csv, and the files of an evaluation."""

import csv
import io
import json
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from covidscan.metrics import metrics_json
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import Metric
from covidscan.report.console import evaluation_text
from covidscan.report.write import shown_studies, write_evaluation
from tests.support.evaluations import FILES, SEVERITY, THIRTEEN, binary, chest, evaluated, files_in, history, provenance
from tfds_mosmed.errors import UserError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation") / "mosmed-test-best"
    result = evaluated(THIRTEEN)
    volumes = {study_id: chest() for study_id in shown_studies(THIRTEEN, 0.5, result)}
    write_evaluation(folder, THIRTEEN, 0.5, result, provenance(), volumes)
    return folder, result


def test_the_table_of_thirteen_studies():
    result = evaluated(THIRTEEN)
    assert result.counts == {"negative": 5, "positive": 8}
    assert result.confusion_matrix == [[3, 2], [2, 6]]
    assert result.sensitivities == {"negative": 3 / 5, "positive": 6 / 8}
    assert result.metrics["accuracy"].value == pytest.approx(9 / 13)
    assert result.metrics["accuracy"].baseline == pytest.approx(8 / 13)
    assert result.metrics["f1"].baseline == pytest.approx(16 / 21)
    assert result.metrics["npv"].baseline is None
    low, high = result.metrics["specificity"].interval
    assert low < 3 / 5 < high
    low, high = result.metrics["auroc"].interval
    assert low < 29 / 40 < high
    assert result.notes == []


def test_severity_is_also_evaluated_as_disease_or_not():
    result = evaluated(SEVERITY)
    assert result.baseline == "always CT-3+4"
    assert result.confusion_matrix == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 1]]
    assert result.disease.confusion_matrix == [[1, 0], [1, 3]]
    assert result.disease.metrics["sensitivity"] == Metric(
        3 / 4, (pytest.approx(0.3006, abs=1e-4), pytest.approx(0.9544, abs=1e-4)), "Wilson", 1.0
    )


def test_one_label_alone_is_evaluated_with_a_note():
    result = evaluated(binary((0.9, 0.3), ()))
    assert result.metrics["auroc"] == Metric(None)
    assert result.metrics["accuracy"].value == 0.5
    assert any("Not defined" in note and "AUROC" in note for note in result.notes)
    assert "not defined" in evaluation_text(result)


def test_temperature_scaling_corrects_an_overconfident_model():
    generator = np.random.default_rng(0)
    log_odds = generator.normal(0.4, 1.5, 2000)
    label = generator.uniform(size=2000) < 1 / (1 + np.exp(-log_odds))
    true, sure = (1 / (1 + np.exp(-factor * log_odds)) for factor in (1, 3))
    ids = [str(number) for number in range(2000)]
    predictions = Predictions(
        ids,
        ["CT-1"] * 2000,
        label,
        np.stack([1 - true, true], 1),
        ("negative", "positive"),
        "binary",
        uncalibrated=np.stack([1 - sure, sure], 1),
    )
    shown = evaluated(predictions).calibration
    before, after = shown.before.metrics, shown.after.metrics
    assert before["slope"].interval[1] < 0.5
    low, high = after["slope"].interval
    assert low < 1 < high
    assert after["ece"].value < before["ece"].value / 3
    assert after["brier"].value < before["brier"].value


@pytest.mark.alone
def test_331_studies_are_evaluated_with_all_intervals_within_ten_seconds(tmp_path):
    generator = np.random.default_rng(0)
    score = np.concatenate([generator.beta(4, 2, 255), generator.beta(2, 4, 76)])
    predictions = binary(score[:255], score[255:])
    start = time.perf_counter()
    result = evaluated(predictions)
    volumes = {study_id: chest() for study_id in shown_studies(predictions, 0.5, result)}
    write_evaluation(tmp_path, predictions, 0.5, result, provenance(), volumes)
    seconds = time.perf_counter() - start
    print(f"{seconds:.1f} s")
    assert seconds < 10
    assert all(metric.interval for metric in result.metrics.values())


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1)
            | st.text(st.sampled_from("'=+-@\t 1.e\\xu0\x1b\u200b\U000e0041"), min_size=1),
            st.floats(0, 1),
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda study: study[0],
    )
)
def test_predictions_survive_csv(studies):
    score = np.asarray([value for _, value in studies])
    before = Predictions(
        [study_id for study_id, _ in studies],
        ["CT-1"] * len(studies),
        (score > 0.3).astype(int),
        np.stack([1 - score, score], 1),
        ("negative", "positive"),
        "binary",
        uncalibrated=np.stack([1 - score**2, score**2], 1),
    )
    after = Predictions.from_csv(before.to_csv(), "binary")
    assert list(after.study_id) == list(before.study_id)
    assert (list(after.category), after.label_names) == (list(before.category), before.label_names)
    np.testing.assert_array_equal(after.label, before.label)
    np.testing.assert_array_equal(after.probability, before.probability)
    np.testing.assert_array_equal(after.uncalibrated, before.uncalibrated)


@pytest.mark.parametrize(
    "name", ["=1+1", "+A1", "-2+3", "@SUM(1)", "\t=1", " =1", "'=1", "''@x", "＝1", "-", "=HYPERLINK(0)"]
)
def test_no_name_is_a_formula_in_a_spreadsheet(name):
    names = (name, f"{name}x")
    before = Predictions([name, "other"], [name, "-0.5"], [0, 1], [[0.9, 0.1], [0.2, 0.8]], names, "binary")
    rows = list(csv.reader(io.StringIO(before.to_csv())))[1:]
    for cells in rows:
        assert not any(re.match(r"[\s]*[=+@＝]|\s*-(?![\d.]+$)", cell) for cell in cells)
    assert rows[1][-1] == "-0.5", "a number stays a number"
    after = Predictions.from_csv(before.to_csv(), "binary")
    assert (after.study_id, after.category, after.label_names) == ([name, "other"], [name, "-0.5"], names)
    assert after.read_decisions(before.to_csv()).tolist() == [0, 1]
    written_before = "study_id,label,probability_a,probability_b,uncalibrated_a,uncalibrated_b,prediction,category\n"
    written_before += "=1,a,0.9,0.1,0.9,0.1,a,+x\n"
    assert Predictions.from_csv(written_before, "binary").study_id == ["=1"]


def test_predictions_csv_has_the_columns_of_the_contract():
    header, first, *_ = THIRTEEN.to_csv().splitlines()
    assert header == (
        "study_id,label,probability_negative,probability_positive,uncalibrated_negative,uncalibrated_positive,"
        "prediction,category"
    )
    assert first == f"study_0001,positive,{1 - 0.95!r},0.95,{1 - 0.95!r},0.95,positive,CT-1"
    assert THIRTEEN.to_csv(threshold=0.96).splitlines()[1].split(",")[6] == "negative"
    own = np.linspace(0.96, 0.2, 13)
    assert THIRTEEN.to_csv(own).splitlines()[1].split(",")[6] == "negative"
    assert THIRTEEN.to_csv(own).splitlines()[6].split(",")[6] == ("positive" if own[5] <= 0.55 else "negative")


@pytest.mark.parametrize("text", ["", "study_id,label\na,b\n", "study_id,label,probability_a,category\nx,b,1,c\n"])
def test_another_csv_is_refused(text):
    with pytest.raises(UserError):
        Predictions.from_csv(text, "binary")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"study_id": [], "category": []}, UserError, "no study to evaluate: .* --split"),
        ({"probability": np.full((2, 2), np.nan)}, UserError, "diverged: .* --learning_rate"),
        ({"probability": np.full((2, 2), 0.4)}, ValueError, "sum to 1"),
        ({"probability": np.full((3, 2), 0.5)}, ValueError, "must fit 2 studies and 2 labels"),
        ({"label": [0, 2]}, ValueError, "from 0 to 1"),
        ({"study_id": ["a", "a"]}, ValueError, "once"),
    ],
)
def test_invalid_predictions_are_refused(change, error, message):
    fields = {"study_id": ["a", "b"], "category": ["x", "y"], "label": [0, 1], "probability": np.full((2, 2), 0.5)}
    with pytest.raises(error, match=message):
        Predictions(**{**fields, **change}, label_names=("negative", "positive"), task="binary")


def test_every_file_is_written_completely(written):
    folder, result = written
    assert files_in(folder) == FILES
    stored = json.loads((folder / "metrics.json").read_text())
    assert stored.pop("context")["split_hash"] == "5a" * 32
    written = stored.pop("files")
    del stored["sha256"]
    assert stored == json.loads(json.dumps(metrics_json.evaluation_to_json(result)))
    for name in FILES - {"metrics.json"}:
        assert metrics_json.read_file(folder, name) == (folder / name).read_bytes()
    assert {*written, "metrics.json"} == FILES
    assert (folder / "predictions.csv").read_text() == THIRTEEN.to_csv()
    for path in folder.glob("*.png"):
        assert imread(path)[..., :3].std() > 0.05


def test_learning_curves_join_the_report_where_there_are_some(written, tmp_path):
    assert "Learning curves</h2>" not in (written[0] / "report.html").read_text()
    write_evaluation(tmp_path, THIRTEEN, 0.5, written[1], provenance(), {}, history=history(), steps_per_epoch=19.0)
    assert files_in(tmp_path) == FILES | {"figures/learning_curves.svg"}
    page = (tmp_path / "report.html").read_text()
    assert "against the epoch, of 19 steps" in page
    assert '<td class="n">5.3</td>' in page  # step 100


def test_a_report_that_fails_leaves_the_earlier_one(written):
    folder = written[0]
    before = {name: (folder / name).read_bytes() for name in files_in(folder)}
    two = binary((0.9,), (0.2,))
    with pytest.raises(Exception, match="covidscan"):
        write_evaluation(folder, two, 0.5, evaluated(two), provenance(versions={}), {})
    assert {name: (folder / name).read_bytes() for name in files_in(folder)} == before
