"""Conversion of the results into the tables of tests/peers/README.md."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfds_mosmed.errors import UserError

BEGIN, END = "<!-- performance: begin -->", "<!-- performance: end -->"
NETWORKS = {
    "covidscan_cnn": "the original CovidScan's",
    "keras_example": "the Keras example's",
    "default": "each its own",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(value: float) -> str:
    """Format with three significant digits and without an exponent."""
    return f"{value:.{max(0, 2 - _exponent(value))}f}"


def _exponent(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


def _ratio(found: dict[str, float]) -> str:
    return f" ({found['ratio']:.2f}x)" if found["ratio"] != 1 else ""


def _step(found: dict[str, float]) -> str:
    return f"{number(found['median'])} s{_ratio(found)}"


def _rate(found: dict[str, float], batch_size: int) -> str:
    return f"{number(batch_size / found['median'])}/s{_ratio(found)}"


def _steps_table(rows: list[dict[str, Any]]) -> str:
    systems = list(rows[0]["systems"])
    head = [
        "network, volume, batch",
        *(f"{name}: step" for name in systems),
        *(f"{name}: inference" for name in systems),
    ]
    cells = []
    for row in rows:
        size, timed = row["batch_size"], row["systems"].values()
        case = f"{NETWORKS[row['network']]}, {row['grid']}, {size}"
        training = [_step(system["train"]) for system in timed]
        cells.append([case, *training, *(_rate(system["predict"], size) for system in timed)])
    return table(head, cells)


def _steps(found: list[dict[str, Any]]) -> str:
    same = [row for row in found if row["network"] != "default"]
    default = [row for row in found if row["network"] == "default"]
    return (
        "**Training step** (forward, backward, Adam, float32, data in host memory) in seconds, and **inference** in "
        "volumes per second. In parentheses: the time as a multiple of CovidScan's, the median of the ratios within "
        "each round. The first table compares the same network in three frameworks, all without augmentation; the "
        "second one the default network with MONAI's. Keras runs without XLA and PyTorch in its channels-last format, "
        "the faster option of each on CPUs. The Keras example's convolutions are padded, because without padding they "
        "need 46 slices." + "".join(f"\n\n{_steps_table(rows)}" for rows in (same, default) if rows)
    )


def _preparation(found: dict[str, Any]) -> str:
    rows = [
        [name, f"{number(1 / path['median'])}", f"{number(path['median'])} s", f"{path['ratio']:.2f}x"]
        for name, path in found["paths"].items()
    ]
    gain = found["processes"]["1"]["ratio"]
    size = " x ".join(map(str, found["study"]["shape"]))
    return (
        f"**Preparation** of one real study ({size} voxels, {found['study']['bytes'] / 1e6:.0f} MB gzipped) on one "
        "core, from file to grid. The ratio is to CovidScan on the grid nearest to the system's own; like theirs, that "
        "grid covers the whole field of view. CovidScan's default grids crop to the lungs, which the other systems do "
        "not segment.\n\n"
        + table(["code path", "volumes/s per core", "per study", "multiple of CovidScan's time"], rows)
        + f"\n\nTwo processes prepare {gain:.2f} times as many studies per second as one."
    )


def _time(run: dict[str, Any], target: str, ours: float | None) -> str:
    at = run["reached"][target]
    if at is None and run["finished"]:
        return f"not in {run['ended']:.0f} s"
    shown = f"> {run['ended']:.0f} s" if at is None else f"{at:.0f} s"
    if ours is None:
        return shown
    return f"{shown} ({'> ' if at is None else ''}{(at or run['ended']) / ours:.1f}x)"


def _auroc(found: dict[str, Any]) -> str:
    first = found["runs"][0]
    targets = list(first["reached"])
    rows = [
        [
            run["system"],
            f"{run['preparation']:.0f} s",
            *(
                _time(run, target, None if run["system"] == first["system"] else first["reached"][target])
                for target in targets
            ),
            f"{max(auroc for _, auroc in run['evaluations']):.3f} ({len(run['evaluations'])})"
            if run["evaluations"]
            else "none",
        ]
        for run in found["runs"]
    ]
    return (
        "**Time to a target AUROC** on the phantoms (`ct_phantom/demo`, 140 training studies, evaluated after each "
        "epoch on the 60 others): from the preparation of the first study to the first of two consecutive evaluations "
        "at or above the target, including imports, compilation and evaluations. Preparation counts the seconds of a "
        f"real study above, for {found['studies']} studies, in as many processes as the system's published program "
        "uses. The other systems train by their published recipes and are stopped at no less than "
        f"{found['cap']:g} times CovidScan's time. CovidScan's default network also learns from the phantoms' lesion "
        "masks, as it does wherever a data set has them; one row is without them. CovidScan runs first and last. The "
        "original CovidScan's network is trained on its own grid, 64x64x32, made of the same records, the others on "
        "128x128x32. MONAI's DenseNet121 has the learning rate of MONAI's tutorial, 1e-5; its ResNet-18, which has no "
        "tutorial, that of the Keras example, 1e-4."
        "\n\n"
        + table(["system", "preparation", *(f"AUROC {target}" for target in targets), "best AUROC (evaluations)"], rows)
    )


WRITERS = {"steps": _steps, "preparation": _preparation, "auroc": _auroc}


def _circumstances(measure: dict[str, Any]) -> str:
    machine, versions = measure["machine"], measure["versions"]
    listed = [
        ", ".join(f"{name} {version}" for name, version in versions[environment].items())
        for environment in ("covidscan", "peers")
    ]
    return (
        f"{measure['date']}, {machine['cores']} cores of {machine['processor']}. CovidScan: {listed[0]}. "
        f"Peers: {listed[1]}."
    )


def performance(results: dict[str, Any]) -> str:
    """Format all measures as Markdown; consecutive measures of one day, machine and versions share a line about it."""
    parts: list[str] = []
    known = [name for name in WRITERS if name in results]
    for index, name in enumerate(known):
        parts.append(WRITERS[name](results[name]["found"]))
        line = _circumstances(results[name])
        following = known[index + 1 : index + 2]
        if not following or _circumstances(results[following[0]]) != line:
            parts.append(line)
    return "\n\n".join(parts)


def write_readme(path: Path, results: dict[str, Any]) -> None:
    """Replace the tables between the two marks of a README.

    Raises:
      UserError: it has no marks.
    """
    text = path.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{path.name}: put the lines {BEGIN} and {END} where the tables belong")
    path.write_text(f"{before}{BEGIN}\n{performance(results)}\n{END}{after}")
