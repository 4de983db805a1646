"""The comparison on a GPU: the same network in PyTorch, the script at its smallest on a CPU, and its tables."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from covidscan.models.lung_resnet import LungResNet
from tests.benchmarking.test_benchmark import ABSENT
from tests.peers import gpu, gpu_tables
from tests.peers.processes import PEERS, ROOT
from tests.support import runs
from tfds_mosmed.errors import UserError

SHAPE = (8, 24, 32)  # (slice, row, column)
LOGITS = """
import sys, numpy, torch
from tests.peers.networks import torch_lung_resnet
stored = dict(numpy.load(sys.argv[2]))
x = torch.as_tensor(stored.pop("x")).movedim(4, 1)
network = torch_lung_resnet.LungResNet(sys.argv[1]).eval()
torch_lung_resnet.load_flax(network, stored)
numpy.save(sys.argv[3], network(x.contiguous(memory_format=torch.channels_last_3d)).detach().numpy())
"""


@pytest.mark.skipif(not Path(PEERS).exists(), reason="the peers are not installed: run bash tests/peers/run.sh")
@pytest.mark.parametrize("size", ["tiny", "base"])
def test_lung_resnet_is_the_same_network_in_pytorch(size, tmp_path):
    model, generator = LungResNet(outputs=2, size=size), np.random.default_rng(0)
    x = generator.random((2, *SHAPE, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *SHAPE, 3)))["params"]
    # Random, as convolutions that start at zero would hide what they should compute.
    params = jax.tree.map(
        lambda leaf: generator.normal(0, 1 / np.sqrt(max(1, leaf.size / leaf.shape[-1])), leaf.shape).astype(
            np.float32
        ),
        shapes,
    )
    np.savez(tmp_path / "flax.npz", x=x, **traverse_util.flatten_dict(params, sep="/"))
    command = [PEERS, "-c", LOGITS, size, tmp_path / "flax.npz", tmp_path / "logits.npy"]
    subprocess.run(command, cwd=ROOT, check=True)  # PyTorch refuses parameters that are missing, too many or unlike
    expected = jax.jit(model.apply)({"params": params}, x)
    assert np.std(expected, axis=0).min() > 1e-3  # the studies differ
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-4)


DEVICE = {"device": "NVIDIA H200", "platform": "gpu", "versions": {"jax": "1.0"}}
STEP = {
    "compile_seconds": 41.2,
    "peak_bytes": 3e9,
    "peak_bytes_source": "the allocator",
    "compiled_step_bytes": 2.5e9,
    "step_seconds": 0.02,
    "inference_seconds": 0.008,
    "rounds": 5,
    "flop_per_second": 98.9e12,
    "share_of_peak": 0.1,
}
PEER = {
    "plain_step_seconds": 0.016,
    "torch_step_seconds": 0.024,
    "plain_inference_seconds": 0.008,
    "torch_inference_seconds": 0.004,
}
CACHES = {"host_steps_per_second": 40.0, "device_steps_per_second": 50.0}
LOSSES = {"bfloat16_losses": [0.7, 0.65, 0.6], "float32_losses": [0.7, 0.66, 0.601]}


def _measured(monkeypatch, folder, reports):
    """Measure with jobs that report what is given, one after the other, and then nothing."""
    given = iter(reports)
    monkeypatch.setattr(gpu, "_run", lambda *_: iter(next(given, [DEVICE])))
    gpu.measure(folder, smoke=False)
    return json.loads((folder / "gpu.json").read_text()), (folder / "gpu.md").read_text().splitlines()


def test_tables_join_what_the_jobs_of_a_row_report(monkeypatch, tmp_path):
    reports = [[DEVICE, STEP, PEER], [DEVICE, STEP | {"share_of_peak": None}, {"note": "PyTorch is not installed"}]]
    reports += [[DEVICE]] * 3 + [[DEVICE, CACHES, LOSSES]]
    results, lines = _measured(monkeypatch, tmp_path, reports)
    assert results["rows"]["tiny, 128x128x32, batch 8"]["device_steps_per_second"] == 50.0
    name = "| tiny, 128x128x32, batch 8 |"
    assert f"{name} 20.0 ms | 400/s | 98.9 (10.0%) | 3.00 / 2.50 GB | 1000/s | 41 s |" in lines
    assert f"{name} 16.0 ms | 24.0 ms | 1.50x | 8.00 ms | 4.00 ms | 0.50x |" in lines
    assert f"{name} 40.0/s | 50.0/s | 1.25x |" in lines
    assert f"{name} 0.7000, 0.6000 | 0.7000, 0.6010 | 0.0100 at step 2 of 3 |" in lines
    assert any(line.startswith("| base, 256x256x40, batch 8 |") and "98.9 (unknown)" in line for line in lines)
    assert "* base, 256x256x40, batch 8: PyTorch is not installed" in lines
    assert lines[-1] == f"{results['date']}, NVIDIA H200, jax 1.0."


def test_jobs_without_time_are_left_out_and_named(monkeypatch, tmp_path):
    clock = iter([0.0, 0.0, 300.0, *[565.0] * 20])
    monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    results, lines = _measured(monkeypatch, tmp_path, [[DEVICE, STEP], [DEVICE, STEP]])
    assert list(results["rows"]) == [job.row for job in gpu.JOBS[:2]]
    assert "* base, 256x256x40, batch 16: no time left for step and peer" in lines
    assert len(results["notes"]) == len(gpu.JOBS) - 2


def test_a_machine_without_gpu_is_an_error(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="no GPU"):
        _measured(monkeypatch, tmp_path, [[DEVICE | {"platform": "cpu"}]])
    with pytest.raises(UserError, match="nothing could be measured"):
        _measured(monkeypatch, tmp_path, [[{"note": "step ended with status 1"}]] * len(gpu.JOBS))


@pytest.mark.sampled
def test_the_script_runs_where_only_jax_flax_and_optax_are(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({(*ABSENT, 'torch')}))\n")
    command = [sys.executable, "-m", "tests.peers.gpu", "--smoke", f"--output_dir={tmp_path}/out"]
    environment = runs.environment() | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "out/gpu.json").read_text())
    (row,) = results["rows"].values()
    assert row["step_seconds"] > 0 < row["device_steps_per_second"]
    assert row["bfloat16_losses"] == pytest.approx(row["float32_losses"], abs=0.02)
    assert [note.partition(": ")[2] for note in results["notes"]] == [
        "PyTorch is not installed here, so it is left out"
    ]
    assert (tmp_path / "out/gpu.md").read_text().strip() == gpu_tables.markdown(results)
