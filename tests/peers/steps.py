"""Training step and inference: the same networks in three frameworks, and the default network with MONAI's."""

import itertools
from collections.abc import Iterator
from typing import Any

from tests.peers.processes import System, alternate, summary

GRIDS = {"64x64x32": (32, 64, 64), "128x128x32": (32, 128, 128)}  # rows x columns x slices -> (slice, row, column)
BATCH_SIZES = (2, 8)
SAME = ("covidscan_cnn", "keras_example")
ALONE_IN_MEMORY = ("covidscan_cnn", "128x128x32")  # 354 million parameters: up to 14 GB a process
ROUNDS, ROUNDS_ALONE, AT_LEAST_SECONDS = 5, 3, 2.0
TASKS = ("train", "predict")

Row = dict[str, Any]


def _ours(name: str, case: dict[str, Any], network: str, augmented: bool = False) -> System:
    settings = case | {"network": network, "augmented": augmented}
    return System(name, "covidscan_system", "steps", settings, peer=False)


def _peer(name: str, case: dict[str, Any], network: str) -> System:
    module = "keras_system" if name == "Keras" else "torch_system"
    return System(name, module, "steps", case | {"network": network})


def groups(grid: str, batch_size: int) -> dict[str, list[System]]:
    """Return the systems that alternate at a grid and batch size: network -> systems, ours first."""
    case = {"shape": GRIDS[grid], "batch_size": batch_size}
    found = {
        network: [
            _ours("CovidScan", case, network),
            _peer("Keras", case, network),
            _peer("PyTorch", case, network),
        ]
        for network in SAME
    }
    found["default"] = [
        _ours("lung_resnet", case, "lung_resnet"),
        _ours("lung_resnet, augmented", case, "lung_resnet", augmented=True),
        _peer("DenseNet121", case, "monai_densenet121"),
        _peer("ResNet-18", case, "monai_resnet18"),
    ]
    return found


def measure(
    grids=tuple(GRIDS), batch_sizes=BATCH_SIZES, at_least: float = AT_LEAST_SECONDS, before: list[Row] | None = None
) -> Iterator[list[Row]]:
    """Time every group, one after the other, its systems alternating.

    Args:
      grids: of GRIDS.
      batch_sizes: examples per step.
      at_least: seconds that a task is repeated for in a round.
      before: last value of an earlier call, which is continued if it was interrupted.

    Yields:
      After each group the rows so far, one per network, grid and batch size: for each system the seconds of a training
      step and of an inference.
    """
    asked = [
        (network, grid, batch_size, systems)
        for grid, batch_size in itertools.product(grids, batch_sizes)
        for network, systems in groups(grid, batch_size).items()
    ]
    rows = before if before and len(before) < len(asked) else []
    for network, grid, batch_size, systems in asked[len(rows) :]:
        together = (network, grid) != ALONE_IN_MEMORY
        rounds = ROUNDS if together else ROUNDS_ALONE
        seconds = alternate(
            [(system, TASKS) for system in systems], rounds=rounds, at_least=at_least, together=together
        )
        ours = systems[0].name
        timed = {
            system.name: {task: summary(seconds[system.name, task], seconds[ours, task]) for task in TASKS}
            for system in systems
        }
        rows.append({"network": network, "grid": grid, "batch_size": batch_size, "systems": timed})
        print(network, grid, batch_size, {name: found["train"] for name, found in timed.items()}, flush=True)
        yield rows
