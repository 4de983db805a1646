"""Metrics of groups of studies, metadata, and the worst mistakes."""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from covidscan.evaluation.evaluate import check_options
from covidscan.evaluation.subgroups import evaluate_subgroups, read_metadata
from covidscan.evaluation.summary import find_failures
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.provenance import EvaluationOptions
from covidscan.metrics.results import Failure, Metric
from tests.support.evaluations import SEVERITY, THIRTEEN
from tests.support.reported import context, result
from tfds_mosmed.errors import UserError


def groups_of(columns, predictions=THIRTEEN, threshold=0.5):
    found = evaluate_subgroups(predictions, threshold, columns)
    return {item.by: {group.name: group for group in item.groups} for item in found}


def wilson(hits, studies):
    interval = stats.binomtest(hits, studies).proportion_ci(method="wilson")
    return Metric(hits / studies, pytest.approx((interval.low, interval.high), abs=1e-12))


def accuracy(*labels):
    """The accuracy of (hits, studies) of each label: Wilson's distances, weighted, squared and added."""
    total = sum(studies for _, studies in labels)
    value = sum(hits for hits, _ in labels) / total
    reach = np.zeros(2)
    for hits, studies in labels:
        interval = stats.binomtest(hits, studies).proportion_ci(method="wilson")
        reach += (studies / total * (np.asarray([interval.low, interval.high]) - hits / studies)) ** 2
    ends = max(0, value - reach[0] ** 0.5), min(1, value + reach[1] ** 0.5)
    return Metric(value, pytest.approx(ends, abs=1e-12))


def test_a_group_is_evaluated_like_its_studies_alone():
    """Of thirteen the five surest positive studies and the negative one that scores highest."""
    site = ["north"] * 5 + ["south"] * 3 + ["north"] * 1 + ["south"] * 4
    north = groups_of({"site": site})["site"]["north"]
    assert (north.num_studies, north.num_positive) == (6, 5)
    assert north.metrics["sensitivity"] == wilson(5, 5)
    assert north.metrics["specificity"] == wilson(0, 1)
    assert north.metrics["accuracy"] == accuracy((5, 5), (0, 1))
    assert north.metrics["auroc"].value == 2 / 5  # 0.85 lies below 0.95 and 0.90 of five
    assert list(groups_of({"site": site})["site"]) == ["north", "south"]


def test_auroc_has_an_interval_and_is_not_defined_with_one_label():
    groups = groups_of({"site": ["a"] * 8 + ["b"] * 5, "mixed": [*"xyxyxyxyxyxyx"]})
    assert groups["site"]["a"].metrics["auroc"] == Metric(None)
    assert groups["site"]["a"].metrics["specificity"] == Metric(None)
    mixed = groups["mixed"]["x"].metrics["auroc"]
    members = np.arange(0, 13, 2)
    label, score = THIRTEEN.label[members], THIRTEEN.probability[members, 1]
    assert mixed.value == pytest.approx(roc_auc_score(label, score))
    assert mixed.interval[0] < mixed.value < mixed.interval[1]


def test_a_category_is_evaluated_with_all_studies_of_the_other_label():
    category = ["CT-1"] * 5 + ["CT-3", "CT-3", "CT-4"] + ["CT-0"] * 5
    groups = groups_of({"category": category})["category"]
    assert list(groups) == ["CT-0 against all positives", "CT-1 against all negatives", "other against all negatives"]
    mild = groups["CT-1 against all negatives"]
    assert (mild.num_studies, mild.num_positive) == (10, 5)
    expected = roc_auc_score([1] * 5 + [0] * 5, THIRTEEN.probability[[*range(5), *range(8, 13)], 1])
    assert mild.metrics["auroc"].value == pytest.approx(expected)
    assert groups["other against all negatives"].metrics["sensitivity"] == wilson(1, 3)


def test_the_threshold_is_the_one_given():
    groups = groups_of({"site": ["a"] * 6 + ["b"] * 7}, threshold=0.75)
    assert groups["site"]["a"].metrics["sensitivity"] == wilson(3, 6)


def test_numbers_are_cut_at_quartiles_and_named_with_their_unit():
    spacing = [0.58, 0.59, 0.60, 0.66, 0.67, 0.68, 0.7, 0.71, 0.72, 0.9, 0.95, 1.1499, 1.15]
    twice = Predictions.pool([THIRTEEN, dataclasses.replace(THIRTEEN, study_id=[f"again_{k}" for k in range(13)])])
    groups = evaluate_subgroups(twice, 0.5, {"in-plane spacing (mm)": spacing * 2})[0].groups
    assert [group.name for group in groups] == [
        "0.58 to 0.66 mm",
        "0.67 to 0.7 mm",
        "0.71 to 0.9 mm",
        "0.95 to 1.15 mm",
    ]
    assert [group.num_studies for group in groups] == [8, 6, 6, 6]


def test_few_different_numbers_are_groups_and_whole_numbers_stay_whole():
    groups = groups_of({"slices": [41] * 6 + [38] * 7, "age (years)": list(range(40, 53))})
    assert list(groups["slices"]) == ["38", "41"]
    assert list(groups["age (years)"]) == ["40 to 46 years", "47 to 52 years"]


