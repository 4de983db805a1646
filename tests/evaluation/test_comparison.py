"""Two runs compared on the same studies, in any order, and several runs summarized."""

import dataclasses
import json
import os
import statistics
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from covidscan.data import leakage
from covidscan.data.leakage import StudyKeys
from covidscan.evaluation import comparison, evaluate, evaluation_set
from covidscan.evaluation.comparison import compare, summarize_runs
from covidscan.evaluation.evaluation_set import EvaluationSet
from covidscan.metrics import metrics_json, paired_tests, roc, thresholds
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.provenance import EvaluationOptions
from covidscan.metrics.results import Comparison, Member, Metric
from covidscan.runs import checkpoints
from tests.support import runs
from tests.support.evaluations import SEVERITY, binary
from tfds_mosmed.errors import UserError

# Right at 0.5: all but the last positive and the first negative.
MINE = binary((0.9, 0.8, 0.7, 0.6, 0.3), (0.65, 0.4, 0.2, 0.1))
# Right at 0.25: all but the second and third positive, and the first three negatives.
OTHER = binary((0.9, 0.2, 0.1, 0.6, 0.3), (0.7, 0.4, 0.5, 0.05))


def _compare(mine, other, my_threshold, other_threshold, name):
    """Compare at thresholds."""
    decided = [
        thresholds.decide(run.task, run.probability, threshold)
        for run, threshold in ((mine, my_threshold), (other, other_threshold))
    ]
    return compare(mine, other, *decided, name)


def _reordered(predictions, order, **changes):
    fields = {
        "study_id": [predictions.study_id[index] for index in order],
        "category": [predictions.category[index] for index in order],
        "label": predictions.label[order],
        "probability": predictions.probability[order],
        "uncalibrated": predictions.uncalibrated[order],
    }
    return dataclasses.replace(predictions, **{**fields, **changes})


def _classes(label, score):
    names = tuple("abc")
    ids = [f"study_{number}" for number in range(len(label))]
    return Predictions(ids, ["x"] * len(label), label, np.asarray(score), names, "classes")


def test_differences_are_this_run_minus_the_other_at_each_ones_threshold():
    compared = _compare(MINE, OTHER, 0.5, 0.25, "runs/other")
    auroc, accuracy = compared.metrics["auroc"], compared.metrics["accuracy"]
    label = [1] * 5 + [0] * 4
    expected = roc_auc_score(label, MINE.probability[:, 1]) - roc_auc_score(label, OTHER.probability[:, 1])
    assert auroc.difference == pytest.approx(expected)
    assert accuracy.difference == pytest.approx(7 / 9 - 4 / 9)
    assert (auroc.method, accuracy.method) == ("DeLong", "McNemar")
    for metric in (auroc, accuracy):
        assert metric.interval[0] <= metric.difference <= metric.interval[1]
        assert 0 <= metric.p_value <= 1
    assert (compared.other, compared.num_studies) == ("runs/other", 9)
    assert "4 studies are right in this run alone, 1 in the other alone" in compared.description
    assert metrics_json.load(Comparison, json.loads(json.dumps(metrics_json.dump(compared)))) == compared


def test_the_tests_are_those_of_the_paired_studies():
    compared = _compare(MINE, OTHER, 0.5, 0.25, "other").metrics
    right = np.asarray([1, 1, 1, 1, 0, 0, 1, 1, 1], bool), np.asarray([1, 0, 0, 1, 1, 0, 0, 0, 1], bool)
    assert compared["accuracy"].p_value == paired_tests.mcnemar(*right).p_value
    delong = roc.delong_test(MINE.label == 1, MINE.probability[:, 1], OTHER.probability[:, 1])
    assert compared["auroc"].p_value == delong.p_value


@settings(max_examples=25)
@given(st.permutations(range(9)))
def test_studies_are_matched_by_their_id(order):
    straight = _compare(MINE, OTHER, 0.5, 0.25, "other")
    assert _compare(MINE, _reordered(OTHER, order), 0.5, 0.25, "other") == straight
    turned = _compare(_reordered(MINE, order), OTHER, 0.5, 0.25, "other").metrics
    for name, metric in straight.metrics.items():
        assert turned[name].difference == pytest.approx(metric.difference)
        assert turned[name].p_value == pytest.approx(metric.p_value)


def test_a_run_does_not_differ_from_itself():
    metrics = _compare(MINE, MINE, 0.5, 0.5, "same").metrics
    assert metrics["auroc"].difference == metrics["accuracy"].difference == 0
    assert metrics["auroc"].p_value == metrics["accuracy"].p_value == 1


