"""AUROC and its tests against published examples, the definition pair by pair, and permutation."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score

from covidscan.metrics import classification, interval_methods, roc

# Hanley & McNeil, Radiology 1982: CT of 109 patients rated from 1 to 5. Stata's `roctab` documents 0.8932, 0.0307.
RATINGS = np.repeat(np.tile(np.arange(1, 6), 2), [33, 6, 6, 11, 2, 3, 2, 2, 11, 33])
ABNORMAL = np.repeat([False, True], [58, 51])

# DeLong, DeLong & Clarke-Pearson, Biometrics 1988, the 43 complete of 49 patients: albumin, total protein, K-G score
# (10 less it is the score), whether surgery helped. As listed, and judged, in SAS/STAT's guide to PROC LOGISTIC.
LISTED = """3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0 3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0 1.6 5.6 5 1 3.8 5.7 5 1
    3.7 6.7 6 1 3.2 5.4 4 1 3.8 6.6 6 1 4.1 6.6 5 1 3.6 5.7 5 1 4.3 7.0 4 1 3.6 6.7 4 0 2.3 4.4 6 1 4.2 7.6 4 0
    4.0 6.6 6 0 3.5 5.8 6 1 3.8 6.8 7 1 3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1 3.1 6.6 6 1 4.1 8.2 6 1 4.3 7.0 5 1
    4.3 6.5 4 1 3.2 5.1 5 1 2.6 4.7 6 1 3.3 6.8 6 0 1.7 4.0 7 0 3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1 3.5 6.2 5 1
    2.9 5.7 9 0 2.1 4.8 7 1 2.8 6.2 8 0 4.0 7.0 7 1 3.3 5.7 6 1 3.7 6.9 5 1 3.6 6.6 5 1"""
PATIENTS = np.asarray(LISTED.split(), np.float64).reshape(-1, 4)
ALBUMIN, PROTEIN, KG = PATIENTS[:, 0], PATIENTS[:, 1], 10 - PATIENTS[:, 2]
HELPED = PATIENTS[:, 3] == 1

STUDIES = st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 6)), min_size=4, max_size=30).filter(
    lambda rows: 2 <= sum(row[0] for row in rows) <= len(rows) - 2
)


def _by_pairs(positive, scores):
    """AUROCs and their covariance, straight from DeLong's definition."""
    components = []
    for score in scores:
        yes, no = score[positive][:, None], score[~positive][None]
        wins = (yes > no) + 0.5 * (yes == no)
        components.append((wins.mean(1), wins.mean(0)))
    areas = [rows.mean() for rows, _ in components]
    of_positives = np.atleast_2d(np.cov([rows for rows, _ in components])) / positive.sum()
    return areas, of_positives + np.atleast_2d(np.cov([columns for _, columns in components])) / (~positive).sum()


def test_the_ratings_of_109_ct_images():
    found = roc.delong(ABNORMAL, RATINGS)
    assert found.auroc == pytest.approx(0.8932, abs=5e-5)
    assert found.standard_error == pytest.approx(0.0307, abs=5e-5)
    low, high = found.interval
    assert low < found.auroc < high < 1
    assert high - found.auroc < found.auroc - low  # symmetric in the log-odds


@pytest.mark.parametrize(
    ("score", "auroc", "error"),
    [(ALBUMIN, 0.7366, 0.0927), (PROTEIN, 0.6478, 0.1000), (KG, 0.7258, 0.1028)],
    ids=["albumin", "protein", "K-G"],
)
def test_three_screening_tests_as_sas_documents_them(score, auroc, error):
    found = roc.delong(HELPED, score)
    assert (found.auroc, found.standard_error) == pytest.approx((auroc, error), abs=5e-5)


@pytest.mark.parametrize(
    ("other", "difference", "ends", "chi_square", "p_value"),
    [(ALBUMIN, -0.0108, (-0.1976, 0.1761), 0.0127, 0.9102), (PROTEIN, 0.0780, (-0.1271, 0.2830), 0.5554, 0.4561)],
    ids=["K-G less albumin", "K-G less protein"],
)
def test_two_screening_tests_compared_as_sas_documents_it(other, difference, ends, chi_square, p_value):
    found = roc.delong_test(HELPED, KG, other)
    assert found.difference == pytest.approx(difference, abs=6e-5)
    half = interval_methods.Z * found.difference / found.z  # SAS's is symmetric; ours is MOVER's, and near it
    assert (found.difference - half, found.difference + half) == pytest.approx(ends, abs=6e-5)
    assert found.interval == pytest.approx(ends, abs=0.03)
    assert found.z**2 == pytest.approx(chi_square, abs=6e-5)
    assert found.p_value == pytest.approx(p_value, abs=6e-5)


@given(STUDIES)
def test_components_from_ranks_are_those_from_pairs(rows):
    positive, a, b = (np.asarray(column) for column in zip(*rows, strict=True))
    areas, covariance = _by_pairs(positive, [a, b])
    found = roc.delong(positive, a)
    assert found.auroc == pytest.approx(areas[0])
    assert found.standard_error == pytest.approx(np.sqrt(covariance[0, 0]), abs=1e-9)
    test = roc.delong_test(positive, a, b)
    assert test.difference == pytest.approx(areas[0] - areas[1], abs=1e-12)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    if variance > 1e-9:
        assert test.z == pytest.approx((areas[0] - areas[1]) / np.sqrt(variance), abs=1e-6)


