"""`lung_resnet` in PyTorch as programs to be timed: automatic mixed precision, channels last, fused AdamW."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from covidscan.config import Config
from tests.peers.networks.torch_lung_resnet import LungResNet


def programs(config: Config, x: np.ndarray, label: np.ndarray, num_parameters: int) -> dict[str, Callable[[], Any]]:
    """Return a training step and the inference of a batch that is on the device already, both awaited.

    Args:
      config: of the network and its training.
      x: windows (batch, slice, row, column, window), float32.
      label: (batch,), int32.
      num_parameters: of Flax's network, which PyTorch's must have too.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(config.seed)
    network: Any = LungResNet(config.size).to(device, memory_format=torch.channels_last_3d)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == num_parameters, f"PyTorch's network has {count:,} parameters, Flax's {num_parameters:,}"
    volumes = torch.from_numpy(np.array(x)).to(device).movedim(4, 1).contiguous(memory_format=torch.channels_last_3d)
    labels = torch.from_numpy(label).long().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, fused=True)

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def train() -> None:
        network.train()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            loss = functional.cross_entropy(network(volumes), labels, label_smoothing=config.label_smoothing)
        loss.backward()
        optimizer.step()
        wait()

    @torch.inference_mode()
    def predict() -> None:
        network.eval()
        with torch.autocast(device, torch.bfloat16):
            network(volumes)
        wait()

    return {"train": train, "predict": predict}
