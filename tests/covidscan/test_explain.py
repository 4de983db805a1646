"""Maps of evidence: they add up, lie where the network looked, and change nothing about it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covidscan import ensemble, explain, models, steps
from covidscan.choices import Choices
from covidscan.config import Config
from covidscan.experiment import create_experiment
from covidscan.judged import own_studies
from covidscan.model_info import ModelInfo
from covidscan.trained import Trained

GRID, SHAPE = "32x32x16", (16, 32, 32)
NAMES = {"binary": ("negative", "positive"), "severity": ("CT-0", "CT-1", "CT-2"), "classes": ("a", "b", "c")}


def untrained(task, model="lung_resnet", seeds=(0,)):
    """An ensemble of networks as they are before training, all lesions' first convolutions awake."""
    members, choices = [], []
    for seed in seeds:
        config = Config(task=task, model=model, width=8, seed=seed)
        experiment = create_experiment(config, len(NAMES[task]), SHAPE, 8)
        variables = steps.eval_variables(experiment.create_state())
        members.append(Trained(None, {}, experiment, jax.device_get(variables), 0))  # type: ignore[arg-type]
        choices.append(Choices("youden", "", 0.5, 1.5 + seed, 9, 0))
    info = ModelInfo(task, NAMES[task], 0.5, tuple(c.temperature for c in choices), GRID, config.windows, "", "", None)
    return ensemble.Ensemble(members, choices, info)


@pytest.fixture(scope="module")
def volumes():
    rng = np.random.default_rng(0)
    smooth = np.repeat(np.repeat(rng.integers(-1000, 200, (3, 16, 4, 4)), 8, 2), 8, 3)
    return (smooth + rng.normal(0, 20, smooth.shape)).astype(np.int16)


def _odds(probability):
    return float(np.log(probability) - np.log1p(-probability))


@pytest.mark.parametrize("model", ["lung_resnet", "covidscan_cnn"])
@pytest.mark.parametrize("task", list(NAMES))
def test_the_maps_explain_the_answer_of_the_ensemble(task, model, volumes):
    network = untrained(task, model)
    maps = explain.Explainer(network)(volumes[0])
    said = np.asarray(network.probabilities(volumes[:1])[0], np.float64)
    label = {"binary": 1, "severity": 1, "classes": int(said.argmax())}[task]
    assert maps.label == label
    assert maps.score == pytest.approx(_odds(1 - said[0] if task == "severity" else said[label]), abs=1e-4)
    for drawn in (maps.grad_cam, maps.integrated_gradients):
        assert drawn.shape == SHAPE
        assert drawn.dtype == np.float32
        assert np.isfinite(drawn).all()
    assert maps.grad_cam.min() >= 0


def test_another_class_has_another_map(volumes):
    explainer = explain.Explainer(untrained("classes"))
    likeliest = explainer(volumes[0])
    other = explainer(volumes[0], label=(likeliest.label + 1) % 3)
    assert other.score < likeliest.score
    assert not np.allclose(other.integrated_gradients, likeliest.integrated_gradients)
    with pytest.raises(ValueError, match="label=3"):
        explainer(volumes[0], label=3)


def test_an_ensembles_map_is_the_mean_of_its_members(volumes):
    both = explain.Explainer(untrained("binary", seeds=(0, 1)))(volumes[0])
    alone = [explain.Explainer(untrained("binary", seeds=(seed,)))(volumes[0]) for seed in (0, 1)]
    for name in ("grad_cam", "integrated_gradients", "score", "score_of_air"):
        mean = (getattr(alone[0], name) + getattr(alone[1], name)) / 2
        np.testing.assert_allclose(getattr(both, name), mean, rtol=1e-3, atol=1e-5 * np.abs(mean).max())


def test_integrated_gradients_add_up(trained, data_dir):
    network = ensemble.load([trained])
    studies = own_studies(network.members[0])
    explainer = explain.Explainer(network)
    for row in studies.parts["test"][:4]:
        maps = explainer(np.asarray(studies.records[int(row)]["volume"]))
        change = maps.score - maps.score_of_air
        assert maps.integrated_gradients.sum() == pytest.approx(change, abs=0.03 * abs(change) + 0.01)


@pytest.mark.parametrize("model", list(models.NETWORKS))
@pytest.mark.parametrize("shape", [SHAPE, (16, 68, 64)])
def test_a_layer_says_where_its_places_lie(model, shape):
    """What a place depends on lies around its middle: its gradient reaches as far to either side."""
    network = models.create(model, 2, width=4)
    x = jax.random.uniform(jax.random.key(0), (1, *shape, 2))
    variables = network.init(jax.random.key(1), x)
    variables = {name: variables[name] for name in ("params", "batch_stats") if name in variables}

    def shown(x):
        return network.apply(variables, x, mutable=["features"])[1]["features"]["shown"][0]

    layer = jax.eval_shape(shown, x)["values"].shape[1:4]
    place = tuple(size // 2 for size in layer)

    def at_place(x):
        return jnp.sum(shown(x)["values"][0][place] ** 2)

    seen = np.asarray(jnp.abs(jax.grad(at_place)(x))).sum((0, -1))
    found = shown(x)
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
