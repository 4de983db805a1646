"""What a run chooses on its validation studies, once for each checkpoint: temperature and operating threshold.

Frozen into WORKDIR/choices.json before a test study is seen; the test part only ever uses them.
"""

import dataclasses
import json
from typing import Any

import numpy as np
from etils import epath

from covidscan.config import Config
from covidscan.metrics import operating_point, tempering
from covidscan.metrics.predictions import Predictions
from covidscan.runs.workdir import write_text
from tfds_mosmed.errors import UserError

FILE = "choices.json"


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
    """The operating point of a checkpoint.

    Attributes:
      criterion: "youden", "sensitivity" or "cost"; "default" where no threshold could be chosen.
      described: the criterion in a sentence.
      threshold: a study with at least this probability, after temperature scaling, is called positive (binary) or
        graver (severity); None for the task "classes", which takes the likeliest label.
      temperature: divides the log-odds (Guo et al., ICML 2017).
      num_studies: validation studies on which these were chosen.
      step: the checkpoint.
    """

    criterion: str
    described: str
    threshold: float | None
    temperature: float
    num_studies: int
    step: int

    def apply(self, predictions: Predictions) -> Predictions:
        """Calibrate the network's own probabilities."""
        tempered = tempering.temper(predictions.task, predictions.uncalibrated, self.temperature)
        return dataclasses.replace(predictions, probability=tempered)


def choose(config: Config, validation: Predictions, step: int) -> OperatingPoint:
    """Choose temperature and threshold.

    Args:
      config: the run's flags: the criterion.
      validation: what the network said of the validation studies.
      step: the checkpoint that said it.
    """
    task = validation.task
    temperature = tempering.fit_temperature(task, validation.label, validation.uncalibrated)
    studies = len(validation.study_id)
    if task == "classes":
        described = "The likeliest label is chosen; there is no threshold."
        return OperatingPoint("default", described, None, temperature, studies, step)
    tempered = tempering.temper(task, validation.uncalibrated, temperature)
    positive, score, _ = tempering.confidence(task, validation.label, tempered)
    criterion, described = config.operating_point, _described(config)
    if not 0 < np.sum(positive) < studies:
        criterion, described = "default", "One half: the validation studies are all of one label."
    threshold = operating_point.choose_threshold(
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
    found = _read_all(epath.Path(workdir) / FILE).get(str(step))
    return None if found is None else OperatingPoint(**found)


def freeze(workdir: epath.PathLike, choices: OperatingPoint) -> None:
    """Keep what was chosen for a checkpoint. What is frozen already stays.

    Raises:
      UserError: the file is not as it was written.
      OSError: it cannot be written.
    """
    path = epath.Path(workdir) / FILE
    kept = _read_all(path)
    if str(choices.step) not in kept:
        kept[str(choices.step)] = dataclasses.asdict(choices)
        write_text(path, json.dumps(kept, indent=2) + "\n")


def _read_all(path: epath.Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        kept = json.loads(path.read_text())
        return {step: dataclasses.asdict(OperatingPoint(**choices)) for step, choices in kept.items()}
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not as training wrote it ({error}): remove it, and evaluation chooses again on the validation "
            "studies"
        ) from error
