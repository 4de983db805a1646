"""Description of an exported model: the content of model.json without the hashes of the files."""

import importlib.metadata
import platform
from typing import Any

import jax
from jax import export as jax_export

from covidscan.config import WITH_FOLDS
from covidscan.metrics import metrics_json
from covidscan.metrics.results import OperatingPoint
from covidscan.runs.workdir import PACKAGES
from covidscan.trained_models.ensemble import Ensemble
from covidscan.trained_models.model_info import ModelInfo
from covidscan.trained_models.restore import RestoredModel
from covidscan.version import code_version
from tfds_mosmed.facts import load_facts
from tfds_mosmed.preprocessing import lung_region
from tfds_mosmed.preprocessing.grid import FIXED_MM, Grid
from tfds_mosmed.preprocessing.prepare import HIGHEST_HU, LOWEST_HU

AXES = {"slice": "feet to head", "row": "front to back", "column": "the patient's right to left"}


def describe(ensemble: Ensemble, computation: jax_export.Exported) -> dict[str, Any]:
    """Return the description of an ensemble and its computation as a dict for JSON, without any path."""
    info = ensemble.info
    return {
        "model": info.to_json(),
        "input": {
            "dtype": "int16",
            "unit": "HU",
            "shape": ["batch", *info.volume_shape],
            "axes": ["batch", *AXES],
            "axes_grow": AXES,
        },
        "output": {
            "dtype": "float32",
            "shape": ["batch", len(info.label_names)],
            "meaning": _meaning(info),
            "decision": _decision(info),
        },
        "preparation": _preparation(Grid.parse(info.grid)),
        "computation": {
            "platforms": list(computation.platforms),
            "calling_convention_version": computation.calling_convention_version,
            "dtype": ", ".join(sorted({exported_dtype(member) for member in ensemble.members})),
            "matmul_precision": "highest",
            "inside": "HU windows, networks, recalibration and the mean over the networks"
            + (f", with logits averaged over the views of --tta={info.tta}." if info.tta else "."),
        },
        "networks": [_network(*one) for one in zip(ensemble.members, ensemble.operating_points, strict=True)],
        "licences": {
            "code": "Apache-2.0",
            "training_data": {
                name: load_facts(name).get("licence", "Not known: that of the studies' owner.")
                for name in sorted({member.run["data"]["dataset"] for member in ensemble.members})
            },
        },
        "use": "Research only, not for diagnosis.",
        "code_version": code_version(),
        "python_version": platform.python_version(),
        "package_versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def exported_dtype(member: RestoredModel) -> str:
    """Return the dtype in which an exported network computes: its own, or float32 where it was that of each machine."""
    return "float32" if member.experiment.config.dtype == "auto" else member.experiment.config.dtype


def _meaning(info: ModelInfo) -> str:
    if info.task == "regression":
        return "The predicted number, in the unit of the training labels; the mean over the networks."
    return "Calibrated probability of each label; the mean over the networks."


def _decision(info: ModelInfo) -> str:
    if info.task == "regression":
        return "None: the number is the prediction."
    if info.task == "multilabel":
        return f"Each label whose probability is at least its threshold, {', '.join(map(str, info.grade_thresholds))}."
    if info.task == "classes":
        return "The most probable label."
    if info.grade_thresholds:
        listed = ", ".join(map(str, info.grade_thresholds))
        return (
            f"The highest label k for which the probabilities of 1 to k or more severe are at least {listed}, in turn."
        )
    if info.task == "severity":
        return f"The highest label k for which the probability of k or more severe is at least {info.threshold}."
    return f"Label 1 if its probability is at least {info.threshold}, else label 0."


def _network(member: RestoredModel, point: OperatingPoint) -> dict[str, Any]:
    config, run = member.experiment.config, member.run
    return {
        "name": config.model,
        "numbers": sum(leaf.size for leaf in jax.tree.leaves(member.variables)),
        "trained_on": run["data"]["dataset"],
        "fingerprint": run["data"]["fingerprint"],
        "split_hash": run["data"]["split_hash"],
        "fold": config.fold if config.protocol in WITH_FOLDS else None,
        "seed": config.seed,
        "operating_point": metrics_json.dump(point),
        "code_version": run["code_version"],
        "package_versions": run["package_versions"],
    }


def _preparation(grid: Grid) -> dict[str, Any]:
    """Return the steps of `tfds_mosmed.preprocessing.prepare`, so that they can be implemented elsewhere."""
    feet, head = lung_region.FEET_MARGIN_MM, lung_region.MARGIN_MM[0]
    front, back = lung_region.MARGIN_MM[1], lung_region.BACK_MARGIN_MM
    side = lung_region.MARGIN_MM[2]
    field = {
        "full": {"name": "full", "what": "The whole field of view."},
        "fixed": {
            "name": "fixed",
            "what": "A box of these mm about the middle of the lungs' box, see the field of other grids and "
            "tfds_mosmed.preprocessing.lung_region.find_lung_box; what lies outside of the scan is air.",
            "mm": dict(zip(("slices", "rows", "columns"), FIXED_MM, strict=True)),
        },
        "lungs": {
            "name": "lungs",
            "what": "The box of both lungs with a margin, symmetric about the middle of the body, see "
            "tfds_mosmed.preprocessing.lung_region.find_lung_box; the box of the body where no lungs are found.",
            "margin_mm": {"feet": feet, "head": head, "front": front, "back": back, "right": side, "left": side},
        },
    }[grid.field]
    return {
        "code": "tfds_mosmed.preprocessing.prepare.prepare",
        "grid": {"slices": grid.slices, "rows": grid.rows, "columns": grid.columns},
        "order": "Reorient to the axes of the input without interpolation, crop to the field, clip, resize, round.",
        "field": field,
        "clip_hu": [LOWEST_HU, HIGHEST_HU],
        "resize": {
            "method": "triangle filter, anti-aliased, one axis after the other, float32",
            "centre_of_new_pixel": "(i + 0.5) * size / new_size - 0.5, in old pixels",
            "half_width": "one pixel of the coarser of the two grids",
            "edges": "weights normalised over the pixels inside",
            "same_as": 'jax.image.resize(method="linear", antialias=True)',
        },
        "rounding": "to the nearest whole HU, halves to even",
    }