def test_severity_is_compared_by_its_first_question():
    # P(graver than CT-0) is 0.3, 0.8, 1, 1, 0.4, 0.35; reversed grades among the ill change nothing.
    mine = dataclasses.replace(
        SEVERITY,
        study_id=[*SEVERITY.study_id, "study_0005"],
        category=[*SEVERITY.category, "CT-0"],
        label=np.append(SEVERITY.label, 0),
        probability=np.append(SEVERITY.probability, [[0.65, 0.15, 0.1, 0.1]], axis=0),
        uncalibrated=None,
    )
    other = dataclasses.replace(mine, probability=mine.probability[:, [0, 3, 2, 1]])
    assert _compare(mine, other, 0.5, 0.5, "other").metrics["accuracy"].difference == 0
    strict = _compare(mine, other, 0.38, 0.9, "other")
    assert strict.metrics["accuracy"].difference == pytest.approx(6 / 6 - 4 / 6)
    assert strict.metrics["auroc"].difference == 0
    assert "CT-0 against the other grades" in strict.description


def test_classes_are_compared_by_accuracy_alone():
    sure, unsure = np.eye(3)[[0, 1, 2, 0]], np.eye(3)[[1, 1, 2, 0]]
    compared = _compare(_classes([0, 1, 2, 0], sure), _classes([0, 1, 2, 0], unsure), None, None, "other")
    assert list(compared.metrics) == ["accuracy"]
    assert compared.metrics["accuracy"].difference == pytest.approx(1 / 4)


@pytest.mark.parametrize("negative", [(), (0.4,)])
def test_fewer_than_two_studies_of_a_label_have_no_test_of_the_auroc(negative):
    mine, other = binary((0.9, 0.3), negative), binary((0.9, 0.8), negative)
    assert list(_compare(mine, other, 0.5, 0.5, "other").metrics) == ["accuracy"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (_reordered(OTHER, [0, 2, 3, 4, 5, 6, 8]), "study study_0002 was evaluated here but not there: .*--split"),
        (binary((0.9, 0.2, 0.1, 0.6, 0.3), (0.7, 0.4, 0.5, 0.05, 0.1)), "study_0010 was evaluated there but not here"),
        (binary((0.9, 0.2, 0.1, 0.6), (0.3, 0.7, 0.4, 0.5, 0.05)), "study_0005 is negative there and positive here"),
        (dataclasses.replace(OTHER, task="classes"), r"its task is classes \(negative, positive\), this run's binary"),
        (dataclasses.replace(OTHER, label_names=("CT-0", "CT-1")), r"its task is binary \(CT-0, CT-1\)"),
    ],
)
def test_runs_on_other_studies_are_refused(other, message):
    with pytest.raises(UserError, match=f"^--compare=runs/other: .*{message}") as error:
        _compare(MINE, other, 0.5, 0.5, "runs/other")
    assert "\n" not in str(error.value)


def test_folds_are_summarized():
    values = [0.9, 0.8, 0.85]
    members = {f"fold {k}": {"auroc": Metric(value), "npv": Metric(None)} for k, value in enumerate(values)}
    members["fold 2"]["npv"] = Metric(0.5)
    summed = summarize_runs(members, "folds")
    auroc = summed.metrics["auroc"]
    assert auroc.mean == pytest.approx(statistics.mean(values))
    assert auroc.sd == pytest.approx(statistics.stdev(values))
    assert auroc.sd == pytest.approx(stats.tstd(values))
    assert (auroc.lowest, auroc.highest, auroc.runs) == (0.8, 0.9, 3)
    assert (summed.metrics["npv"].mean, summed.metrics["npv"].runs) == (0.5, 1)
    assert summed.kind == "folds"
    assert summed.members[2] == Member("fold 2", {"auroc": 0.85, "npv": 0.5})
    json.dumps(metrics_json.dump(summed), allow_nan=False)


def test_a_metric_that_no_fold_defines_is_left_out():
    assert summarize_runs({"a": {"npv": Metric(None)}, "b": {"npv": Metric(None)}}, "runs").metrics == {}


STORED = runs.ROOT / "tests" / "support" / "stored_run" / "run"


def _evaluation_set(external=False, **changes):
    """The test part that the stored run was evaluated on, as another run has it."""
    stored = metrics_json.read(STORED / "evaluations" / "ct_phantom_tiny-test-best", edited=True)
    parts = leakage.read(STORED)
    keys = StudyKeys(*([value for part in parts.values() for value in part[column]] for column in range(3)))
    same = {name: getattr(stored[1], name) for name in ("fingerprint", "split_hash")}
    dataset = SimpleNamespace(**{"name": "ct_phantom/tiny", "keys": keys, **same, **changes})
    return EvaluationSet(STORED.parent / "mine", dataset, "test", external, "best", "", None)  # type: ignore[arg-type]


