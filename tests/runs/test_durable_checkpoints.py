"""Checkpoints are written whatever happens to the clock meanwhile, and the best one is kept after restarts."""

import itertools
import shutil
import time
from typing import Any, NamedTuple

import numpy as np
import pytest

from covidscan.runs.checkpoints import Checkpoints, Validation
from tfds_mosmed.errors import UserError


class _State(NamedTuple):
    step: Any
    weights: Any


def test_a_clock_that_is_set_forward_or_back_during_a_save_does_not_end_it(tmp_path, monkeypatch):
    real, steps = time.time, itertools.cycle([0, 3600, 7200, 3600, -3600])
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        monkeypatch.setattr(time, "time", lambda: real() + next(steps))
        for step in range(1, 4):
            checkpoints.save(_State(np.int32(step), np.ones(3)), [])
        checkpoints.wait()
        monkeypatch.undo()
        assert checkpoints.latest_step() == 3


def test_the_best_checkpoint_is_kept_after_restarts_and_no_other_is_taken_for_it(tmp_path, caplog):
    history = []
    for step, auroc in enumerate([0.9, 0.5, None, 0.6], 1):
        history.append(Validation(step, auroc))
        with Checkpoints(tmp_path, keep=1) as checkpoints:
            checkpoints.save(_State(np.int32(step), np.ones(3)), history)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1", "4"]
    with Checkpoints(tmp_path, keep=None) as checkpoints:
        assert (checkpoints.find("best"), checkpoints.find("latest")) == (1, 4)
    assert caplog.messages == []  # nor where a program that is not a command loads a network
    shutil.rmtree(tmp_path / "checkpoints" / "1")
    with Checkpoints(tmp_path, keep=None) as checkpoints, pytest.raises(UserError, match="step 1, is no longer in"):
        checkpoints.find("best")
