"""Batches, whatever the number of processes."""

import numpy as np
import pytest

from covidscan.data import feed as feeding
from covidscan.data.records import eval_batches
from covidscan.data.sampling import BatchOrder

SHAPE = (2, 3, 4)
RECORDS = [{"volume": np.full(SHAPE, i, np.int16)} for i in range(23)]


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

    if cached:
        batches = feeding.gather_batches(training.read(), order, share, steps)
    else:
        batches = feeding.stream_batches(training, share, steps)
    feed = feeding.batch_feed(train_step, batches)
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