def test_another_run_is_compared_on_the_same_records_whatever_their_names():
    same = _evaluation_set()
    assert comparison.read_other("compare", str(STORED), same).provenance.fingerprint == same.dataset.fingerprint
    rebuilt = _evaluation_set(fingerprint="of another version")
    comparison.read_other("compare", str(STORED), rebuilt)
    changed = same.dataset.keys._replace(voxels_sha256=["0" * 64] * len(same.dataset.keys.study_id))
    for others in (
        _evaluation_set(fingerprint="of other files", keys=changed),
        _evaluation_set(external=True, fingerprint="of another hospital"),
    ):
        with pytest.raises(UserError, match="evaluated on other records of ct_phantom/tiny, whatever their names"):
            comparison.read_other("compare", str(STORED), others)


def test_another_checkpoint_than_the_best_is_not_compared():
    latest = _evaluation_set()._replace(checkpoint="latest")
    with pytest.raises(UserError, match=r"^--compare takes the best checkpoint .* --checkpoint=latest: leave one"):
        comparison.read_other("compare", str(STORED), latest)


def test_a_run_is_not_compared_with_itself_whatever_its_path(tmp_path):
    evaluated = _evaluation_set()._replace(workdir=STORED)
    (tmp_path / "link").symlink_to(STORED)
    for path in (STORED, os.path.relpath(STORED), f"{STORED}/../run/", tmp_path / "link"):
        with pytest.raises(UserError, match=r"^--compare=.*: it is the evaluated run itself: name another run"):
            evaluate.check_options(evaluated, EvaluationOptions(compare=str(path)))
    comparison.check_is_another(str(STORED), evaluated._replace(ensemble="0c0ffee0"))  # of which it is a member
    comparison.check_is_another(str(STORED.parent), evaluated)


def test_a_run_is_no_repeat_of_itself():
    evaluated = _evaluation_set()._replace(workdir=STORED)
    config = json.loads((STORED / "config.json").read_text())["config"]
    scored = SimpleNamespace(members=[SimpleNamespace(run={"config": config})])
    with pytest.raises(UserError, match="names a run twice, or the evaluated one"):
        comparison.summarize_repeats(evaluated, scored, {}, [str(STORED)])  # type: ignore[arg-type]


def test_an_evaluation_of_a_checkpoint_that_is_no_longer_the_best_is_named(monkeypatch):
    step = metrics_json.read(STORED / "evaluations" / "ct_phantom_tiny-test-best", edited=True)[1].checkpoint
    assert checkpoints.best_step(STORED) == step
    assert checkpoints.best_step(STORED.parent) is None
    monkeypatch.setattr(checkpoints, "best_step", lambda _: step + 1)
    with pytest.raises(UserError, match=f"is of step {step}, which was the best until it was trained on: evaluate it"):
        comparison.read_other("repeats", str(STORED), _evaluation_set())


def test_a_test_on_another_folder_of_the_same_name_does_not_replace_the_first(tmp_path):
    stored = metrics_json.read(STORED / "evaluations" / "ct_phantom_tiny-test-best", edited=True)[1]
    first, other = (
        SimpleNamespace(name="ct_phantom/tiny", fingerprint=fingerprint)
        for fingerprint in (stored.fingerprint, "c0de" * 9)
    )
    assert not evaluation_set._has_evaluations_of_others(STORED, first)  # type: ignore[arg-type]
    assert evaluation_set._has_evaluations_of_others(STORED, other)  # type: ignore[arg-type]
    assert not evaluation_set._has_evaluations_of_others(tmp_path, other)  # type: ignore[arg-type]
    # A run in which these studies have the plain name finds them in one that was tested elsewhere before.
    mine = EvaluationSet(tmp_path / "mine", other, "test", True, "best", "", None)  # type: ignore[arg-type]
    assert mine.folder_of(tmp_path, "best").name == mine.folder.name == "ct_phantom_tiny-test-best"
    (tmp_path / "evaluations" / "ct_phantom_tiny@c0dec0de-test-best").mkdir(parents=True)
    assert mine.folder_of(tmp_path, "best").name == "ct_phantom_tiny@c0dec0de-test-best"


def test_training_records_that_are_others_by_now_leave_out_what_needs_them(caplog):
    def changed():
        raise UserError("--data_dir=data holds other studies")

    network = SimpleNamespace(has_records=lambda: True, own_dataset=changed)
    assert evaluation_set.training_dataset_if_built(network) is None  # type: ignore[arg-type]
    assert "left out: --data_dir=data holds other studies" in caplog.text
