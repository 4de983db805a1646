"""File of the results: each measure with its date, machine and package versions."""

import datetime
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.peers.processes import PEERS, ROOT
from tests.peers.versions import versions
from tests.support.machine import machine
from tfds_mosmed.errors import UserError

PATH = Path(__file__).with_name("results.json")


def circumstances() -> dict[str, Any]:
    """Return date, machine and the versions of both environments."""
    peers = subprocess.run(
        [PEERS, "-m", "tests.peers.versions"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": {"covidscan": versions(), "peers": json.loads(peers)},
    }


def load() -> dict[str, Any]:
    """Read all results so far."""
    return json.loads(PATH.read_text()) if PATH.exists() else {}


def keep(measure: str, found: Any) -> dict[str, Any]:
    """Store a measure's results in the file beside those of the others; return all."""
    results = load() | {measure: circumstances() | {"found": found}}
    PATH.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return results


def found_before(measure: str) -> Any:
    """Return the results of a measure on this machine with these versions, or None."""
    kept = load().get(measure)
    now = circumstances()
    same = kept is not None and all(kept[name] == now[name] for name in ("machine", "versions"))
    return kept["found"] if same else None


def preparation_paths() -> dict[str, Any]:
    """Return the seconds of each code path, which count towards the time to an AUROC; raise UserError without any."""
    try:
        return load()["preparation"]["found"]["paths"]
    except KeyError as error:
        raise UserError(
            f"{PATH.name} has no preparation times, which auroc needs: run bash tests/peers/run.sh preparation"
        ) from error
