"""Intervals of patients with several studies, which are alike, and so tell less than as many patients would."""

import dataclasses

import numpy as np
import pytest
from scipy import special, stats

from covidscan.evaluation import multilabel as sets
from covidscan.evaluation import summary
from covidscan.evaluation.subgroups import evaluate_subgroups
from covidscan.metrics import interval_methods, intervals, roc, thresholds
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import OperatingPoint

PATIENTS, EACH, DRAWS = 60, 4, 400
PATIENT = np.repeat(np.arange(PATIENTS), EACH)
POINT = OperatingPoint("default", "…", 0.5, 1.0, 100, 1)


def _draw(rng, separation, correlation, mixed):
    """Labels, of studies where patients are mixed, else of patients; and scores whose chance is shared by a patient."""
    positive = rng.random(len(PATIENT)) < 0.5 if mixed else PATIENTS // 2 > PATIENT
    shared, own = rng.normal(size=PATIENTS)[PATIENT], rng.normal(size=len(PATIENT))
    return positive, positive * separation + np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("separation", "correlation"), [(1.5, 0.8), (1.5, 0.0), (3.0, 0.8)])
def test_intervals_cover_where_patients_have_several_studies(separation, correlation, mixed):
    """Without their numbers 70 to 75 % of the AUROC's do, of patients of one label."""
    rng, cut = np.random.default_rng(0), 0.4
    truth = {
        "auroc": stats.norm.cdf(separation / np.sqrt(2)),
        "sensitivity": stats.norm.cdf(separation - cut),
        "specificity": stats.norm.cdf(cut),
    }
    hits = dict.fromkeys(truth, 0)
    for _ in range(DRAWS):
        positive, score = _draw(rng, separation, correlation, mixed)
        probability = special.expit(score - cut)
        table = np.stack([1 - probability, probability], axis=1)
        found = intervals.key_metrics("binary", positive.astype(int), table, 0.5, PATIENT)
        for name, value in truth.items():
            low, high = found[name].interval
            hits[name] += low <= value <= high
    assert min(hits.values()) >= 0.9 * DRAWS, hits


def _of(task, seed=0, studies=80):
    rng = np.random.default_rng(seed)
    labels = {"binary": 2, "multilabel": 3}.get(task, 4)
    label = rng.integers(labels, size=studies)
    probability = special.softmax(rng.normal(size=(studies, labels)) + 1.2 * np.eye(labels)[label], axis=1)
    if task == "multilabel":
        label = rng.integers(2, size=(studies, labels))
        probability = special.expit(rng.normal(size=(studies, labels)) + 1.5 * (2 * label - 1))
    ids, names = [f"s{number}" for number in range(studies)], tuple("abcd"[:labels])
    return Predictions(ids, ["x"] * studies, label, probability, names, task)


def _evaluate(predictions):
    """The metrics of all tables of an evaluation, by where they are."""
    summarize = sets.summarize if predictions.task == "multilabel" else summary.summarize
    threshold = thresholds.frozen(0.5, [0.5] * 3 if predictions.task == "multilabel" else [])
    made = summarize(predictions, threshold, POINT)
    tables = {"": made.metrics, "after": made.calibration.after.metrics if made.calibration else {}}
    tables |= {"disease": made.disease.metrics} if made.disease else {}
    for each in made.labels:
        tables |= {each.name: each.metrics, f"{each.name} after": each.calibration.after.metrics}
    columns = {"half": ["one", "other"] * (len(predictions.study_id) // 2)}
    for group in evaluate_subgroups(predictions, threshold, columns)[0].groups:
        tables[group.name] = group.metrics
    return {f"{table} {name}": metric for table, found in tables.items() for name, metric in found.items()}


@pytest.mark.parametrize("task", ["binary", "severity", "classes", "multilabel"])
def test_one_study_a_patient_changes_no_bit(task):
    predictions = _of(task)
    numbered = dataclasses.replace(predictions, patient=np.random.default_rng(1).permutation(80))
    assert _evaluate(numbered) == _evaluate(predictions)


@pytest.mark.parametrize("task", ["binary", "severity", "classes", "multilabel"])
def test_copies_of_a_study_tell_nothing_new(task):
    """Metrics stay, and no interval gets narrower than that of the studies without their copies."""
    once = _of(task)
    rows = np.tile(np.arange(80), 4)
    copies = Predictions(
        [f"s{number}" for number in range(320)],
        ["x"] * 320,
        once.label[rows],
        once.probability[rows],
        once.label_names,
        task,
        patient=rows,
    )
    whole = _evaluate(once)
    for name, metric in _evaluate(copies).items():
        if metric.interval is None or name.endswith("auprc"):  # ties move the average precision
            continue
        assert metric.value == pytest.approx(whole[name].value), name
        (low, high), (first, last) = metric.interval, whole[name].interval
        assert high - low >= 0.95 * (last - first), name
        assert high - low <= 1.3 * (last - first), name


def test_copies_leave_the_standard_error_as_it_is():
    rng = np.random.default_rng(0)
    label, score = rng.random(50) < 0.4, rng.normal(size=50)
    rows = np.repeat(np.arange(50), 3)
    error = roc.delong(label, score).standard_error
    assert roc.delong(label[rows], score[rows], rows).standard_error == pytest.approx(error)
    other = rng.normal(size=50)
    alone, several = roc.delong_test(label, score, other), roc.delong_test(label[rows], score[rows], other[rows], rows)
    assert several.p_value == pytest.approx(alone.p_value)


def test_where_nothing_varies_a_patient_counts_once():
    """As of right predictions of all studies: the interval is that of as many trials as patients."""
    assert interval_methods.design_effect(np.ones(240), PATIENT) == EACH
    assert interval_methods.proportion(240, 240, EACH)[1:] == pytest.approx(interval_methods.wilson(60, 60))
    positive = PATIENTS // 2 > PATIENT
    low, high = roc.delong(positive, positive.astype(float), PATIENT).interval
    assert (low, high) == pytest.approx(interval_methods.wilson(30, 30))
    one = np.zeros(6)  # one patient alone has no variance
    assert interval_methods.standard_error(one, np.arange(6.0), one)[0] is None
    assert interval_methods.design_effect(np.array([1, 0, 1]), np.zeros(3)) == 3
