"""The comparison on a GPU: the same network in PyTorch, the script at its smallest on a CPU, and its tables."""

import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from covidscan.models.lung_resnet import LungResNet
from tests.peers.processes import PEERS, ROOT

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
