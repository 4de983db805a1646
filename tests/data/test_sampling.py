"""The order of the data: a pure function of seed and step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covidscan.data.sampling import epoch_order, loss_weights


def test_first_shuffle_is_the_one_that_old_runs_had():
    # Golden: a change here gives every resumed run other data. It may change with a new major version only.
    np.testing.assert_array_equal(epoch_order(0, 0, np.zeros(8), False), [2, 4, 3, 6, 5, 0, 1, 7])
    np.testing.assert_array_equal(epoch_order(0, 1, np.array([0, 0, 0, 0, 0, 0, 1, 1]), True), [7, 7, 6, 1, 3, 6, 0, 5])


@given(st.integers(0, 5), st.integers(0, 50), st.lists(st.integers(0, 2), min_size=3, max_size=40))
def test_an_epoch_shows_each_study_once_or_each_label_as_often(seed, epoch, labels):
    labels = np.array(labels)
    assert sorted(epoch_order(seed, epoch, labels, False)) == list(range(len(labels)))
    drawn = labels[epoch_order(seed, epoch, labels, True)]
    counts = [np.sum(drawn == label) for label in np.unique(labels)]
    assert sum(counts) == len(labels)
    assert max(counts) - min(counts) <= 1


def test_balanced_epochs_use_every_rare_study_before_one_comes_again():
    labels = np.array([0] * 17 + [1] * 3)
    drawn = epoch_order(0, 0, labels, True)
    counts = np.bincount(drawn, minlength=20)[17:]
    assert counts.sum() == 10
    assert counts.max() - counts.min() <= 1


def test_loss_weights_are_inverse_frequencies_of_mean_one():
    labels = np.array([0, 0, 0, 1])
    np.testing.assert_allclose(loss_weights(labels, True), [2 / 3, 2 / 3, 2 / 3, 2])
    np.testing.assert_array_equal(loss_weights(labels, False), np.ones(4))


MOSMED = np.repeat([0, 1], [178, 601])  # of the 779 training studies


def _shares(order, labels, masked):
    return masked[order].mean(), np.bincount(labels[order]) / len(order)


@pytest.mark.parametrize("balance", [False, True])
def test_studies_with_masks_are_a_quarter_of_an_epoch_and_labels_are_drawn_as_before(balance):
    masked = np.arange(len(MOSMED)) >= len(MOSMED) - 35
    before, after = (epoch_order(0, 3, MOSMED, balance, mask) for mask in (None, masked))
    share, labels = _shares(after, MOSMED, masked)
    assert 0.25 <= share < 0.26
    np.testing.assert_allclose(labels, _shares(before, MOSMED, masked)[1], atol=2 / len(MOSMED))
    assert len(after) == len(before)
    repeats = np.bincount(after, minlength=len(MOSMED))[masked]
    assert repeats.max() - repeats.min() <= 1


def test_the_order_is_as_before_where_masks_are_frequent_or_not_used():
    for balance in (False, True):
        before = epoch_order(3, 1, MOSMED, balance)
        for masked in (MOSMED == 1, np.ones(len(MOSMED), bool), np.zeros(len(MOSMED), bool)):
            np.testing.assert_array_equal(epoch_order(3, 1, MOSMED, balance, masked), before)


def test_studies_with_masks_do_not_crowd_out_the_others_of_their_label():
    grades = np.repeat([0, 1, 2, 3], [178, 479, 88, 34])
    masked = (grades == 1) & (np.arange(len(grades)) % 14 == 0)
    drawn = epoch_order(0, 0, grades, True, masked)
    of_label = drawn[grades[drawn] == 1]
    assert masked[of_label].mean() == pytest.approx(0.5, abs=0.01)
    few = np.array([0, 0, 0, 1, 1, 1])
    assert sorted(epoch_order(0, 0, few, False, np.arange(6) == 5)) != list(range(6))  # the one with a mask comes twice


def test_a_study_is_repeated_for_its_mask_at_most_eight_times():
    masked = np.arange(len(MOSMED)) >= len(MOSMED) - 2
    for balance in (False, True):
        repeats = np.bincount(epoch_order(0, 0, MOSMED, balance, masked), minlength=len(MOSMED))
        np.testing.assert_array_equal(repeats[masked], 8)
