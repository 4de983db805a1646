"""Preparation of one real study by each system's code path, on one core, and by ours in two processes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib

from tests.peers.processes import System, alternate, summary
from tfds_mosmed.errors import UserError

ROUNDS, AT_LEAST_SECONDS = 7, 1.0
STUDY = "nifti/covid/P001.nii.gz"  # in the folder of real studies that the tests use too


class _Path(NamedTuple):
    """Code path: its name in the table and in the system's process, and the task of ours that it is compared with."""

    name: str
    task: str
    ours: str


# Peers prepare the whole field of view, as our *_full grids do; our other grids first segment the lungs.
SMALL, LARGE = "64x64x32_full", "128x128x32_full"
OURS = (
    _Path("CovidScan, 64x64x32_full", SMALL, SMALL),
    _Path("CovidScan, 128x128x32_full", LARGE, LARGE),
    _Path("CovidScan, 128x128x32, cropped to the lungs", "128x128x32", LARGE),
    _Path("CovidScan, 128x128x32, as a record", "record", LARGE),
    _Path("igzip alone (the limit)", "igzip", LARGE),
)
PEERS = (
    _Path("the original CovidScan, 64x64x32", "covidscan_original", SMALL),
    _Path("Keras example, 128x128x64", "keras_example", LARGE),
    _Path("MONAI, 128x128x32", "monai", LARGE),
    _Path("TorchIO, 128x128x32", "torchio", LARGE),
)


def real_study() -> Path:
    """Find the real study that COVIDSCAN_REAL_CT names.

    Raises:
      UserError: it names none.
    """
    given = os.environ.get("COVIDSCAN_REAL_CT", "")
    path = Path(given) if given.endswith(".nii.gz") else Path(given, STUDY)
    if not given or not path.is_file():
        raise UserError(
            f"COVIDSCAN_REAL_CT={given}: set it to a chest CT as .nii.gz, or to a folder that contains {STUDY}"
        )
    return path.resolve()


def measure(rounds: int = ROUNDS, at_least: float = AT_LEAST_SECONDS) -> Iterator[dict[str, Any]]:
    """Time every code path, alternating.

    Yields:
      Once: the study's shape and compressed bytes; the seconds of each code path and the ratio to ours on its grid; the
      seconds of eight studies in one process and in two.
    """
    path = real_study()
    settings = {"path": str(path)}
    ours = System("ours", "covidscan_preparation", "one_core", settings, peer=False, one_core=True)
    peers = [System(peer.task, "peer_preparation", peer.task, settings, one_core=True) for peer in PEERS]
    systems = [(ours, [one.task for one in OURS]), *((peer, ["prepare"]) for peer in peers)]
    seconds = alternate(systems, rounds=rounds, at_least=at_least)
    found = {one.name: summary(seconds["ours", one.task], seconds["ours", one.ours]) for one in OURS}
    found |= {peer.name: summary(seconds[peer.task, "prepare"], seconds["ours", peer.ours]) for peer in PEERS}
    pools = System("pools", "covidscan_preparation", "processes", settings, peer=False)
    in_pools = alternate([(pools, ["1", "2"])], rounds=rounds, at_least=at_least)
    one, two = in_pools["pools", "1"], in_pools["pools", "2"]
    yield {
        "study": {"shape": list(nib.load(path).shape), "bytes": path.stat().st_size},
        "paths": found,
        "processes": {"1": summary(one, two), "2": summary(two)},
    }
