"""Experiments: what is compiled, and how often."""

import jax
import numpy as np

from covidscan.config import Config
from covidscan.training import step
from covidscan.training.experiment import create_experiment


def test_a_network_that_predicts_again_is_not_traced_again(monkeypatch):
    traced, logits = [], step.logits
    monkeypatch.setattr(step, "logits", lambda *arguments: traced.append(1) or logits(*arguments))
    config = Config(width=4, batch_size=4, seed=7, windows=((-600.0, 1500.0),))
    experiment = create_experiment(config, 2, (8, 8, 8), num_train=4)
    variables = step.eval_variables(jax.jit(experiment.create_state)())
    volumes = np.zeros((6, 8, 8, 8), np.int16)
    first = experiment.predictor()(variables, volumes.__getitem__, np.arange(6))
    again = create_experiment(config, 2, (8, 8, 8), num_train=4).predictor()
    np.testing.assert_array_equal(again(variables, volumes.__getitem__, np.arange(3)), first[:3])
    assert len(traced) == 1
