"""Saliency maps: they are complete, lie at the right place, and do not change the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covidscan import models
from covidscan.config import Config
from covidscan.explanation import saliency
from covidscan.metrics.results import OperatingPoint
from covidscan.trained_models import ensemble
from covidscan.trained_models.model_info import ModelInfo
from covidscan.trained_models.restore import RestoredModel
from covidscan.training import step
from covidscan.training.experiment import create_experiment
from tests.support.networks import NETWORKS

GRID, SHAPE = "16x16x12", (12, 16, 16)
NAMES = {
    "binary": ("negative", "positive"),
    "severity": ("CT-0", "CT-1", "CT-2"),
    "classes": ("a", "b", "c"),
    "multilabel": ("a", "b", "c"),
}


def untrained(task, model="lung_resnet", seeds=(0,)):
    """An ensemble of untrained networks."""
    members, choices = [], []
    for seed in seeds:
        config = Config(task=task, model=model, width=8, seed=seed)
        experiment = create_experiment(config, len(NAMES[task]), SHAPE, 8)
        variables = step.eval_variables(experiment.create_state())
        members.append(RestoredModel(None, {}, experiment, jax.device_get(variables), 0))  # type: ignore[arg-type]
        choices.append(OperatingPoint("youden", "", 0.5, 1.5 + seed, 9, 0))
    info = ModelInfo(task, NAMES[task], 0.5, tuple(c.temperature for c in choices), GRID, config.windows, "", "", None)
    return ensemble.Ensemble(members, choices, info)


@pytest.fixture
def few_steps(monkeypatch):
    """Few steps, for tests that do not depend on how well the path is integrated."""
    monkeypatch.setattr(saliency, "STEPS", 2)


@pytest.fixture(scope="module")
def volumes():
    rng = np.random.default_rng(0)
    smooth = np.repeat(np.repeat(rng.integers(-1000, 200, (1, 12, 4, 4)), 4, 2), 4, 3)
    return (smooth + rng.normal(0, 20, smooth.shape)).astype(np.int16)


def _odds(probability):
    return float(np.log(probability) - np.log1p(-probability))


@pytest.mark.parametrize(("task", "model"), [("binary", "covidscan_cnn"), ("severity", "lung_resnet")])
def test_the_maps_explain_disease_and_sum_to_the_difference_of_the_scores(task, model, volumes):
    network = untrained(task, model)
    maps = saliency.SaliencyMapper(network)(volumes[0])
    healthy = np.asarray(network.probabilities(volumes), np.float64)[0, 0]
    assert maps.label == 1
    assert maps.score == pytest.approx(_odds(1 - healthy), abs=1e-4)
    for drawn in (maps.grad_cam, maps.integrated_gradients):
        assert drawn.shape == SHAPE
        assert drawn.dtype == np.float32
        assert np.isfinite(drawn).all()
    assert maps.grad_cam.min() >= 0
    assert maps.integrated_gradients.sum() == pytest.approx(maps.score - maps.score_of_air, abs=0.02)


@pytest.mark.parametrize("task", ["classes", "multilabel"])
def test_maps_of_several_networks_explain_the_mean_of_the_most_probable_or_a_given_label(task, few_steps, volumes):
    network = untrained(task, "covidscan_cnn", seeds=(0, 1))
    mapper = saliency.SaliencyMapper(network)
    most_probable = mapper(volumes[0])
    assert most_probable.label == int(np.argmax(network.probabilities(volumes)))
    other = mapper(volumes[0], label=(most_probable.label + 1) % 3)
    assert other.score < most_probable.score
    assert not np.allclose(other.integrated_gradients, most_probable.integrated_gradients)
    logits = [
        step.logits(member.experiment.config, member.experiment.model, member.variables, volumes)[0]
        for member in network.members
    ]
    temperatures = [chosen.temperature for chosen in network.operating_points]
    probability = jax.nn.softmax if task == "classes" else jax.nn.sigmoid
    odds = [_odds(float(probability(raw / by)[other.label])) for raw, by in zip(logits, temperatures, strict=True)]
    assert other.score == pytest.approx(np.mean(odds), abs=1e-4)
    with pytest.raises(ValueError, match="label=3"):
        mapper(volumes[0], label=3)


@pytest.mark.parametrize("model", NETWORKS)
def test_a_layer_reports_where_its_cells_are_on_the_grid(model):
    """The receptive field of a cell is centred on it: its gradient reaches equally far to both sides."""
    network = models.create(model, 2, width=4)
    x = jax.random.uniform(jax.random.key(0), (1, 16, 68, 64, 2))  # two pixels per patch, and some that fill none
    variables = jax.jit(network.init)(jax.random.key(1), x)
    variables = {name: variables[name] for name in ("params", "batch_stats") if name in variables}

    def shown(x):
        return network.apply(variables, x, mutable=["features"])[1]["features"]["shown"][0]

    layer = jax.eval_shape(shown, x)["values"].shape[1:4]
    cell = tuple(size // 2 for size in layer)

    def at_cell(x):
        return jnp.sum(shown(x)["values"][0][cell] ** 2)

    gradient = np.asarray(jnp.abs(jax.jit(jax.grad(at_cell))(x))).sum((0, -1))
    found = jax.jit(shown)(x)
    for axis in range(3):
        reached = np.flatnonzero(gradient.sum(tuple({0, 1, 2} - {axis})))
        assert (reached[0] + reached[-1]) / 2 == found["first"][axis] + found["step"][axis] * cell[axis]


def test_networks_without_a_block_before_they_pool_show_the_features_of_their_lesion_map():
    """Their tokens are convolutions of densities: maps of these marked tissue outside of the lungs."""
    network = models.create("lung_resnet", 2, size="tiny", width=4)
    x = jax.random.uniform(jax.random.key(0), (1, 4, 32, 32, 1))

    def shown(x):
        variables = {"params": network.init(jax.random.key(1), x)["params"]}
        return network.apply(variables, x, mutable=["features", "lesions"])[1]

    sown = jax.eval_shape(shown, x)
    layer, logits = sown["features"]["shown"][0], sown["lesions"]["logits"][0]
    assert layer["values"].shape == (*logits.shape, 8)
    assert logits.shape == (1, 4, 8, 8)


@pytest.mark.parametrize("model", NETWORKS)
def test_layers_for_maps_are_not_part_of_the_state(model):
    network = models.create(model, 2, width=4)
    x = jax.random.uniform(jax.random.key(0), (1, *SHAPE, 2))
    state = create_experiment(Config(model=model, width=4), 2, SHAPE, 8).abstract_state()
    assert not {"features", "perturbations"} & (state.params.keys() | state.batch_stats.keys())
    variables = network.init(jax.random.key(1), x)
    kept = {name: variables[name] for name in ("params", "batch_stats") if name in variables}
    logits, sown = network.apply(kept, x, mutable=["features"])
    np.testing.assert_array_equal(network.apply(kept, x), logits)
    assert sown["features"]["shown"][0]["values"].ndim == 5
