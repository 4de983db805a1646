"""Caching of training records: device, host or none, with the same results."""

import jax
import numpy as np
import pytest

from covidscan.data import feed
from tests.support import runs
from tfds_mosmed.errors import UserError


@pytest.mark.sampled
@pytest.mark.parametrize(("cache", "devices"), [("device", 1), ("device", 2), ("none", 1)])
def test_a_run_is_the_same_wherever_its_records_are_kept(cache, devices, trained, data_dir, tmp_path):
    flags = [*runs.SMALL, f"--workdir={tmp_path}", f"--data_dir={data_dir}", f"--cache={cache}", "--log_every=5"]
    runs.run("train", *flags, devices=devices)
    whole = runs.log_lines(trained, "train")
    assert [line["step"] for line in runs.log_lines(tmp_path, "train")] == [5, 10, 14]
    for line, first in zip(runs.log_lines(tmp_path, "train"), (0, 5, 10), strict=True):
        losses = [step["loss"] for step in whole[first : line["step"]]]
        assert line["averaged_steps"] == len(losses)
        assert line["loss"] == pytest.approx(np.mean(losses), abs=1e-4)
    got, want = runs.saved_state(tmp_path, 14), runs.saved_state(trained, 14)
    for leaf, expected in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(leaf, expected, atol=1e-4)


def test_a_cache_is_chosen_that_holds_the_records():
    assert feed.choose_cache("auto", 10**6) == "host"  # of a CPU the memory is the host's
    assert feed.choose_cache("auto", 10**15) == "none"
    for wanted in ("device", "host", "none"):
        assert feed.choose_cache(wanted, 10**6) == wanted
    with pytest.raises(UserError, match=r"--cache=host: the training records take 931322\.6 GiB, .*use --cache=auto"):
        feed.choose_cache("host", 10**15)


def test_an_error_while_a_batch_is_made_is_the_runs():
    def batches():
        yield np.zeros(8)
        raise OSError("the disk is gone")

    made = feed.prefetch_to_devices(batches())
    assert next(made).size == 8
    with pytest.raises(OSError, match="the disk is gone"):
        next(made)


def test_a_cache_is_chosen_that_every_host_has(monkeypatch):
    # the second of two hosts has less memory, as it tells the first one
    monkeypatch.setattr(feed.processes, "gather", lambda values: np.array([[values[0], values[1]], [0, 1 << 10]]))
    assert feed.choose_cache("auto", 2**27) == "host"
    assert feed.choose_cache("auto", 2**29) == "none"
    with pytest.raises(UserError, match=r"more than the host's 1\.0 GiB"):
        feed.choose_cache("host", 2**31)
