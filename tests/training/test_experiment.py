"""Experiments: what is compiled, and how often."""

import jax
import numpy as np
import pytest

from covidscan.config import Config
from covidscan.metrics import recalibration
from covidscan.models import heads
from covidscan.training import step
from covidscan.training.experiment import Experiment, create_experiment, resolve_dtype


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


def test_the_dtype_of_a_run_does_not_depend_on_the_platform_that_uses_it(monkeypatch):
    stored = resolve_dtype(Config())
    assert stored.dtype == "float32"  # on CPUs
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert resolve_dtype(Config()).dtype == "bfloat16"
    assert resolve_dtype(Config(), stored) == stored
    assert resolve_dtype(Config(), Config(dtype="bfloat16")).dtype == "bfloat16"
    assert resolve_dtype(Config(), Config()).dtype == "auto"  # a run of an older version goes on as it was
    assert resolve_dtype(Config(dtype="float32"), Config(dtype="bfloat16")).dtype == "float32"  # refused by check_run
    models = [create_experiment(one, 2, (8, 8, 8), num_train=4).model for one in (stored, Config())]
    assert [model.dtype for model in models] == [np.float32, jax.numpy.bfloat16]


@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
@pytest.mark.parametrize("task", ["binary", "classes", "severity", "multilabel"])
def test_evaluation_and_prediction_recalibrate_confident_networks_alike(task, temperature):
    """Evaluation recalibrates probabilities, prediction the logits: float32 probabilities of 0 or 1 would tell none."""
    logits = np.random.default_rng(0).uniform(-30, 30, (400, 3)).astype(np.float32)
    offsets = [0.0, -1.5, 2.0]
    experiment = Experiment(Config(task=task), None, None, 3, (), 1, 1)  # type: ignore[arg-type]
    evaluated = recalibration.recalibrate(task, experiment.probabilities(logits), temperature, offsets)
    predicted = heads.probabilities(task, heads.recalibrate(task, logits, temperature, offsets))
    np.testing.assert_allclose(evaluated, predicted, atol=1e-6, rtol=0)
    assert not np.signbit(experiment.probabilities(logits)).any(), "it would be shown as -0.000"
