"""Compilation for TPUs and GPUs that are not there: bounds by hand, refusals, costs that must not grow unnoticed."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from covidscan.benchmarking import chips, compiled_program, roofline, topology_report
from covidscan.benchmarking.compiled_program import Collective, ProgramCost
from covidscan.benchmarking.topology_report import CompiledStep
from covidscan.data import labels, splits
from tests.support import in_process, runs

LIBTPU = Path(sys.prefix) / "tpu"  # launch/test.sh installs it there, where nothing else finds it
GPU_PLUGIN = Path(sys.prefix) / "gpu"  # launch/README.md, "Bounds for GPUs"
V5E = chips.parse_slice("v5e:2x4").chip
COST = ProgramCost(
    flop=197e9,
    bytes_accessed=819e7,
    memory_bytes=2 * 10**9,
    temporary_bytes=10**9,
    collectives=(Collective("all-reduce", 1, 4_000_000, overlapped=False),),
    host_transfers=0,
)


def test_the_bound_is_the_longest_of_arithmetic_and_memory_plus_what_nothing_overlaps():
    found = roofline.bound(COST, V5E, chips=8)
    assert found.compute_seconds == pytest.approx(1e-3)
    assert found.memory_seconds == pytest.approx(10e-3)
    assert found.interconnect_seconds == pytest.approx(2 * 4e6 * 7 / 8 / 200e9)
    assert found.step_seconds == pytest.approx(10e-3 + found.interconnect_seconds)
    assert found.limited_by == "memory"
    hidden = dataclasses.replace(COST, collectives=(Collective("all-reduce", 1, 4_000_000, overlapped=True),))
    assert roofline.bound(hidden, V5E, chips=8).step_seconds == pytest.approx(10e-3)
    assert roofline.bound(COST, V5E, chips=1).interconnect_seconds == 0


def test_efficiency_falls_with_the_collectives_alone():
    small, large = (roofline.scaling(COST, COST, 8, V5E, count) for count in (8, 256))
    assert 1 > small.efficiency > large.efficiency > 0.99
    assert small.studies_per_second == pytest.approx(8 * 8 / roofline.bound(COST, V5E, 8).step_seconds)
    steps = 60 * 776 // 64 + 60 * 2
    assert small.full_hours == pytest.approx(steps * roofline.bound(COST, V5E, 8).step_seconds / 3600)


def test_the_full_training_is_that_of_its_flagfile():
    values = dict(line[2:].strip().split("=", 1) for line in (runs.ROOT / "full.flags").open() if line[:2] == "--")
    assert int(values["epochs"]) == roofline.FULL_EPOCHS
    assert values["protocol"] == "holdout"
    with (runs.ROOT / "tfds_mosmed/mosmed/studies.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names, categories = ([row[column] for row in rows] for column in ("study_id", "category"))
    strata = labels.strata("binary", categories, labels.assign_labels("binary", categories, ("CT-0",)).values)
    parts = splits.assign_parts(names, strata, "holdout", seed=0, num_folds=5, fold=0)
    assert (len(parts["train"]), len(parts["validation"])) == (roofline.FULL_TRAIN, roofline.FULL_VALIDATION)


HLO = """
  %all-reduce.1 = (f32[3,4]{1,0:T(8,128)}, /*index=1*/bf16[5]{0}) all-reduce(%a, %b), channel_id=1
  %all-gather-start = (f32[2]{0}, f32[16]{0}) all-gather-start(%c), dimensions={0}
  ROOT %all-gather-done = f32[16]{0:T(128)} all-gather-done(%all-gather-start)
  %fusion = f32[8]{0} fusion(%all-reduce.1), calls=%all-reduce_computation
