"""Checkpoints are written whatever happens to the clock meanwhile."""

import itertools
import time
from typing import Any, NamedTuple

import numpy as np

from covidscan.runs.checkpoints import Checkpoints


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
