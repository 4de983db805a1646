"""Thresholds against trying every one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covidscan.metrics.thresholds import CRITERIA, choose_threshold, decide, frozen, of_question, of_studies

SCORES = st.one_of(st.sampled_from([0.0, 5e-324, 0.25, 0.5, 0.75, 1 - 2**-53, 1.0]), st.floats(0, 1))
STUDIES = st.lists(st.tuples(st.booleans(), SCORES), min_size=1, max_size=12)


RULES = {"target_sensitivity": 0.8, "cost_ratio": 3}


def _cells(positive, score, threshold):
    called = score >= threshold
    return int(np.sum(called & positive)), int(np.sum(called & ~positive))


@given(STUDIES, st.sampled_from(CRITERIA), st.integers(0, 20), st.integers(1, 50))
def test_no_threshold_is_better(rows, criterion, twentieths, ratio):
    positive, score = np.asarray([row[0] for row in rows]), np.asarray([row[1] for row in rows])
    chosen = choose_threshold(positive, score, criterion, target_sensitivity=twentieths / 20, cost_ratio=ratio / 4)
    assert 0 < chosen < 1
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        assert chosen == 0.5
        return

    def worth(threshold):  # in whole numbers, then the hits, by which equals are told apart
        hits, alarms = _cells(positive, score, threshold)
        if criterion == "youden":
            return hits * negatives - alarms * positives, hits
        if criterion == "accuracy":
            return hits - alarms, hits
        if criterion == "cost":
            return -(ratio * (positives - hits) + 4 * alarms), hits
        return min(20 * hits, twentieths * positives), -alarms  # the target first, then specificity

    tried = [t for s in score for t in (s, np.nextafter(s, 2), (s + 1) / 2, s / 2) if 0 < t < 1]
    assert worth(chosen) == max(worth(t) for t in [*tried, 0.5])


def test_neighbouring_scores_are_split():
    low = 0.3
    for high in (np.nextafter(low, 1), low + 1e-15):
        chosen = choose_threshold(np.asarray([0, 1]), np.asarray([low, high]), "youden", **RULES)
        assert low < chosen <= high
    top = 1 - 2**-53
    assert choose_threshold(np.asarray([1, 0]), np.asarray([top, 1.0]), "youden", **RULES) < 1
    assert 0 < choose_threshold(np.asarray([0, 1]), np.asarray([0.0, 5e-324]), "youden", **RULES) <= 5e-324


@given(STUDIES, st.sampled_from(CRITERIA), st.randoms())
def test_the_order_of_studies_does_not_matter(rows, criterion, random):
    def choose(studies):
        positive, score = (np.asarray(column) for column in zip(*studies, strict=True))
        return choose_threshold(positive, score, criterion, **RULES)

    assert choose(rows) == choose(random.sample(rows, len(rows)))


def _ten(criterion, target_sensitivity=0.9, cost_ratio=1.0):
    score = np.asarray([0.1, 0.2, 0.3, 0.6, 0.4, 0.5, 0.7, 0.8, 0.9, 0.95])
    return choose_threshold(
        np.arange(10) >= 4, score, criterion, target_sensitivity=target_sensitivity, cost_ratio=cost_ratio
    )


def test_ten_studies_by_hand():
    # Negatives at 0.1, 0.2, 0.3, 0.6; positives at 0.4, 0.5, 0.7 ... 0.95.
    assert _ten("youden") == pytest.approx(0.35)  # 6/6 - 1/4; 4/6 - 0 above 0.6 is less
    assert _ten("sensitivity", target_sensitivity=4 / 6) == pytest.approx(0.65)
    assert _ten("sensitivity", target_sensitivity=5 / 6) == pytest.approx(0.45)
    assert _ten("sensitivity", target_sensitivity=1) == pytest.approx(0.35)
    assert _ten("cost", cost_ratio=1) == pytest.approx(0.35)
    assert _ten("cost", cost_ratio=0.4) == pytest.approx(0.65)  # two misses cost less than a false alarm


def test_a_target_is_not_missed_by_rounding():
    # 0.07 x 100 is a little more than 7 in floating point.
    score, positive = np.linspace(0.01, 0.99, 200), np.arange(200) >= 100
    chosen = choose_threshold(positive, score, "sensitivity", target_sensitivity=0.07, cost_ratio=1)
    assert np.sum(score >= chosen) == 7


def test_an_unknown_criterion_is_refused():
    with pytest.raises(ValueError, match="youden, sensitivity, cost"):
        choose_threshold(np.asarray([True]), np.asarray([0.5]), "f1", target_sensitivity=0.9, cost_ratio=1)


def test_each_grade_has_its_own_threshold():
    above = np.asarray([[0.9, 0.6, 0.2], [0.9, 0.4, 0.3], [0.3, 0.2, 0.1], [0.45, 0.42, 0.4]])
    probability = -np.diff(np.concatenate([np.ones((4, 1)), above, np.zeros((4, 1))], axis=1), axis=1)
    assert decide("severity", probability, frozen(0.5, [])).tolist() == [2, 1, 0, 0]
    each = frozen(0.5, [0.5, 0.5, 0.25])
    assert decide("severity", probability, each).tolist() == [2, 1, 0, 0]  # what is not graver than 1 is not than 2
    each = frozen(0.4, [0.4, 0.3, 0.25])
    assert decide("severity", probability, each).tolist() == [2, 3, 0, 3]
    own = np.concatenate([each, np.full((3, 3), 0.5)])  # each study's
    assert decide("severity", probability, own).tolist() == [2, 1, 0, 0]
    assert of_question(each, 1) == 0.3
    assert of_question(own, 1).tolist() == [0.3, 0.5, 0.5, 0.5]
    assert of_studies(each, np.asarray([2])) is each
    assert of_studies(own, np.asarray([0])).tolist() == each.tolist()
    assert of_studies(0.5, np.asarray([0])) == 0.5