def test_missing_values_are_a_group_and_rare_texts_are_pooled():
    groups = groups_of({"scanner": ["A"] * 6 + ["B", "C", "C"] + [None] * 4})["scanner"]
    assert {name: group.num_studies for name, group in groups.items()} == {"A": 6, "other": 3, "not given": 4}


def test_columns_that_do_not_divide_the_studies_are_left_out():
    assert groups_of({"slice distance (mm)": [8.0] * 13, "name": [f"n{number}" for number in range(13)]}) == {}


def test_severity_and_classes():
    grade = groups_of({"category": SEVERITY.category, "half": list("aabbb")}, SEVERITY)
    assert "category" not in grade  # five rare categories are one group
    assert "half" not in grade
    columns = {"half": [1, 1, 2, 2, 2]}
    second = groups_of(columns, SEVERITY)["half"]["2"]
    assert second.num_positive == 3
    assert second.metrics["sensitivity"] == wilson(2, 3)
    assert second.metrics["accuracy"] == accuracy((0, 1), (1, 2))
    found = evaluate_subgroups(dataclasses.replace(SEVERITY, task="classes"), 0.5, columns)[0].groups
    assert found[1].num_positive is None
    assert found[1].metrics.keys() == {"auroc", "accuracy"}


@given(
    st.lists(st.none() | st.floats(-1e4, 1e4), min_size=13, max_size=13)
    | st.lists(st.none() | st.sampled_from("abc"), min_size=13, max_size=13)
    | st.lists(st.none() | st.integers(0, 9), min_size=13, max_size=13)
)
def test_each_study_is_in_one_group(values):
    for groups in groups_of({"anything": values}).values():
        assert sum(group.num_studies for group in groups.values()) == 13
        assert sum(group.num_positive for group in groups.values()) == 8
        assert len(groups) <= 5


def write(folder, text):
    path = folder / "patients.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_metadata_become_columns_in_the_order_of_the_studies(tmp_path):
    path = write(tmp_path, "\ufeffage,study_id,sex,weight\n61,b,f,\n70.5,a,m,n/a\n3,z,m,80\n")
    assert read_metadata(path, ["a", "b", "c"]) == {
        "age": [70.5, 61.0, None],
        "sex": ["m", "f", None],
        "weight": ["n/a", None, None],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,age\na,3\n", "no column study_id but id, age"),
        ("study_id,age\na,3\nb,4\na,5\n", "study a occurs twice"),
        ("study_id,age\nx,3\n", "none of the evaluated studies"),
        ("", "has no column study_id"),
    ],
)
def test_metadata_that_do_not_fit_are_refused_by_name(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        read_metadata(path, ["a", "b"])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_metadata_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"absent\.csv: cannot be read"):
        read_metadata(tmp_path / "absent.csv", ["a"])
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00\x80study_id")
    with pytest.raises(UserError, match="cannot be read"):
        read_metadata(binary, ["a"])


def test_the_worst_mistakes_of_thirteen():
    found = find_failures(THIRTEEN, 0.5)
    assert [(item.kind, item.probability) for item in found] == [
        ("False positive", 0.85),
        ("False negative", 0.20),
        ("False positive", 0.62),
        ("False negative", 0.40),
    ]
    assert found[0] == Failure(
        study_id="study_0009",
        kind="False positive",
        reference="negative",
        prediction="positive",
        probability=0.85,
        category="CT-0",
    )
    assert [item.probability for item in find_failures(THIRTEEN, 0.5, each=1)] == [0.85, 0.20]
    assert {item.kind for item in find_failures(THIRTEEN, 0.05)} == {"False positive"}


def test_mistakes_of_several_labels_are_wrong():
    found = find_failures(SEVERITY, 0.5)
    assert [(item.study_id, item.reference, item.prediction) for item in found] == [
        ("study_0002", "CT-2", "CT-1"),
        ("study_0004", "CT-3+4", "CT-0"),
    ]
    assert {item.kind for item in found} == {"Wrong"}
    assert [item.probability for item in found] == [0.1, 0.1]
    assert len(find_failures(SEVERITY, 0.5, each=1)) == 2


def test_a_second_evaluation_keeps_the_metadata_of_the_first(tmp_path):
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    for table in (first, second):
        table.write_text("study_id,sex\na,m\nb,f\n")
    made_from = context(wishes={"metadata": str(first), "compare": None, "repeats": []})
    (tmp_path / "metrics.json").write_text(json.dumps({**result(), "context": made_from}))
    evaluation_set: Any = SimpleNamespace(folder=tmp_path, workdir=tmp_path, study_ids=["a", "b"])
    assert check_options(evaluation_set, EvaluationOptions()).metadata == str(first)
    assert check_options(evaluation_set, EvaluationOptions(metadata=str(second))).metadata == str(second)
    first.unlink()
    with pytest.raises(UserError, match="used it: give it anew, or move that folder away"):
        check_options(evaluation_set, EvaluationOptions())
