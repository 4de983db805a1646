"""The order of the data: a pure function of seed and step, whatever the number of processes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covidscan.data import feed as feeding
from covidscan.data.records import BatchOrder, epoch_order, eval_batches, loss_weights

SHAPE = (2, 3, 4)
RECORDS = [{"volume": np.full(SHAPE, i, np.int16)} for i in range(23)]


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


def _rows_of_batches(share, steps, class_balance="none", cached=True):
    rows = np.arange(2, 23, 2)
    labels = rows % 4 // 2
    order = BatchOrder(labels, seed=3, class_balance=class_balance, batch_size=8)
    training = feeding.TrainingRecords(RECORDS, rows, ["volume"], labels, np.float32(rows), order)
    found = []

    def train_step(state, batch):
        row = np.asarray(batch.volume)[:, :, 0, 0, 0].ravel()
        np.testing.assert_array_equal(np.asarray(batch.label).ravel(), row % 4 // 2)
        np.testing.assert_array_equal(np.asarray(batch.weight).ravel(), row)
        found.append(row)
        return state, {}, None

    streamed = feeding.streamed(training, share, steps)
    feed = feeding.batch_feed(
        train_step, feeding.gathered(training.read(), order, share, steps) if cached else streamed
    )
    for step in steps:
        assert feed(None, step, 7)[1].num_steps == 1
    return np.array(found)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("class_balance", ["none", "sampling"])
def test_shares_of_two_processes_make_up_the_batch_of_one(class_balance, cached):
    whole = _rows_of_batches(slice(0, 8), range(9), class_balance)
    first = _rows_of_batches(slice(0, 4), range(9), class_balance, cached)
    second = _rows_of_batches(slice(4, 8), range(9), class_balance, cached)
    np.testing.assert_array_equal(whole, np.concatenate([first, second], axis=1))
    assert whole.shape == (9, 8)


@pytest.mark.parametrize("cached", [True, False])
def test_a_resumed_run_sees_the_batches_that_it_would_have_seen(cached):
    whole = _rows_of_batches(slice(0, 8), range(9))
    np.testing.assert_array_equal(_rows_of_batches(slice(0, 8), range(5, 9), cached=cached), whole[5:])


def test_evaluation_sees_each_study_once_in_shares_of_any_size():
    rows = np.arange(13)
    shares = [
        eval_batches(lambda row: RECORDS[row]["volume"], rows, 4, slice(2 * process, 2 * process + 2))
        for process in (0, 1)
    ]
    seen = []
    for pair in zip(*shares, strict=True):
        for volumes in pair:
            assert volumes.shape == (2, *SHAPE)
            seen += volumes[:, 0, 0, 0].tolist()
    np.testing.assert_array_equal(seen, [*rows, rows[-1], rows[-1], rows[-1]])


def test_loss_weights_are_inverse_frequencies_of_mean_one():
    labels = np.array([0, 0, 0, 1])
    np.testing.assert_allclose(loss_weights(labels, True), [2 / 3, 2 / 3, 2 / 3, 2])
    np.testing.assert_array_equal(loss_weights(labels, False), np.ones(4))