"""
CALLBACK = '  %custom-call = () custom-call(%x), custom_call_target="xla_python_callback"\n'
SEND = "  %send.1 = (f32[8]{0}, u32[], token[]) send(%x, %token), channel_id=3, is_host_transfer=true\n"


def test_collectives_are_counted_in_the_scheduled_program():
    assert compiled_program.collectives(HLO) == (
        Collective("all-reduce", 1, 3 * 4 * 4 + 5 * 2, overlapped=False),
        Collective("all-gather", 1, 64, overlapped=True),
    )
    assert not compiled_program.HOST_TRANSFER.findall(HLO)
    assert len(compiled_program.HOST_TRANSFER.findall(HLO + CALLBACK + SEND)) == 2


KERNELS = """HloModule m, is_scheduled=true

%fused (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %negate.1 = f32[8]{0} negate(%p)
}

%body (q: (s32[], f32[8])) -> (s32[], f32[8]) {
  %q = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%q), index=0
  %x.1 = f32[8]{0} get-tuple-element(%q), index=1
  %fusion.1 = f32[8]{0} fusion(%x.1), kind=kLoop, calls=%fused
  ROOT %tuple.1 = (s32[], f32[8]{0}) tuple(%i, %fusion.1)
}

ENTRY %main.1 (a: f32[8], b: bf16[2,4]) -> f32[8] {
  %a = f32[8]{0} parameter(0), metadata={op_name="x"}
  %b = bf16[2,4]{1,0} parameter(1)
  %bitcast = bf16[8]{0} bitcast(%b)
  %conv = (f32[16]{0}, /*index=1*/u8[0]{0}) custom-call(%a, %bitcast), custom_call_target="__cudnn$convForward"
  %y = f32[16]{0} get-tuple-element(%conv), index=0
  %all-reduce-start = f32[16]{0} all-reduce-start(%y), to_apply=%add
  %all-reduce-done = f32[16]{0} all-reduce-done(%all-reduce-start)
  %while = (s32[], f32[8]{0}) while(%z), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %out = f32[8]{0} get-tuple-element(%while), index=1
}
"""


def test_the_bytes_of_kernels_are_those_of_their_operands_and_results():
    convolution, reduced, looped = 4 * 8 + 2 * 8 + 4 * 16, 4 * 16 + 4 * 16, 4 * 8 + 4 * 8
    assert compiled_program.bytes_of_kernels(KERNELS) == convolution + reduced + 5 * looped


@pytest.mark.parametrize("name", ["v4:2x2x2", "v5p:4x8x8", "v5e:2x4", "v5e:16x16", "v6e:4x4", "h100:1", "h100:8"])
def test_slices_are_parsed_by_their_names(name):
    assert chips.parse_slice(name).name == name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *(
            (f"--topology={name}", f"error: --topology={name}: write v5e or v6e")
            for name in ("v5e", "tpu:2x2", "v4:4x4")
        ),
        *((f"--topology={name}", f"error: --topology={name}: write v5e or v6e") for name in ("v5e:32x32", "v5e:3x3")),
        *(
            (f"--topology={name}", f"error: --topology={name}: write v5e or v6e")
            for name in ("h100:0", "h100:16", "h100:2x4", "v5e:8")
        ),
        ("--topology=h100:8", "pip install --no-deps --target=.venv/gpu jax-cuda12-plugin=="),
        (
            "--batch_size=9",
            "9 is the global batch and must be divisible by the 8 chips of --topology=v5e:2x4: use --batch",
        ),
        ("--output=missing/x.json", "error: --output=missing/x.json must be a file in a folder"),
        ("--width=8", "error: --topology needs libtpu, the compiler for TPUs: pip install libtpu=="),
    ],
)
def test_a_mistake_ends_in_one_line_with_its_remedy(given, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)  # as where it is not installed
    failed = in_process.run("benchmark", "--topology=v5e:2x4", given)
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert message in failed.stderr


def test_the_table_tells_bounds_from_measurements():
    step = CompiledStep(COST, roofline.bound(COST, V5E, 8), needed_flop=98.5e9, share_of_peak=0.05)
    scaling = tuple(roofline.scaling(COST, COST, 8, V5E, count) for count in (8, 256))
    report = topology_report.TopologyReport(
        *(
            "lung_resnet",
            "patches",
            32,
            "bfloat16",
            "128x128x32",
            "v5e:2x4",
            8,
            64,
            V5E,
            step,
            step,
            70,
            13 * 10**9,
            scaling,
        ),
        records_per_second_per_host=6400.0,
        versions={"jax": "0.10.2", "libtpu": "0.0.42.1"},
    )
    shown = topology_report.text(report)
    assert "bounds, not measurements" in shown
    assert "1 all-reduce of 4 MB" in shown
    assert "limited by memory" in shown
    assert "at most 5.0% of the peak" in shown
    assert "256 chips      at most" in shown
    assert "70 a chip, 13 of 14.4 GB" in shown


# Costs of the small step below on each chip of v5e:2x4, by version of libtpu. Lower them when they fall.
BYTES, MEMORY = "bytes_accessed", "memory_bytes"
KNOWN = {"0.0.42.1": {BYTES: 124.2e6, MEMORY: 21.0e6}}
COMPILE = """
import dataclasses, json, sys
from covidscan.benchmarking import chips, compiled_program, topology
from covidscan.config import Config
from tfds_mosmed.preprocessing.grid import Grid

