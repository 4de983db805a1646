"""Maps of evidence: they add up, lie where the network looked, and change nothing about it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covidscan import models
from covidscan.config import Config
from covidscan.explanation import saliency
from covidscan.runs.operating_points import OperatingPoint
from covidscan.trained_models import ensemble
from covidscan.trained_models.model_info import ModelInfo
from covidscan.trained_models.restore import RestoredModel
from covidscan.training import step
from covidscan.training.experiment import create_experiment

GRID, SHAPE = "16x16x12", (12, 16, 16)
NAMES = {"binary": ("negative", "positive"), "severity": ("CT-0", "CT-1", "CT-2"), "classes": ("a", "b", "c")}


def untrained(task, model="lung_resnet", seeds=(0,)):
    """An ensemble of networks as they are before training."""
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
    """For what does not hang on how well the path is integrated."""
    monkeypatch.setattr(saliency, "STEPS", 2)


@pytest.fixture(scope="module")
def volumes():
    rng = np.random.default_rng(0)
    smooth = np.repeat(np.repeat(rng.integers(-1000, 200, (1, 12, 4, 4)), 4, 2), 4, 3)
    return (smooth + rng.normal(0, 20, smooth.shape)).astype(np.int16)


def _odds(probability):
    return float(np.log(probability) - np.log1p(-probability))


@pytest.mark.parametrize(("task", "model"), [("binary", "covidscan_cnn"), ("severity", "lung_resnet")])
def test_the_maps_explain_disease_and_add_up(task, model, volumes):
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


def test_of_several_networks_the_mean_explains_the_likeliest_class_or_another(few_steps, volumes):
    network = untrained("classes", seeds=(0, 1))
    explainer = saliency.SaliencyMapper(network)
    likeliest = explainer(volumes[0])
    assert likeliest.label == int(np.argmax(network.probabilities(volumes)))
    other = explainer(volumes[0], label=(likeliest.label + 1) % 3)
    assert other.score < likeliest.score
    assert not np.allclose(other.integrated_gradients, likeliest.integrated_gradients)
    said = [
        step.logits(member.experiment.config, member.experiment.model, member.variables, volumes)[0]
        for member in network.members
    ]
    temperatures = [chosen.temperature for chosen in network.choices]
    odds = [
        _odds(float(jax.nn.softmax(logits / by)[other.label])) for logits, by in zip(said, temperatures, strict=True)
    ]
    assert other.score == pytest.approx(np.mean(odds), abs=1e-4)
    with pytest.raises(ValueError, match="label=3"):
        explainer(volumes[0], label=3)


@pytest.mark.parametrize("model", list(models.NETWORKS))
def test_a_layer_says_where_its_places_lie(model):
    """What a place depends on lies around its middle: its gradient reaches as far to either side."""
    network = models.create(model, 2, width=4)
    x = jax.random.uniform(jax.random.key(0), (1, 16, 68, 64, 2))  # two pixels a patch, and some that fill none
    variables = jax.jit(network.init)(jax.random.key(1), x)
    variables = {name: variables[name] for name in ("params", "batch_stats") if name in variables}

    def shown(x):
        return network.apply(variables, x, mutable=["features"])[1]["features"]["shown"][0]

    layer = jax.eval_shape(shown, x)["values"].shape[1:4]
    place = tuple(size // 2 for size in layer)

    def at_place(x):
        return jnp.sum(shown(x)["values"][0][place] ** 2)

    seen = np.asarray(jnp.abs(jax.jit(jax.grad(at_place))(x))).sum((0, -1))
    found = jax.jit(shown)(x)
    for axis in range(3):
        reached = np.flatnonzero(seen.sum(tuple({0, 1, 2} - {axis})))
        assert (reached[0] + reached[-1]) / 2 == found["first"][axis] + found["step"][axis] * place[axis]


@pytest.mark.parametrize("model", list(models.NETWORKS))
def test_what_draws_maps_is_no_part_of_the_network(model):
    network = models.create(model, 2, width=4)
    x = jax.random.uniform(jax.random.key(0), (1, *SHAPE, 2))
    state = create_experiment(Config(model=model, width=4), 2, SHAPE, 8).abstract_state()
    assert not {"features", "perturbations"} & (state.params.keys() | state.batch_stats.keys())
    variables = network.init(jax.random.key(1), x)
    kept = {name: variables[name] for name in ("params", "batch_stats") if name in variables}
    logits, sown = network.apply(kept, x, mutable=["features"])
    np.testing.assert_array_equal(network.apply(kept, x), logits)
    assert sown["features"]["shown"][0]["values"].ndim == 5
