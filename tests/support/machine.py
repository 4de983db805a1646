"""The machine that runs the benchmarks."""

import os
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Return the processor and the number of usable cores."""
    return {"processor": _processor(), "cores": len(os.sched_getaffinity(0))}


def _processor() -> str:
    """Return the processor's name with its family and model, as virtual machines hide the generation in the name."""
    first, _, _ = Path("/proc/cpuinfo").read_text().partition("\n\n")
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    generation = ", ".join(f"{key} {known[key]}" for key in ("cpu family", "model") if key in known)
    return known.get("model name", "unknown processor") + (f" ({generation})" if generation else "")