config = Config(batch_size=8, width=8)
compiler = topology.SliceCompiler(chips.parse_slice(sys.argv[1]), config, Grid.parse("32x32x16"))
print(json.dumps(dataclasses.asdict(compiled_program.program_cost(compiler.train(rows=1), needed_flop=1e9))))
"""


def compile_small_step(topology: str, compiler: Path) -> dict[str, Any]:
    """Return the costs of a small training step, compiled in a network namespace of its own."""
    isolated = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("unshare --net is not allowed here: no network namespace to compile in")
    # The compiler's least effort: a third of the time, and nearly the same counts.
    environment = runs.environment() | {
        "PYTHONPATH": f"{runs.ROOT}:{compiler}",
        "XLA_FLAGS": "",
        "JAX_EXEC_TIME_OPTIMIZATION_EFFORT": "-1.0",
    }
    command = [*isolated, sys.executable, "-c", COMPILE, topology]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def small_step():
    if not LIBTPU.is_dir():
        pytest.skip(f"libtpu is not in {LIBTPU}: bash launch/test.sh installs it on Linux on x86-64")
    return compile_small_step("v5e:2x4", LIBTPU)


def test_a_step_for_tpus_has_one_all_reduce_of_gradients_and_leaves_the_host_alone(small_step):
    counts = {found["kind"]: found["count"] for found in small_step["collectives"]}
    # One of the gradients and terms of the loss, one in the place of the all-gather of a few bytes of outputs.
    assert counts == {"all-reduce": 2}
    assert small_step["host_transfers"] == 0


def test_a_step_for_tpus_takes_no_more_bytes_than_before(small_step):
    version = next(LIBTPU.glob("libtpu-*.dist-info")).name.split("-")[1].removesuffix(".dist")
    if version not in KNOWN:
        pytest.skip(f"no costs are known of libtpu {version}: they are {small_step}")
    for name, known in KNOWN[version].items():
        assert small_step[name] < 1.1 * known, f"{name} grew by more than 10 %"


def test_a_step_for_gpus_compiles_and_its_kernels_are_counted():
    if not GPU_PLUGIN.is_dir():
        pytest.skip(f"JAX's plug-in for GPUs, 0.5 GB, is not in {GPU_PLUGIN}: launch/README.md installs it")
    step = compile_small_step("h100:8", GPU_PLUGIN)
    assert {found["kind"]: found["count"] for found in step["collectives"]} == {"all-reduce": 1, "all-gather": 1}
    assert step["host_transfers"] == 0
    assert step["flop"] == 1e9
    assert step["bytes_accessed"] == pytest.approx(55.9e6, rel=0.1)
