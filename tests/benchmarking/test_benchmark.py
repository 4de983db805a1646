"""The benchmark as users run it, where little is installed, and its results against counts and formulas by hand."""

import functools
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from covidscan.benchmarking import flops, hardware, step_parts, synthetic_records, timing
from covidscan.config import Config
from covidscan.training.experiment import create_experiment
from tests.support import runs
from tests.training.test_step import STILL

# JAX, Flax, Optax and what they import, each with the metadata of its version.
BARE = (
    *("jax", "jaxlib", "flax", "optax", "absl", "numpy", "numpy.libs", "scipy", "scipy.libs", "ml_dtypes"),
    *("opt_einsum", "msgpack", "rich", "pygments", "markdown_it", "mdurl", "yaml", "_yaml", "typing_extensions.py"),
)
ABSENT = ("tensorflow_datasets", "grain", "nibabel", "orbax", "etils", "sklearn", "matplotlib", "tensorstore")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A folder with this project and little else to import."""
    installed, folder = Path(jax.__file__).parents[1], tmp_path_factory.mktemp("bare")
    for name in BARE:
        for found in (*installed.glob(name), *installed.glob(f"{name}-*.dist-info")):
            (folder / found.name).symlink_to(found)
    for name in ("covidscan", "tfds_mosmed"):
        (folder / name).symlink_to(runs.ROOT / name)
    return folder


def _run(folder, *flags, devices=2):
    return subprocess.run(
        [sys.executable, "-S", *flags],  # -S: without the installed packages
        cwd=folder,
        env={**runs.environment(devices), "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def done(bare):
    """A measurement of a small network on two devices."""
    flags = ["--model=covidscan_cnn", "--width=4", "--grid=16x16x16", "--batch_size=4", "--output=small.json"]
    done = _run(bare, "-m", "covidscan.benchmark", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def results(done, bare):
    return json.loads((bare / "small.json").read_text())


def test_it_runs_where_only_jax_flax_and_optax_are(bare, done):
    found = _run(bare, "-c", f"import importlib.util as u; print([n for n in {ABSENT} if u.find_spec(n)])")
    assert found.stdout.strip() == "[]"
    assert "step  " in done.stdout
    assert "small.json" in done.stdout
    assert "compiling" in done.stderr  # progress


def test_the_results_name_the_network_and_the_machine(results):
    assert (results["model"], results["width"], results["dtype"]) == ("covidscan_cnn", 4, "float32")
    assert (results["grid"], results["batch_size"], results["device_count"]) == ("16x16x16", 4, 2)
    assert results["device_kind"] == results["platform"] == "cpu"
    assert results["versions"]["jax"] == jax.__version__
    assert results["versions"].keys() >= {"jaxlib", "flax", "optax", "python"}


def test_the_parts_of_a_step_add_up(results):
    step = results["step"]
    of_parts = ("augmentation", "forward", "backward", "optimizer", "rest")
    assert sum(step[f"{part}_seconds"] for part in of_parts) == pytest.approx(step["step_seconds"])
    assert 0 < step["forward_seconds"] < step["forward_and_backward_seconds"] < step["step_seconds"] * 1.5
    assert results["volumes_per_second"] == pytest.approx(4 / step["step_seconds"])
    assert step["rounds"] >= 5


def test_shares_and_rates_fit_together(results):
    flop, fed = results["flop"], results["input"]
    assert 0 < flop["share_of_peak"] < 1
    rate = flop["step_flop_per_volume"] * results["volumes_per_second"]
    assert flop["share_of_peak"] == pytest.approx(rate / flop["peak_flop_per_second"])
    assert flop["peak_source"].startswith("measured")  # no data sheet knows this CPU
    assert 2 * flop["forward_flop_per_volume"] < flop["step_flop_per_volume"]
    assert 0 < fed["share_of_time_waiting_for_data"] < 1
    assert fed["records_per_second_alone"] > fed["records_per_second_feeding"] > 0


def test_the_persistent_cache_saves_time(results):
    compilation = results["compilation"]
    assert 0 < compilation["with_cache_seconds"] < compilation["without_cache_seconds"]
    assert compilation["tracing_seconds"] > 0


def test_the_suggested_batch_fills_the_memory_and_no_more(results):
    largest, usable = results["largest_batch"], results["memory"]["usable_bytes_per_device"]
    assert largest["batch_size"] == 2 * largest["batch_size_per_device"]
    assert 0.8 * usable < largest["compiled_step_bytes_per_device"] <= usable
    assert largest["compiled_step_bytes_per_device"] > results["memory"]["compiled_step_bytes_per_device"]
    assert results["memory"]["peak_bytes_per_device"] > 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--grid=128x128"], "error: --grid=128x128: write ROWSxCOLUMNSxSLICES"),
        (["--batch_size=3"], "error: --batch_size=3 is the global batch and must be divisible by the 2 devices"),
        (["--output=missing/results.json"], "error: --output=missing/results.json must be a file in a folder"),
        (["--width=4", "--grid=16x16x16", "--batch_size=400000"], "are free: use --batch_size="),
        (["--model=vgg"], "--model=vgg: give lung_resnet, covidscan_cnn,"),
    ],
    ids=["grid", "devices", "output", "memory", "model"],
)
def test_a_mistake_ends_in_one_line_with_its_remedy(bare, flags, message):
    failed = _run(bare, "-m", "covidscan.benchmark", "--model=covidscan_cnn", *flags)
    assert failed.returncode in (1, 2)
    *progress, error = failed.stderr.strip().splitlines()
    assert message in error
    assert error.startswith("error: ")
    assert all(line.endswith("…") for line in progress)


def test_help_does_not_wait_for_jax(bare):
    start = time.perf_counter()
    helped = _run(bare, "-m", "covidscan.benchmark", "--help")
    assert time.perf_counter() - start < 5  # JAX alone takes a second, and other tests may run beside
    assert "--batch_size" in helped.stdout
    assert "--grid" in helped.stdout
    assert "--epochs" not in helped.stdout  # it would change nothing
    imported = "import sys; from covidscan import benchmark; print('jax' in sys.modules)"
    assert _run(bare, "-c", imported).stdout.strip() == "False"


def _experiment(shape=(16, 16, 16), **changes):
    return create_experiment(Config(batch_size=4, **changes), 2, shape, num_train=64)


def test_flop_are_those_counted_by_hand():
    experiment = _experiment((32, 64, 64), model="covidscan_cnn")
    shares = synthetic_records.abstract_shares(synthetic_records.make_records(1, (32, 64, 64)), 4)
    shares = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, 4, *x.shape[2:]), x.dtype), shares)
    taps, windows, width = 3**3, 3, 64
    first = 30 * 62 * 62 * taps * windows * width  # valid convolutions lose a voxel on each side
    second = 13 * 29 * 29 * taps * width * 2 * width  # of (15, 31, 31), what pooling leaves
    dense = 6 * 14 * 14 * 2 * width * 512 + 512 * 256 + 256 * 2
    found = flops.flop_per_volume(experiment, shares)
    assert found.forward == pytest.approx(2 * (first + second + dense), rel=0.02)
    # Backward: each product again for its input and for its weights, but for the scan, which has no gradient.
    learning = 2 * (2 * first + 3 * second + 3 * dense)
    parameters = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(experiment.abstract_state().params))
    optimizer = 30 * parameters / 4  # some 30 for each parameter, shared by 4 volumes
    assert learning < found.step < 1.1 * learning + optimizer


def test_the_parts_are_those_of_the_training_step():
    experiment = _experiment(model="covidscan_cnn", width=4, dropout=0.0, warmup=0.0, **STILL)
    made = synthetic_records.make_records(4, (16, 16, 16))
    share = jax.tree.map(lambda field: field[None], made)
    state, part = experiment.create_state(), step_parts.make_parts(experiment)
    one = lambda program: jax.jit(step_parts.one_replica(program))  # noqa: E731
    given = one(part.augmentation)(state, share)
    loss = one(part.forward)(state, given)["loss"]
    terms, gradients = one(part.forward_backward)(state, given)
    want, metrics, _ = one(experiment.replica_step())(state, share)
    after = jax.jit(part.update)(state, jax.tree.map(lambda leaf: leaf[0], gradients))
    assert float(loss[0]) == pytest.approx(float(metrics["loss"][0]), rel=1e-5)
    assert float(terms["loss"][0]) == pytest.approx(float(loss[0]), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[0], atol=1e-6), after.opt_state, want.opt_state)
    # Adam divides by the gradient's size: where that is near 0, rounding moves a parameter, by a learning rate of 2e-3.
    moved = jax.tree.map(lambda a, b: np.mean(np.abs(a - b[0]) > 1e-5), after.params, want.params)
    assert max(jax.tree.leaves(moved)) < 0.05


@pytest.mark.parametrize(
    ("kind", "dtype", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989),
        ("NVIDIA H100 PCIe", "bfloat16", 756),
        ("NVIDIA A100-SXM4-40GB", "float32", 156),
        ("NVIDIA L40S", "bfloat16", 362),
        ("NVIDIA L4", "bfloat16", 121),
        ("NVIDIA GB200", "bfloat16", 2500),
        ("NVIDIA GeForce RTX 4090", "float32", 82.6),
        ("TPU v5 lite", "bfloat16", 197),
        ("TPU v5p", "bfloat16", 459),
        ("TPU v6 lite", "bfloat16", 918),
    ],
)
def test_a_known_accelerator_has_the_peak_of_its_own_kind(kind, dtype, tflops):
    assert hardware.stated_peak(kind, dtype).flop_per_second == tflops * 1e12


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA A10G", "AMD Instinct MI300X"])
def test_an_unknown_accelerator_has_no_stated_peak(kind):
    assert hardware.stated_peak(kind, "float32") is None


def test_the_largest_batch_is_extrapolated_from_two_programs_and_confirmed_by_a_third():
    compiled = []

    def needed(rows, bend=0.0):
        compiled.append(rows)
        return int(1000 + 50 * rows + bend * rows**2)

    assert hardware.largest_batch(needed, usable=11_049, rows=4, row_bytes=1) == (200, 11_000)
    assert compiled == [4, 8, 200]
    bent = hardware.largest_batch(functools.partial(needed, bend=0.1), usable=11_049, rows=4, row_bytes=1)
    assert bent.needed_bytes <= 11_049 < needed(bent.rows + 40, bend=0.1)
    assert hardware.largest_batch(needed, usable=1049, rows=4, row_bytes=1).rows == 0


@pytest.mark.alone
def test_waiting_for_data_is_distinguished_from_working():
    def slowly(seconds):
        while True:
            time.sleep(seconds)
            yield synthetic_records.make_records(1, (1, 1, 1))

    starved = timing.time_loop(lambda batch: batch.label, slowly(0.02), num_steps=10)
    assert starved.waiting_share > 0.9
    assert starved.seconds_per_step >= 0.02
    working = timing.time_loop(lambda batch: time.sleep(0.02), slowly(0), num_steps=10)
    assert working.waiting_share < 0.1
    assert timing.batches_per_second(slowly(0.02), 0.2) == pytest.approx(50, rel=0.3)


@pytest.mark.alone
def test_programs_are_timed_by_turns_after_a_first_run():
    order = []

    def program(name, seconds):
        order.append(name)
        time.sleep(seconds * (10 if len(order) <= 2 else 1))  # the first run compiles

    programs = {"a": lambda: program("a", 0.01), "b": lambda: program("b", 0.03)}
    timed = timing.median_seconds(programs, budget_seconds=0)
    assert timed.rounds == 5
    assert order == ["a", "b"] * 7
    assert timed.seconds["a"] == pytest.approx(0.01, abs=0.008)
    assert timed.seconds["b"] == pytest.approx(0.03, abs=0.01)


def test_a_timed_loop_waits_for_all_of_its_steps():
    waited = []

    class Result:
        def __init__(self, step):
            self.step = step

        def block_until_ready(self):
            waited.append(self.step)

    timing.time_loop(Result, iter(range(5)), num_steps=5)
    assert waited == [0, 1, 2, 3, 4]
