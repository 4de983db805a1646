"""One replica's step, alone and over several devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from covidscan.config import Config
from covidscan.data import labels
from covidscan.data.feed import Batch
from covidscan.distributed import devices as parallel
from covidscan.models import heads, lung_resnet
from covidscan.training import experiment as experiments
from covidscan.training import losses
from covidscan.training import step as steps
from covidscan.training.network import create_network

STILL = {"flip": 0, "scale": 0, "shift": 0, "rotation": 0, "blur": 0, "intensity": 0, "noise": 0}
SHAPE = (16, 16, 16)
SMALL = Config(width=8, batch_size=8, epochs=3, learning_rate=1e-2)


def _batch(seed=0, rows=8):
    generator = np.random.default_rng(seed)
    volume = generator.integers(-1024, 600, (rows, *SHAPE)).astype(np.int16)
    label = np.arange(rows, dtype=np.int32) % 2
    volume[label == 1, 2:5, 4:9, 4:9] = 50  # something to learn
    return Batch(volume, label, np.ones(rows, np.float32))


def _experiment(**changes):
    config = Config(**{**SMALL.to_json(), "windows": SMALL.windows, "negative_categories": ("CT-0",), **changes})
    return experiments.create_experiment(config, 2, SHAPE, num_train=80)


def _run(experiment, num_devices, num_steps=4):
    step = jax.pmap(
        experiment.replica_step(),
        axis_name=parallel.REPLICAS,
        in_axes=(None, 0),
        out_axes=None,
        devices=jax.devices()[:num_devices],
    )
    state, losses = experiment.create_state(), []
    for number in range(num_steps):
        shares = jax.tree.map(lambda x: x.reshape(num_devices, -1, *x.shape[1:]), _batch(number))
        state, metrics, _ = jax.block_until_ready(step(state, shares))
        losses.append(float(metrics["loss"]))
    return state, losses


@pytest.mark.sampled
@pytest.mark.parametrize(
    "changes",
    [
        {"mixup": 0.4, "dropout": 0.5, "size": "tiny"},
        {"model": "covidscan_cnn", "dropout": 0.0, "optimizer": "adam", "ema_decay": 0.0},
    ],
    ids=["augmentation, mixup, dropout and drop path", "synchronised batch norm"],
)
def test_loss_curve_is_the_same_on_1_2_and_4_devices(changes, monkeypatch):
    monkeypatch.setitem(lung_resnet.SIZES, "tiny", lung_resnet.SIZES["tiny"]._replace(drop_path=0.5))
    experiment = _experiment(**changes)
    one = _run(experiment, 1)[1]
    assert one[-1] != one[0]
    for devices in (2, 4):
        np.testing.assert_allclose(_run(experiment, devices)[1], one, atol=1e-4)


def test_every_replica_holds_the_same_state_after_a_step():
    state, _ = _run(_experiment(mixup=0.4, model="covidscan_cnn"), num_devices=4, num_steps=2)
    for leaf in jax.tree.leaves(state):
        shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(shards) == 4
        for shard in shards[1:]:
            np.testing.assert_array_equal(shard, shards[0])


def test_a_forgotten_pmean_would_be_seen_by_the_test_above(monkeypatch):
    monkeypatch.setattr(jax.lax, "pmean", lambda values, axis_name: values)
    state, _ = _run(_experiment(), num_devices=4, num_steps=2)
    kernels = [leaf for leaf in jax.tree.leaves(state.params) if leaf.ndim > 1]
    assert any(not np.array_equal(leaf.addressable_shards[0].data, leaf.addressable_shards[3].data) for leaf in kernels)


def test_a_step_equals_plain_gradient_descent_on_the_whole_batch():
    experiment = _experiment(**STILL, dropout=0.0, label_smoothing=0.1, optimizer="adam", clip_norm=0.5)
    state = experiment.create_state()
    batch = _batch()
    x = heads.hu_windows(batch.volume, experiment.config.windows)

    @jax.jit
    def loss_fn(params):
        logits = experiment.model.apply({"params": params}, x, train=False)
        return optax.losses.softmax_cross_entropy(
            logits, optax.smooth_labels(jax.nn.one_hot(batch.label, 2), 0.1)
        ).mean()

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    updates, _ = experiment.tx.update(grads, state.opt_state, state.params)
    want = optax.apply_updates(state.params, updates)
    got, losses = _run(experiment, num_devices=2, num_steps=1)
    assert losses[0] == pytest.approx(float(loss), abs=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5), got.params, want)


def test_several_steps_in_one_dispatch_are_the_same_steps():
    experiment = _experiment(mixup=0.4)
    records, devices = _batch(rows=24), 2
    rows = np.random.default_rng(1).integers(0, 24, (5, 8)).astype(np.int32)
    mapped = {"axis_name": parallel.REPLICAS, "out_axes": None, "devices": jax.devices()[:devices]}
    one = experiment.replica_step()
    step = jax.pmap(one, in_axes=(None, 0), **mapped)
    state, losses, outputs = experiment.create_state(), [], []
    for number in range(3):
        batch = jax.tree.map(lambda x, rows=rows[number]: x[rows].reshape(devices, -1, *x.shape[1:]), records)
        state, metrics, output = jax.block_until_ready(step(state, batch))
        losses.append(float(metrics["loss"]))
        outputs.append(output)
    together = jax.pmap(steps.make_train_steps(one), in_axes=(None, None, 0, None), **mapped)
    shares = np.stack(np.split(rows, devices, axis=1))
    got, metrics, output = jax.block_until_ready(together(experiment.create_state(), records, shares, np.int32(3)))
    np.testing.assert_allclose(metrics["loss"], [*losses, 0, 0], atol=1e-5)
    np.testing.assert_array_equal(output.label[:3], [one.label for one in outputs])
    np.testing.assert_allclose(output.probability[:3], [one.probability for one in outputs], atol=1e-4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), got, state)


def test_running_mean_follows_the_parameters():
    experiment = _experiment(ema_decay=0.5, model="covidscan_cnn")
    before = experiment.create_state()
    after, _ = _run(experiment, num_devices=1, num_steps=1)
    # decay of the first step: min(0.5, 1 / 10)
    want = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, before.params, after.params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), after.ema_params, want)
    assert steps.eval_variables(after)["params"] is after.ema_params
    plain = _experiment(ema_decay=0.0).create_state()
    assert steps.eval_variables(plain)["params"] is plain.params


def test_averaged_parameters_are_evaluated_with_equally_averaged_batch_statistics():
    experiment = _experiment(ema_decay=0.5)
    state = experiment.create_state().replace(batch_stats={"mean": jnp.ones(2)}, ema_batch_stats={"mean": jnp.ones(2)})
    no_gradients = jax.tree.map(jnp.zeros_like, state.params)
    after = experiment.replica_step().update(state, no_gradients, {"mean": 2 * jnp.ones(2)})
    np.testing.assert_allclose(after.batch_stats["mean"], 2)
    np.testing.assert_allclose(steps.eval_variables(after)["batch_stats"]["mean"], 0.1 * 1 + 0.9 * 2)
    plain = _experiment(ema_decay=0.0)
    state = plain.create_state().replace(batch_stats={"mean": jnp.ones(2)})
    after = plain.replica_step().update(state, no_gradients, {"mean": 2 * jnp.ones(2)})
    assert not after.ema_batch_stats
    assert steps.eval_variables(after)["batch_stats"] is after.batch_stats


def test_training_learns_what_is_there_and_not_before():
    experiment = _experiment(**STILL, dropout=0.0, epochs=60, learning_rate=2e-2, label_smoothing=0.0)
    step = _one_replica(experiment)
    state, losses = experiment.create_state(), []
    batch = jax.tree.map(lambda x: x[None], _batch())
    for _ in range(80):
        state, metrics, output = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[0] > 0.6
    assert losses[-1] < losses[0] / 10  # of three seeds the slowest ends below a thousandth
    np.testing.assert_array_equal(np.asarray(output.probability).argmax(-1), batch.label[0])


@pytest.mark.parametrize("skip", [False, True])
def test_an_update_that_is_not_finite_is_reported_and_left_out_on_request(skip):
    experiment = _experiment(**STILL, skip_nonfinite=skip, model="covidscan_cnn")
    step = _one_replica(experiment)
    good = jax.tree.map(lambda x: x[None], _batch())
    bad = good._replace(weight=np.full_like(good.weight, np.nan))
    start = experiment.create_state()
    after, metrics, _ = step(start, bad)
    assert not metrics["finite"]
    assert int(after.step) == 1
    unchanged = [
        np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (after.params, start.params)), strict=True)
    ]
    assert all(unchanged) == skip
    if skip:
        assert int(metrics["skipped_updates"]) == 1
        after, metrics, _ = step(after, good)
        assert metrics["finite"]
        assert (int(after.step), int(after.skipped)) == (2, 1)


def test_cutmix_blends_the_weights_of_the_loss_as_the_targets():
    """An example that is mostly its neighbour's box would be weighted by its own label's frequency otherwise."""
    experiment = _experiment(cutmix=1.0, mixup=0.0, label_smoothing=0.0, **STILL)
    batch = _batch()._replace(weight=np.where(np.arange(8) % 2, 0.5, 3.0).astype(np.float32))
    augmented = jax.vmap(experiment.replica_step().augmented, (None, 0), axis_name=parallel.REPLICAS)
    inputs = augmented(experiment.create_state(), jax.tree.map(lambda x: x[None], batch))
    np.testing.assert_allclose(inputs.weight, 3.0 - 2.5 * inputs.target[..., 1], rtol=1e-5)
    assert len(np.unique(inputs.weight)) == 8


def test_cutmix_takes_no_key_that_is_derived_from_one_of_mixup(monkeypatch):
    taken = {}

    def keep(name, returned):
        def mix(keys, arrays, *_):
            taken[name] = jax.random.key_data(keys)
            return returned(arrays)

        monkeypatch.setattr(losses, name, mix)

    keep("mixup", lambda arrays: arrays)
    keep("cutmix", lambda arrays: (arrays, None))
    step = _experiment(cutmix=1.0, mixup=1.0, **STILL).replica_step()

    def keys(state, batch):
        step.augmented(state, batch)
        return taken["mixup"], taken["cutmix"]

    shares = jax.tree.map(lambda x: x[None], _batch())
    mixed, cut = jax.vmap(keys, (None, 0), axis_name=parallel.REPLICAS)(_experiment().create_state(), shares)
    derived = jax.vmap(lambda key: jax.random.split(key, 8))(jax.random.wrap_key_data(mixed[0]))
    assert not {*map(tuple, np.asarray(cut[0]))} & {
        *map(tuple, np.asarray(jax.random.key_data(derived)).reshape(-1, 2))
    }


@pytest.mark.parametrize(("task", "signs"), [("binary", [-1, 1]), ("severity", [1] * 4), ("multilabel", [1] * 3)])
def test_lesions_vote_for_disease_in_the_first_step(task, signs):
    model = create_network(Config(task=task, width=8), len(signs), (*SHAPE, 3), jnp.float32)
    params = model.init(jax.random.key(0), jnp.zeros((1, *SHAPE, 3)))["params"]
    head = next(
        layer["kernel"] for name, layer in params.items() if layer.get("kernel", np.zeros(0)).shape == (12, len(signs))
    )
    np.testing.assert_array_equal(np.sign(head[:3]), np.broadcast_to(signs, (3, len(signs))))


def test_mixup_never_takes_a_missing_mask_for_an_empty_one():
    experiment = _experiment(**STILL, mixup=1.0)
    known = np.array([True, True, False, True, False, False, True, True])
    mask = np.ones((8, *SHAPE), np.uint8) * known[:, None, None, None]
    shares = jax.tree.map(lambda x: x[None], _batch()._replace(lesion_mask=mask, has_lesion_mask=known))
    augmented = jax.vmap(experiment.replica_step().augmented, (None, 0), axis_name=parallel.REPLICAS)
    inputs = augmented(experiment.create_state(), shares)
    np.testing.assert_array_equal(inputs.has_lesion_mask[0], known & np.roll(known, 1))
    certain = np.asarray(inputs.has_lesion_mask[0]) > 0
    np.testing.assert_allclose(np.asarray(inputs.lesion_mask[0])[certain], 1, atol=1e-6)


def _one_replica(experiment):
    """A training step on a machine of one device."""
    return jax.pmap(
        experiment.replica_step(), in_axes=(None, 0), out_axes=None, axis_name="replicas", devices=jax.devices()[:1]
    )


@pytest.mark.parametrize("task", labels.TASKS)
def test_every_task_trains_and_evaluates(task):
    config = Config(width=8, task=task, batch_size=4)
    experiment = experiments.create_experiment(config, 4, SHAPE, num_train=8)
    batch = jax.tree.map(lambda x: x[None], _batch(rows=4))
    state, metrics, output = _one_replica(experiment)(experiment.create_state(), batch)
    assert np.isfinite(metrics["loss"])
    assert output.probability.shape == (4, 4)
    eval_step = steps.make_eval_step(config, experiment.model, "replicas")
    eval_step = jax.vmap(eval_step, in_axes=(None, 0), out_axes=None, axis_name="replicas")
    logits = eval_step(steps.eval_variables(state), batch.volume)
    assert logits.shape == (4, heads.num_outputs(task, 4))
