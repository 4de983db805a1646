"""The default network, `lung_resnet`, in PyTorch: the sizes whose tokens are 2 x 2 pixels, under Flax's names."""

import math

import torch
from torch import nn
from torch.nn import functional

SEPARABLE, DENSE = ((1, 3, 3), (3, 1, 1)), ((3, 3, 3), (3, 3, 3))
SIZES = {  # width, blocks of each stage after the first, kernels of a block, drop path rate of the last block
    "tiny": (16, (1, 1, 1), SEPARABLE, 0.0),
    "base": (64, (2, 4, 2), DENSE, 0.2),
}
MAPS, SHARES = 4, (0.0001, 0.001, 0.01, 1.0)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, channels // 8), channels, eps=1e-6)


def _conv(inputs: int, outputs: int, kernel: tuple[int, int, int] = (1, 1, 1), bias: bool = False) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, kernel, padding="same", bias=bias)


class Block(nn.Module):
    """A pre-activation residual block of two convolutions, skipped at a rate in training."""

    def __init__(self, inputs: int, outputs: int, kernels: tuple[tuple[int, int, int], ...], drop_path: float):
        super().__init__()
        self.drop_path = drop_path
        skip = [_conv(inputs, outputs)] if inputs != outputs else []
        convolutions = [*skip, _conv(inputs, outputs, kernels[0]), _conv(outputs, outputs, kernels[1], bias=True)]
        self.Conv3D, self.GroupNorm = nn.ModuleList(convolutions), nn.ModuleList([_norm(inputs), _norm(outputs)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, channel, slice, row, column) to the same with other channels."""
        *skip, first, second = self.Conv3D
        y = functional.relu(self.GroupNorm[0](x))
        x = skip[0](y) if skip else x
        y = second(functional.relu(self.GroupNorm[1](first(y))))
        if self.training and self.drop_path:
            y = (
                y
                * (torch.rand(len(y), 1, 1, 1, 1, device=y.device) >= self.drop_path).to(y.dtype)
                / (1 - self.drop_path)
            )
        return x + y


class LungResNet(nn.Module):
    """The network of `covidscan.models.lung_resnet`: windows (batch, window, slice, row, column) -> logits."""

    def __init__(self, size: str, windows: int = 3, outputs: int = 2):
        super().__init__()
        width, depths, kernels, drop_path = SIZES[size]
        rates, channels = iter(torch.linspace(0, drop_path, sum(depths)).tolist()), width
        self.depths, blocks = depths, []
        for stage, depth in enumerate(depths, 1):
            for _ in range(depth):
                blocks.append(Block(channels, width * 2**stage, kernels, next(rates)))
                channels = width * 2**stage
        stages = [width * 2**stage for stage in (1, 2, 3)]
        self.Conv3D = nn.ModuleList([_conv(4 * windows, width, (1, 3, 3), bias=True)])
        self.Block = nn.ModuleList(blocks)
        self.GroupNorm = nn.ModuleList(map(_norm, (width, *stages, 2 * width)))
        laterals = [_conv(channels, 2 * width) for channels in stages]
        self.Dense = nn.ModuleList([*laterals, _conv(2 * width, MAPS, bias=True), nn.Linear(MAPS * 4, outputs)])
        nn.init.constant_(self.Dense[3].bias, -3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits (batch, output), float32."""
        tokens = x.unflatten(4, (-1, 2)).unflatten(3, (-1, 2))  # (batch, window, slice, row, 2, column, 2)
        x = self.Conv3D[0](tokens.permute(0, 4, 6, 1, 2, 3, 5).flatten(1, 3))
        x = functional.relu(self.GroupNorm[0](x))
        pyramid, blocks = [], iter(self.Block)
        for stage, depth in enumerate(self.depths):
            slices = 2 if stage else 1
            x = functional.avg_pool3d(x, tuple(map(min, (slices, 2, 2), x.shape[2:])))
            for _ in range(depth):
                x = next(blocks)(x)
            pyramid.append(self.Dense[stage](functional.relu(self.GroupNorm[1 + stage](x))))
        y = pyramid[0]
        for coarse in pyramid[1:]:
            y = y + functional.interpolate(coarse, y.shape[2:], mode="trilinear")
        maps = self.Dense[3](functional.relu(self.GroupNorm[4](y))).float()
        return self.Dense[4](functional.dropout(_pool_highest(maps), 0.2, self.training)).float()


def _pool_highest(maps: torch.Tensor) -> torch.Tensor:
    """Pool log-odds (batch, map, slice, row, column) to the means of their highest voxels, (batch, map x share)."""
    probability = maps.flatten(2).sigmoid()
    counts = [max(1, round(share * math.prod(maps.shape[2:]))) for share in SHARES]
    highest = probability.topk(counts[-2], sorted=True).values
    means = [*(highest[..., :count].mean(-1) for count in counts[:-1]), probability.mean(-1)]
    odds = torch.stack(means, -1).clamp(1e-4, 1 - 1e-4)
    return ((odds.log() - torch.log1p(-odds) + 4) / 2).flatten(1)


def load_flax(network: LungResNet, parameters: dict) -> None:
    """Copy Flax's parameters, by names as "Block_0/Conv3D_1/kernel", into the network; none may be missing."""
    tensors = {}
    for path, value in parameters.items():
        *layers, name = path.split("/")
        tensor = torch.as_tensor(value)
        if name == "kernel":
            tensor = tensor.permute(4, 3, 0, 1, 2) if tensor.ndim == 5 else tensor.T
        if name == "kernel" and layers[-1].startswith("Dense") and layers[-1] != "Dense_4":
            tensor = tensor[..., None, None, None]
        name = "bias" if name == "bias" else "weight"
        tensors[".".join([*(layer.replace("_", ".") for layer in layers), name])] = tensor
    network.load_state_dict(tensors)
