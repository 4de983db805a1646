"""Networks in PyTorch, and MONAI's: (batch, 1, slice, row, column) -> logits."""

import math
from collections.abc import Callable

from torch import nn


def _convolutions(widths: tuple[int, ...], padding: str) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for channels, width in zip((1, *widths), widths, strict=False):
        norm = nn.BatchNorm3d(width, eps=1e-3, momentum=0.01)  # Keras's 0.99 is what PyTorch calls 0.01
        layers += [nn.Conv3d(channels, width, 3, padding=padding), nn.ReLU(), nn.MaxPool3d(2), norm]
    return layers


def _with_keras_initialisation(network: nn.Sequential) -> nn.Sequential:
    for layer in network:
        if isinstance(layer, nn.Conv3d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return network


def covidscan_cnn(shape: tuple[int, int, int]) -> nn.Module:
    """The original CovidScan's network for volumes of `shape` (slice, row, column)."""
    positions = math.prod(((size - 2) // 2 - 2) // 2 for size in shape)
    dense = [nn.Flatten(), nn.Linear(128 * positions, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 256), nn.ReLU()]
    return _with_keras_initialisation(nn.Sequential(*_convolutions((64, 128), "valid"), *dense, nn.Linear(256, 2)))


def keras_example(shape: tuple[int, int, int]) -> nn.Module:
    """The Keras example's network; it takes any `shape`."""
    pool = [nn.AdaptiveAvgPool3d(1), nn.Flatten()]
    dense = [nn.Linear(256, 512), nn.ReLU(), nn.Dropout(0.3), nn.Linear(512, 1)]
    return _with_keras_initialisation(nn.Sequential(*_convolutions((64, 64, 128, 256), "same"), *pool, *dense))


def monai_densenet121(shape: tuple[int, int, int]) -> nn.Module:
    """MONAI's DenseNet121 in 3-D, two logits."""
    from monai.networks.nets import DenseNet121  # takes seconds to import

    return DenseNet121(spatial_dims=3, in_channels=1, out_channels=2)


def monai_resnet18(shape: tuple[int, int, int]) -> nn.Module:
    """MONAI's ResNet-18 in 3-D, two logits."""
    from monai.networks.nets import resnet18

    return resnet18(spatial_dims=3, n_input_channels=1, num_classes=2)


NETWORKS: dict[str, Callable[[tuple[int, int, int]], nn.Module]] = {
    "covidscan_cnn": covidscan_cnn,
    "keras_example": keras_example,
    "monai_densenet121": monai_densenet121,
    "monai_resnet18": monai_resnet18,
}


def count(model: nn.Module) -> int:
    """Count the network's parameters, running statistics included."""
    counted = [*model.parameters(), *(value for value in model.buffers() if value.is_floating_point())]
    return sum(value.numel() for value in counted)
