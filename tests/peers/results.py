"""The file of results: each measure with the day, machine and versions that it was taken with."""

import datetime
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.peers.processes import PEERS, ROOT
from tests.peers.versions import versions
from tfds_mosmed.errors import UserError

PATH = Path(__file__).with_name("results.json")


def _processor() -> str:
    """Tell the processor's name and, as virtual machines hide the generation from it, its family and model."""
    first, _, _ = Path("/proc/cpuinfo").read_text().partition("\n\n")
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    generation = ", ".join(f"{key} {known[key]}" for key in ("cpu family", "model") if key in known)
    return known.get("model name", "unknown processor") + (f" ({generation})" if generation else "")


def circumstances() -> dict[str, Any]:
    """Tell day, machine and the versions of both environments."""
    peers = subprocess.run(
        [PEERS, "-m", "tests.peers.versions"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": _processor(), "cores": len(os.sched_getaffinity(0))},
        "versions": {"covidscan": versions(), "peers": json.loads(peers)},
    }


def load() -> dict[str, Any]:
    """Read what was measured so far."""
    return json.loads(PATH.read_text()) if PATH.exists() else {}


def keep(measure: str, found: Any) -> dict[str, Any]:
    """Put a measure's results into the file; those of the others stay. Gives all."""
    results = load() | {measure: circumstances() | {"found": found}}
    PATH.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return results


def found_before(measure: str) -> Any:
    """Give what a measure found so far on this machine with these versions, or None."""
    kept = load().get(measure)
    now = circumstances()
    same = kept is not None and all(kept[name] == now[name] for name in ("machine", "versions"))
    return kept["found"] if same else None


def preparation_paths() -> dict[str, Any]:
    """Give the code paths' seconds, of which the time to an AUROC is made too; raises UserError."""
    try:
        return load()["preparation"]["found"]["paths"]
    except KeyError as error:
        raise UserError(
            f"{PATH.name} holds no times of preparation, which count for auroc: run bash tests/peers/run.sh preparation"
        ) from error
