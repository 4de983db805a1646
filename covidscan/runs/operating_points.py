"""What a run chooses on its validation studies, once for each checkpoint: temperature and operating threshold.

Frozen into WORKDIR/choices.json before a test study is seen; the test part only ever uses them.
"""

import json

import numpy as np
from etils import epath

from covidscan.config import Config
from covidscan.metrics import calibration, metrics_json, thresholds
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import OperatingPoint
from covidscan.runs.workdir import write_text
from tfds_mosmed.errors import UserError

FILE = "choices.json"


def choose(config: Config, validation: Predictions, step: int) -> OperatingPoint:
    """Choose temperature and threshold.

    Args:
      config: the run's flags: the criterion.
      validation: what the network said of the validation studies.
      step: the checkpoint that said it.
    """
    task = validation.task
    temperature = calibration.fit_temperature(task, validation.label, validation.uncalibrated)
    studies = len(validation.study_id)
    if task == "classes":
        described = "The likeliest label is chosen; there is no threshold."
        return OperatingPoint("default", described, None, temperature, studies, step)
    tempered = calibration.scale_by_temperature(task, validation.uncalibrated, temperature)
    positive, score, _ = calibration.binarize(task, validation.label, tempered)
    criterion, described = config.operating_point, _described(config)
    if not 0 < np.sum(positive) < studies:
        criterion, described = "default", "One half: the validation studies are all of one label."
    threshold = thresholds.choose_threshold(
        positive,
        score,
        config.operating_point,
        target_sensitivity=config.target_sensitivity,
        cost_ratio=config.cost_ratio,
    )
    return OperatingPoint(criterion, described, float(threshold), temperature, studies, step)


def _described(config: Config) -> str:
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


def read(workdir: epath.PathLike, step: int) -> OperatingPoint | None:
    """Read what was frozen for a checkpoint; None where nothing was.

    Raises:
      UserError: the file is not as it was written.
    """
    return _read_all(epath.Path(workdir) / FILE).get(str(step))


def freeze(workdir: epath.PathLike, choices: OperatingPoint) -> None:
    """Keep what was chosen for a checkpoint. What is frozen already stays.

    Raises:
      UserError: the file is not as it was written.
      OSError: it cannot be written.
    """
    path = epath.Path(workdir) / FILE
    kept = _read_all(path)
    if str(choices.step) not in kept:
        kept[str(choices.step)] = choices
        write_text(path, json.dumps(metrics_json.dump(kept), indent=2) + "\n")


def _read_all(path: epath.Path) -> dict[str, OperatingPoint]:
    if not path.exists():
        return {}
    try:
        return metrics_json.load(dict[str, OperatingPoint], json.loads(path.read_text()))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not as training wrote it ({error}): remove it, and evaluation chooses again on the validation "
            "studies"
        ) from error
