"""Operating point of a checkpoint: temperature and threshold, chosen on the validation studies.

It is frozen in WORKDIR/choices.json before any test study is predicted.
"""

import json
import math
from collections.abc import Sequence

import numpy as np
from absl import logging
from etils import epath

from covidscan.config import Config
from covidscan.metrics import calibration, metrics_json, thresholds
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import OperatingPoint
from covidscan.metrics.sample_size import FEWEST_TO_CHOOSE
from covidscan.metrics.signed_json import check_signed, sign
from covidscan.runs.workdir import run_id, write_text
from tfds_mosmed import storage
from tfds_mosmed.errors import NOT_AS_WRITTEN, UserError

FILE = "choices.json"


def choose(config: Config, validation: Predictions, step: int, fewest: int = FEWEST_TO_CHOOSE) -> OperatingPoint:
    """Choose temperature and threshold.

    Args:
      config: the run's flags, with the criterion.
      validation: the network's predictions of the validation studies.
      step: of the checkpoint that predicted them.
      fewest: the least studies of which a temperature is applied, unless it is at a bound of its search: for a network
        without errors on them it would run to 0. 0: every temperature is applied.
    """
    task = validation.task
    temperature = calibration.fit_temperature(task, validation.label, validation.uncalibrated)
    num_studies = len(validation.study_id)
    decision = thresholds.decide(task, validation.uncalibrated, 0.5)
    note = "" if fewest == 0 else _not_applied(temperature, decision == validation.label, fewest)
    if note:
        temperature = 1.0
        logging.warning("%s", note.strip())
    if fewest and num_studies < fewest and task != "classes":
        logging.warning("The threshold was chosen on %d validation studies, fewer than %d", num_studies, fewest)
    if task == "classes":
        description = "The likeliest label is chosen; there is no threshold."
        return OperatingPoint("default", description + note, None, temperature, num_studies, step, fewest)
    calibrated = calibration.scale_by_temperature(task, validation.uncalibrated, temperature)
    positive, score, _ = calibration.binarize(task, validation.label, calibrated)
    criterion, description = config.operating_point, _describe(config)
    if not 0 < np.sum(positive) < num_studies:
        criterion, description = "default", "One half: the validation studies are all of one label."
    threshold = thresholds.choose_threshold(
        positive,
        score,
        config.operating_point,
        target_sensitivity=config.target_sensitivity,
        cost_ratio=config.cost_ratio,
    )
    return OperatingPoint(criterion, description + note, float(threshold), temperature, num_studies, step, fewest)


def _not_applied(temperature: float, right: np.ndarray, fewest: int) -> str:
    """Return why a temperature is not applied, as a sentence; empty where it is."""
    if len(right) < fewest:
        return f" No temperature was applied: {len(right)} validation studies are fewer than {fewest}."
    low, high = calibration.MIN_TEMPERATURE * 1.001, calibration.MAX_TEMPERATURE / 1.001
    # Without an error every lower temperature is likelier; the search ends where rounding hides that.
    if not low < temperature < high or (temperature < 1 and right.all()):
        return " No temperature was applied: that of the validation studies is at the bound of its search."
    return ""


def _describe(config: Config) -> str:
    return {
        "youden": "The threshold with the highest sensitivity + specificity (Youden's J) on the validation studies.",
        "sensitivity": (
            f"The highest threshold with a sensitivity of at least {config.target_sensitivity:g} on the validation "
            "studies."
        ),
        "cost": (
            "The threshold with the lowest cost on the validation studies, a false negative costing "
            f"{config.cost_ratio:g} times as much as a false positive."
        ),
    }[config.operating_point]


def mean_threshold(points: Sequence[OperatingPoint]) -> float | None:
    """Return the threshold of an ensemble, the mean of its networks'; None for the task "classes"."""
    thresholds = [point.threshold for point in points if point.threshold is not None]
    return float(np.mean(thresholds)) if thresholds else None


def read(workdir: epath.PathLike, step: int) -> OperatingPoint | None:
    """Read the frozen operating point of a checkpoint; None where there is none.

    Raises:
      UserError: the file is not as it was written.
    """
    return _read_all(epath.Path(workdir) / FILE).get(str(step))


def newest_step(workdir: epath.PathLike) -> int | None:
    """Return the step of the newest checkpoint that has one; None where none has. Raises UserError, see `read`."""
    return max(map(int, _read_all(epath.Path(workdir) / FILE)), default=None)


def freeze(workdir: epath.PathLike, point: OperatingPoint) -> None:
    """Write the operating point of a checkpoint; one that is frozen already is not changed.

    Raises:
      UserError: the file is not as it was written.
      OSError: the file cannot be written.
    """
    path = epath.Path(workdir) / FILE
    with storage.exclusive(path):
        points = _read_all(path)
        if str(point.step) not in points:
            points[str(point.step)] = point
            signed = {step: sign(entry, run_id(workdir)) for step, entry in metrics_json.dump(points).items()}
            write_text(path, json.dumps(signed, indent=2) + "\n")


def _check(step: str, point: OperatingPoint) -> None:
    """Raise ValueError or TypeError where a point cannot be what was chosen for a step."""
    if str(point.step) != step or not isinstance(point.num_studies, int):
        raise ValueError(f"step {step} has {point}")
    if not 0 < point.temperature < math.inf or not (point.threshold is None or 0 <= point.threshold < math.inf):
        raise ValueError(f"threshold {point.threshold}, temperature {point.temperature}")
    if not isinstance(point.criterion, str) or not isinstance(point.description, str):
        raise TypeError("a text is missing")


def _read_all(path: epath.Path) -> dict[str, OperatingPoint]:
    if not path.exists():
        return {}
    owner = run_id(path.parent)
    try:
        content = json.loads(path.read_bytes())
        entries = {
            step: check_signed(entry, f"what was chosen for step {step}", owner) for step, entry in content.items()
        }
        points = metrics_json.load(dict[str, OperatingPoint], entries)
        for step, point in points.items():
            _check(step, point)
        return points
    except NOT_AS_WRITTEN as error:
        raise UserError(
            f"{path} is not as training wrote it ({error}): remove it, and evaluation chooses again on the validation "
            "studies"
        ) from error
