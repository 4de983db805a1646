"""PyTorch, with MONAI's networks too: times steps, or trains with the published recipes."""

import random
from collections.abc import Iterator

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from tests.peers import replies
from tests.peers.networks import torch_networks

ANGLES = (-20, -10, -5, 5, 10, 20)  # the Keras example's, degrees
# MONAI's own tutorial trains DenseNet121 with 1e-5; the Keras example's rate is 1e-4, as is that of its ResNet-18 here.
LEARNING_RATES = {"keras_example": 1e-4, "monai_densenet121": 1e-5, "monai_resnet18": 1e-4}
FORMAT = torch.channels_last_3d  # up to a sixth faster than PyTorch's default on CPUs


def _network(name: str, shape: tuple[int, int, int]) -> torch.nn.Module:
    return torch_networks.NETWORKS[name](shape).to(memory_format=FORMAT)


def _batch(volumes: torch.Tensor) -> torch.Tensor:
    return volumes.contiguous(memory_format=FORMAT)


def _train_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, volumes, labels) -> float:
    optimizer.zero_grad(set_to_none=True)
    logits = model(_batch(volumes))
    if logits.shape[1] == 1:
        loss = functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
    else:
        loss = functional.cross_entropy(logits, labels)
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.inference_mode()
def _predict(model: torch.nn.Module, volumes: torch.Tensor) -> np.ndarray:
    """Score volumes (batch, 1, slice, row, column): the log-odds of label 1, (batch,)."""
    model.eval()
    logits = model(_batch(volumes))
    model.train()
    return (logits[:, -1] - (logits[:, 0] if logits.shape[1] > 1 else 0)).numpy()


def steps(network: str, shape: list[int], batch_size: int) -> dict:
    """Return tasks: a training step, and the inference of a batch."""
    model = _network(network, tuple(shape))
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    hu, labels = replies.synthetic_batch(tuple(shape), batch_size)
    volumes, labels = torch.from_numpy(replies.windowed(hu)[:, None]), torch.from_numpy(labels).long()
    return {
        "train": lambda: _train_step(model, optimizer, volumes, labels),
        "predict": lambda: _predict(model, volumes),
    }


class _Studies(Dataset):
    """Volumes (1, slice, row, column) and labels, augmented by the network's recipe."""

    def __init__(self, network: str, volumes: np.ndarray, labels: np.ndarray):
        self._volumes, self._labels = volumes[:, None], labels.astype(np.int64)
        if network == "keras_example":
            self._augment = self._rotated
        else:
            from monai.transforms import RandRotate90

            self._augment = RandRotate90(spatial_axes=(1, 2))

    @staticmethod
    def _rotated(volume: np.ndarray) -> np.ndarray:
        rotated = ndimage.rotate(volume, random.choice(ANGLES), axes=(2, 3), reshape=False)
        return np.clip(rotated, 0, 1)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int):
        return torch.as_tensor(self._augment(self._volumes[index])), self._labels[index]


def learn(network: str, records: str) -> tuple[Iterator[np.ndarray], np.ndarray]:
    """Train with the network's published recipe.

    Returns:
      The held-out studies' scores after each epoch, without end, and their labels.
    """
    volumes, labels = replies.load_records(records, "train")
    held_volumes, held_labels = replies.load_records(records, "held")
    loader = DataLoader(_Studies(network, volumes, labels), batch_size=2, shuffle=True, num_workers=2)
    model = _network(network, volumes.shape[1:])
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATES[network])

    def scores() -> Iterator[np.ndarray]:
        while True:
            for batch in loader:
                _train_step(model, optimizer, *batch)
            held = torch.from_numpy(held_volumes[:, None]).split(2)
            yield np.concatenate([_predict(model, volumes) for volumes in held])

    return scores(), held_labels


if __name__ == "__main__":
    output = replies.open_output()
    what, settings = replies.settings()
    torch.set_num_threads(replies.CORES)
    torch.manual_seed(0)
    if what == "steps":
        replies.reply_with_timings(output, steps(**settings))
    else:
        replies.report_aurocs(output, *learn(**settings))