@given(STUDIES)
def test_every_auroc_has_an_interval_with_width_around_it(rows):
    positive, a, b = (np.asarray(column) for column in zip(*rows, strict=True))
    found = roc.delong(positive, a)
    assert 0 <= found.interval[0] <= found.auroc <= found.interval[1] <= 1
    assert found.interval[1] - found.interval[0] > 0.01
    test = roc.delong_test(positive, a, b)
    assert -1 <= test.interval[0] <= test.difference + 1e-12
    assert test.difference - 1e-12 <= test.interval[1] <= 1
    assert 0 <= test.p_value <= 1


def test_a_perfect_model_is_not_certain():
    positive = np.arange(331) >= 76
    assert roc.delong(positive, np.arange(331.0)).interval == (pytest.approx(0.9519, abs=1e-4), 1.0)
    assert roc.delong(positive, -np.arange(331.0)).interval == (0.0, pytest.approx(0.0481, abs=1e-4))
    assert roc.delong(np.asarray([True, True]), np.asarray([0.2, 0.3])) == (None, None, None)
    one = roc.delong(np.asarray([True, False, False]), np.asarray([0.9, 0.3, 0.1]))
    assert (one.auroc, one.standard_error) == (1, None)
    assert one.interval == pytest.approx((0.2065, 1), abs=1e-4)


def test_a_model_against_itself_and_against_chance():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = roc.delong_test(ABNORMAL, RATINGS, RATINGS * 2 + 1)
        faultless = roc.delong_test(ABNORMAL, ABNORMAL, np.zeros(109))
    assert same == (0, (0, 0), 0, 1)
    assert faultless.difference == 0.5
    assert faultless.interval[1] - faultless.interval[0] > 0.1
    assert faultless.p_value < 1e-4
    with pytest.raises(ValueError, match="two studies of each label"):
        roc.delong_test(np.asarray([True, False, False]), np.zeros(3), np.zeros(3))


def test_two_perfect_models_are_not_certainly_equal():
    positive = np.arange(20) < 5
    found = roc.delong_test(positive, positive + 0.0, positive + np.arange(20) / 50)
    (low, _), reach = roc.delong(positive, positive).interval, found.interval[1]
    assert (found.difference, found.z, found.p_value) == (0, 0, 1)
    assert found.interval == (-reach, reach)
    assert reach == pytest.approx(1 - low)
    assert roc.delong_test(positive, positive, positive * 2).interval == (0, 0)


def test_the_test_agrees_with_swapping_the_models():
    rng = np.random.default_rng(3)
    positive = np.arange(120) < 70
    shared = rng.normal(size=120) + 0.9 * positive
    a, b = shared + 0.6 * rng.normal(size=120) + 0.12 * positive, shared + 0.6 * rng.normal(size=120)
    ranks = np.stack([stats.rankdata(a), stats.rankdata(b)])
    found = roc.delong_test(positive, a, b)

    def difference(swap):
        first, second = np.where(swap, ranks[1], ranks[0]), np.where(swap, ranks[0], ranks[1])
        return classification.binary_auroc(positive, first) - classification.binary_auroc(positive, second)

    swapped = np.asarray([difference(rng.random(120) < 0.5) for _ in range(300)])
    assert 0.005 < found.p_value < 0.3
    assert np.mean(abs(swapped) >= abs(found.difference)) == pytest.approx(found.p_value, abs=0.06)


@given(STUDIES)
def test_the_influences_on_average_precision_are_its_derivative(rows):
    positive, score, _ = (np.asarray(column) for column in zip(*rows, strict=True))
    influence, step = roc.average_precision_influence(positive, score), 1e-6
    base = average_precision_score(positive, score)
    for label in (True, False):  # within a label, as its weight is fixed
        members = np.flatnonzero(positive == label)
        weight = np.ones(len(score))
        weight[members] -= step / (len(members) - 1)
        weight[members[0]] = 1 + step
        moved = (average_precision_score(positive, score, sample_weight=weight) - base) / step
        others = influence[members[1:]].mean()
        assert moved == pytest.approx(influence[members[0]] - others, abs=1e-4)


@given(STUDIES)
def test_the_resampled_average_precision_of_the_studies_themselves_is_theirs(rows):
    positive, score, _ = (np.asarray(column) for column in zip(*rows, strict=True))
    falling = np.unique(score)[::-1]
    yes, no = (np.asarray([np.sum(score[label] == s) for s in falling]) for label in (positive, ~positive))
    twice = roc.average_precision(np.stack([yes, 2 * yes]), np.stack([no, 2 * no]))
    assert twice == pytest.approx([average_precision_score(positive, score)] * 2)


def test_the_interval_of_an_average_precision_repeats_by_seed():
    score = np.random.default_rng(0).normal(size=109) + ABNORMAL
    ends = [roc.average_precision_interval(ABNORMAL, score, 0.8, 2000, seed) for seed in (1, 1, 2)]
    assert ends[0] == ends[1] != ends[2]
    assert ends[0] == pytest.approx(ends[2], abs=0.01)
    # The derivative spreads about as much as the resamples.
    influence = roc.average_precision_influence(ABNORMAL, score)
    assert ends[0] == pytest.approx(interval_methods.logit_interval(ABNORMAL, influence, 0.8), abs=0.03)
    assert roc.average_precision_interval(ABNORMAL, 1.0 * ABNORMAL, 1.0, 100, 0) == interval_methods.wilson(51, 51)
