"""Intervals of metrics; McNemar's test and Holm's correction."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covidscan.metrics import classification, interval_methods, intervals, paired_tests, roc, thresholds
from covidscan.metrics.results import Spread

# Approval of a prime minister in two surveys of the same 1600 people (Agresti, Categorical Data Analysis, 10.1).
BOTH, FIRST, SECOND, NEITHER = 794, 150, 86, 570


def _studies(task):
    """Lists of studies: label and whole numbers that become probabilities, so ties are common."""
    labels = 2 if task == "binary" else 4
    row = st.tuples(st.integers(0, labels - 1), st.lists(st.integers(1, 4), min_size=labels, max_size=labels))
    return st.lists(row, min_size=2, max_size=30)


def _arrays(rows):
    weight = np.asarray([numbers for _, numbers in rows], np.float64)
    return np.asarray([label for label, _ in rows]), weight / weight.sum(1, keepdims=True)


@pytest.mark.parametrize("task", ["binary", "severity", "classes"])
@settings(max_examples=30)
@given(data=st.data(), threshold=st.sampled_from([0.25, 0.4, 0.5, 0.6]))
def test_every_defined_metric_has_an_interval_around_it(task, data, threshold):
    label, probability = _arrays(data.draw(_studies(task)))
    metrics = classification.compute_metrics(task, label, probability, threshold)
    found = intervals.confidence_intervals(task, label, probability, threshold, resamples=50)
    without = {name for name, value in metrics.items() if value is not None} - set(found)
    # F1 without a positive study is 0 whatever the model says.
    assert without <= ({"f1"} if not np.any(label == 1) else set())
    for name, (low, high, method) in found.items():
        assert metrics[name] is not None
        assert np.isfinite([low, high]).all()
        assert method in ("Wilson", "DeLong", "bootstrap", interval_methods.WILSON_OF_RAREST)
        assert low < high
        assert low - 1e-9 <= metrics[name] <= high + 1e-9
        least = -1 if name == "quadratic_weighted_kappa" else 0
        assert least <= low
        assert high <= (3 if name == "mean_absolute_error" else 1)


@pytest.mark.parametrize("task", ["severity", "classes"])
@settings(max_examples=30)
@given(data=st.data())
def test_bootstrap_metrics_are_the_metrics_themselves(task, data):
    label, probability = _arrays(data.draw(_studies(task)))
    metrics = classification.compute_metrics(task, label, probability)
    counts = classification.confusion_matrix(label, thresholds.decide(task, probability), probability.shape[1])
    found = intervals.bootstrap_metrics(task, counts[None])
    assert set(found) == {
        name
        for name, (_, _, method) in _intervals(task, label, probability)
        if method == "bootstrap" or (method == interval_methods.WILSON_OF_RAREST and name != "macro_auroc")
    }
    for name, value in found.items():
        expected = np.nan if metrics[name] is None else metrics[name]
        assert value == pytest.approx([expected], nan_ok=True)


def _intervals(task, label, probability):
    found = intervals.confidence_intervals(task, label, probability, resamples=20)
    # A metric that is not defined has none, but is still bootstrapped.
    missing = {"quadratic_weighted_kappa": (0, 1, "bootstrap")} if task == "severity" else {}
    return {**missing, **found}.items()


def test_the_methods_are_those_documented():
    rng = np.random.default_rng(0)
    label, probability = np.repeat(np.arange(4), 20), rng.dirichlet(np.ones(4), 80)
    methods = {
        name: method for name, (_, _, method) in intervals.confidence_intervals("severity", label, probability).items()
    }
    assert methods == {
        "macro_auroc": "DeLong",
        "accuracy": "Wilson",
        "balanced_accuracy": "Wilson",
        "quadratic_weighted_kappa": "bootstrap",
        "mean_absolute_error": "bootstrap",
    }
    assert intervals.confidence_intervals("classes", label, probability)["macro_f1"][2] == "bootstrap"
    two = np.stack([1 - probability[:, 0], probability[:, 0]], 1)
    binary = intervals.confidence_intervals("binary", label > 1, two)
    assert binary["sensitivity"][:2] == interval_methods.wilson(int(np.sum(two[40:, 1] >= 0.5)), 40)
    assert binary["auroc"][:2] == roc.delong(label > 1, two[:, 1]).interval


def test_the_macro_average_of_two_classes_is_their_auroc():
    rng = np.random.default_rng(0)
    label, score = np.arange(50) % 2, rng.random(50)
    probability = np.stack([1 - score, score], 1)
    one = intervals.confidence_intervals("classes", label, probability)["macro_auroc"]
    assert one[:2] == pytest.approx(roc.delong(label == 1, score).interval)


def test_the_bootstrap_resamples_within_labels_and_repeats_by_seed():
    label = np.repeat(np.arange(4), [76, 204, 37, 14])
    probability = np.random.default_rng(0).dirichlet(np.ones(4), 331)
    first, again = (intervals.confidence_intervals("severity", label, probability, seed=5) for _ in range(2))
    assert first == again
    assert first != intervals.confidence_intervals("severity", label, probability, seed=6)
    # Drawing studies one by one spreads as much.
    rng, prediction = np.random.default_rng(1), thresholds.decide("severity", probability)
    groups = [np.flatnonzero(label == k) for k in range(4)]
    drawn = [np.concatenate([rng.choice(group, len(group)) for group in groups]) for _ in range(2000)]
    errors = [np.mean(abs(label[pick] - prediction[pick])) for pick in drawn]
    assert first["mean_absolute_error"][:2] == pytest.approx(np.quantile(errors, [0.025, 0.975]), abs=0.01)


def test_all_intervals_of_331_studies_take_no_time():
    label = (np.arange(331) >= 76).astype(int)
    score = np.random.default_rng(0).random(331)
    intervals.confidence_intervals("binary", label, np.stack([1 - score, score], 1))
    start = time.process_time()
    intervals.confidence_intervals("binary", label, np.stack([1 - score, score], 1))
    intervals.confidence_intervals("severity", label, np.stack([1 - score, score], 1))
    assert time.process_time() - start < 2


def _right(both, first, second, neither):
    cells = [both, first, second, neither]
    return np.repeat([True, True, False, False], cells), np.repeat([True, False, True, False], cells)


def test_mcnemar_as_published():
    found = paired_tests.mcnemar(*_right(BOTH, FIRST, SECOND, NEITHER))
    assert (found.only_a, found.only_b) == (150, 86)
    assert found.difference == pytest.approx(0.04)
    # Agresti's large-sample interval of this difference is 0.021 to 0.059.
    assert found.interval == pytest.approx((0.021, 0.059), abs=1e-3)
    assert found.p_value == pytest.approx(3.7e-5, abs=1e-5)  # chi-square with continuity correction: 3.4e-5


def test_holms_correction_by_hand():
    """Sorted 0.005, 0.01, 0.03, 0.04 by 4, 3, 2, 1: each at least the one before."""
    assert paired_tests.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired_tests.holm([0.6, 0.7]) == [1.0, 1.0]
    assert paired_tests.holm([0.2]) == [0.2]
    assert paired_tests.holm([]) == []


def test_mcnemar_by_hand():
    # Five studies by one model only, all the same: two of 32 ways.
    found = paired_tests.mcnemar(*_right(10, 5, 0, 3))
    assert found.p_value == pytest.approx(2 / 32)
    # Newcombe's method 10: Wilson's 0.6079-0.9416 and 0.3372-0.7544, phi = (30 - 9) / sqrt(15 x 3 x 10 x 8).
    phi = 21 / np.sqrt(15 * 3 * 10 * 8)
    (low_a, high_a), (low_b, high_b) = interval_methods.wilson(15, 18), interval_methods.wilson(10, 18)
    a, b = 15 / 18, 10 / 18
    below = np.sqrt((a - low_a) ** 2 - 2 * phi * (a - low_a) * (high_b - b) + (high_b - b) ** 2)
    above = np.sqrt((high_a - a) ** 2 - 2 * phi * (high_a - a) * (b - low_b) + (b - low_b) ** 2)
    assert found.interval == pytest.approx((5 / 18 - below, 5 / 18 + above))


def test_a_model_differs_from_itself_by_nothing():
    right = np.asarray([True, True, False])
    found = paired_tests.mcnemar(right, right)
    assert (found.difference, found.p_value) == (0, 1)
    low, high = paired_tests.mcnemar(np.ones(20, bool), np.ones(20, bool)).interval
    assert low < 0 < high
    turned = paired_tests.mcnemar(right, ~right)
    assert turned.interval == pytest.approx([-end for end in paired_tests.mcnemar(~right, right).interval[::-1]])


def test_the_smallest_difference_is_found_four_times_in_five():
    rng, positive = np.random.default_rng(0), np.arange(331) >= 76
    least = paired_tests.smallest_difference(positive, rng.normal(size=331) + 1.2 * positive)
    assert "331 studies (255 positive)" in least.description
    assert f"{least.auroc:.3f}" in least.description
    # A fifth of studies discordant, split so that the difference is the one claimed.
    only_a, only_b = (0.2 + least.accuracy) / 2, (0.2 - least.accuracy) / 2
    counts = rng.multinomial(331, [only_a, only_b, 1 - 0.2], size=4000)
    z = (counts[:, 0] - counts[:, 1]) / np.sqrt(counts[:, 0] + counts[:, 1])
    assert np.mean(abs(z) > 1.96) == pytest.approx(0.8, abs=0.02)
    # Two models around the AUROC, with errors that correlate by a half.
    error = roc.delong(positive, rng.normal(size=331) + 1.2 * positive).standard_error
    assert least.auroc == pytest.approx((1.96 + 0.8416) * error, rel=0.25)


def test_more_studies_show_less_and_few_show_nothing():
    rng = np.random.default_rng(0)
    least = [
        paired_tests.smallest_difference(np.arange(n) % 2, rng.normal(size=n) + np.arange(n) % 2)
        for n in (3, 30, 300, 3000)
    ]
    for name in ("auroc", "accuracy"):
        values = [getattr(one, name) for one in least]
        assert values == sorted(values, reverse=True)
        assert 0 < values[-1] < values[0] <= 1
    assert least[0].accuracy == 1
    alone = paired_tests.smallest_difference(np.ones(50), rng.random(50))
    assert alone.auroc is None
    assert "AUROC or" not in alone.description


@pytest.mark.parametrize(("negatives", "positives"), [(1, 2), (20, 20), (76, 255)])
def test_at_perfect_separation_the_interval_names_its_method_and_the_smallest_difference_agrees(negatives, positives):
    label = np.arange(negatives + positives) >= negatives
    score = (0.1 + 0.8 * label) * np.linspace(0.9, 1, len(label))
    both = np.stack([1 - score, score], 1)
    for task, name in [("binary", "auroc"), ("classes", "macro_auroc")]:
        low, high, method = intervals.confidence_intervals(task, label, both)[name]
        assert (low, high) == interval_methods.wilson(min(negatives, positives), min(negatives, positives))
        assert method == interval_methods.WILSON_OF_RAREST
    least = paired_tests.smallest_difference(label, score).auroc
    assert least == pytest.approx(min(1, (1.96 + 0.8416) / (2 * 1.96) * (high - low)), rel=1e-3)


@pytest.mark.parametrize("task", ["binary", "severity", "classes"])
def test_a_metric_has_one_interval_in_the_table_and_in_the_group_of_all(task):
    rng = np.random.default_rng(2)
    label = np.arange(40) % (2 if task == "binary" else 3)
    probability = rng.dirichlet(np.ones(label.max() + 1), 40)
    table = intervals.confidence_intervals(task, label, probability, 0.4)
    table["auroc"] = table.get("auroc") or table["macro_auroc"]
    if task == "severity":
        score = probability[:, 1:].sum(1)
        question = np.stack([1 - score, score], 1)
        table |= {
            name: ends
            for name, ends in intervals.confidence_intervals("binary", label > 0, question, 0.4).items()
            if name != "accuracy"
        }
    for name, metric in intervals.key_metrics(task, label, probability, 0.4).items():
        assert metric.interval == pytest.approx(table[name][:2])


@pytest.mark.parametrize("counts", [[[1, 0], [0, 2]], [[5, 0], [8, 2]], [[76, 0], [253, 2]], [[2, 8], [0, 5]]])
def test_a_predictive_value_of_two_studies_says_little(counts):
    found = intervals.confusion_intervals(np.asarray(counts))
    name = "npv" if counts[0][0] == 2 else "ppv"
    low, high, _ = found[name]
    assert low <= interval_methods.wilson(2, 2)[0]
    assert high == 1


def test_the_spread_over_runs():
    found = intervals.spread([0.7, None, 0.9, 0.8])
    assert found == Spread(mean=pytest.approx(0.8), sd=pytest.approx(0.1), lowest=0.7, highest=0.9, runs=3)
    assert intervals.spread([0.7]) == Spread(mean=0.7, sd=None, lowest=0.7, highest=0.7, runs=1)
    assert intervals.spread([None]) == Spread(mean=None, sd=None, lowest=None, highest=None, runs=0)
