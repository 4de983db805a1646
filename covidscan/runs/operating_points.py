"""Operating point of a checkpoint: recalibration and threshold, chosen on the validation studies.

It is frozen in WORKDIR/choices.json before any test study is predicted.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath

from covidscan.config import Config
from covidscan.metrics import metrics_json, recalibration, thresholds
from covidscan.metrics.predictions import Predictions, with_sides
from covidscan.metrics.results import OperatingPoint
from covidscan.metrics.sample_size import FEWEST_TO_CHOOSE
from covidscan.metrics.signed_json import check_signed, sign
from covidscan.runs.workdir import run_id, write_text
from tfds_mosmed import storage
from tfds_mosmed.errors import NOT_AS_WRITTEN, UserError

FILE = "choices.json"
PARAMETERS = "parameters_crc32"  # in an entry: of the networks that it was chosen for
MOST_DIFFERENT_ODDS = 2.0  # ratio of the prevalences to which the networks of an ensemble are calibrated
OUT_OF_FOLD_STEP = 0  # in the file of a cross-validation, whose networks have a step each


class Rules(NamedTuple):
    """Rules by which operating points are chosen; those of older versions are chosen again as they were.

    Attributes:
      fewest: the least studies of which a recalibration is applied, unless it is at a bound of its search. 0: every
        one is applied.
      offsets: whether offsets are fitted besides a temperature, and a threshold is chosen for each grade.
      smoothing: whether the targets are smoothed where the fit would run away, for a network without errors on them.
    """

    fewest: int = FEWEST_TO_CHOOSE
    offsets: bool = True
    smoothing: bool = True

    @classmethod
    def of(cls, point: OperatingPoint) -> "Rules":
        """Return the rules by which a point was chosen."""
        return cls(point.fewest_studies, bool(point.offsets), point.smooths_targets)


def choose(
    config: Config,
    validation: Predictions,
    step: int,
    rules: Rules = Rules(),  # noqa: B008
    tta: str = "",
) -> OperatingPoint:
    """Choose recalibration and threshold.

    Args:
      config: the run's flags, with the criterion.
      validation: the network's predictions of the validation studies.
      step: of the checkpoint that predicted them.
      rules: see `Rules`.
      tta: the set of views that the predictions are averaged over.
    """
    task, num_studies = validation.task, len(validation.study_id)
    if task == "regression":
        return OperatingPoint(
            criterion="default",
            description="The prediction is the network's output; there is no threshold."
            + (f" It is the mean over the views of --tta={tta}." if tta else ""),
            threshold=None,
            temperature=1.0,
            num_studies=num_studies,
            step=step,
            fewest_studies=rules.fewest,
            tta=tta,
            smooths_targets=rules.smoothing,
        )
    temperature, offsets, note = _recalibration(validation, rules)
    if note and temperature == 1 and not any(offsets):
        logging.warning("%s", note.strip(" ."))
    if rules.fewest and num_studies < rules.fewest and task != "classes":
        logging.warning("The threshold was chosen on %d validation studies, fewer than %d", num_studies, rules.fewest)
    if tta and (sides := with_sides(validation.label_names)):
        logging.warning("--tta=%s averages over mirror images, which exchange %s: leave it out", tta, sides)
    if tta:
        note += f" Logits are the means over the views of --tta={tta}."
    point = OperatingPoint(
        criterion="default",
        description="The likeliest label is chosen; there is no threshold." + note,
        threshold=None,
        temperature=temperature,
        num_studies=num_studies,
        step=step,
        fewest_studies=rules.fewest,
        offsets=offsets,
        tta=tta,
        smooths_targets=rules.smoothing,
    )
    if task == "classes":
        return point
    return _with_thresholds(config, point, validation.calibrated(point), each_grade=rules.offsets, note=note)


EVERY_FOLD = "all studies, each predicted by the network of its fold, which never saw it"


def choose_for_ensemble(
    config: Config, pooled: Predictions, points: Sequence[OperatingPoint], where: str = EVERY_FOLD
) -> OperatingPoint | None:
    """Choose the threshold of an ensemble, as of folds: on all studies, each predicted by a network that never saw it.

    They are several times as many as the validation studies of a fold. The pooled evaluation of these studies keeps
    each fold's own threshold, which no study of the fold has chosen.

    Args:
      config: the flags, with the criterion.
      pooled: predictions, recalibrated by each member's own point.
      points: of the members.
      where: what the predictions are of, for the description.

    Returns:
      The operating point, with step `OUT_OF_FOLD_STEP`; None for "classes" and "regression", and where a fold is of an
      older version.
    """
    if pooled.task in ("classes", "regression") or not all(point.offsets for point in points):
        return None
    # One half is the most accurate threshold where all are calibrated.
    leader = min(points, key=lambda point: point.is_recalibrated)
    found = _with_thresholds(config, leader, pooled, each_grade=True, note="")
    description = found.description.replace("the validation studies", where)
    return OperatingPoint(
        criterion=found.criterion,
        description=description,
        threshold=found.threshold,
        temperature=1.0,
        num_studies=len(pooled.study_id),
        step=OUT_OF_FOLD_STEP,
        grade_thresholds=found.grade_thresholds,
        tta=leader.tta,
    )


def with_out_of_fold(
    workdir: epath.PathLike, points: Sequence[OperatingPoint], parameters: str
) -> list[OperatingPoint]:
    """Return the points of a cross-validation's folds with the threshold that was chosen out of fold, if one was.

    Args:
      workdir: of the cross-validation.
      points: of the folds.
      parameters: of their networks, see `trained_models.restore.checksums`.

    Raises:
      UserError: its file is not as it was written.
    """
    chosen = read(workdir, OUT_OF_FOLD_STEP, points[0].tta, parameters)
    if chosen is None:
        return list(points)
    names = ("criterion", "description", "threshold", "grade_thresholds")
    return [dataclasses.replace(point, **{name: getattr(chosen, name) for name in names}) for point in points]


def _with_thresholds(
    config: Config, point: OperatingPoint, predictions: Predictions, *, each_grade: bool, note: str
) -> OperatingPoint:
    """Choose the thresholds of a point on recalibrated predictions.

    Args:
      config: the flags, with the criterion.
      point: without thresholds.
      predictions: of the studies that choose.
      each_grade: whether each question of the task "severity" has its own.
      note: added to the description.
    """
    questions = thresholds.dichotomies(predictions.task, predictions.label, predictions.probability)
    is_set, (positive, _) = predictions.task == "multilabel", questions[0]
    criterion, description = config.operating_point, _describe(config)
    if not is_set and not 0 < np.sum(positive) < len(positive):
        criterion, description = "default", "One half: the validation studies are all of one label."
    chosen = [_threshold(config, *question, is_calibrated=any(point.offsets)) for question in questions]
    grades = chosen if is_set or (predictions.task == "severity" and each_grade) else []
    if is_set:
        described = zip(predictions.label_names, grades, strict=True)
        description += f" Each label has its own: {', '.join(f'{name} {each:.3g}' for name, each in described)}."
    elif grades:
        shown = ", ".join(f"{threshold:.3g}" for threshold in grades)
        description += f" Each question “graver than a grade” has its own: {shown}."
    return dataclasses.replace(
        point,
        criterion=criterion,
        description=description + note,
        threshold=None if is_set else chosen[0],
        grade_thresholds=grades,
        prevalence=float(np.mean(positive)) if predictions.task == "binary" and any(point.offsets) else None,
    )


def _threshold(config: Config, positive: np.ndarray, score: np.ndarray, *, is_calibrated: bool) -> float:
    """Choose the threshold of a question; where probabilities are calibrated, one half is right most often."""
    if config.operating_point == "accuracy" and is_calibrated:
        return 0.5
    return float(
        thresholds.choose_threshold(
            positive,
            score,
            config.operating_point,
            target_sensitivity=config.target_sensitivity,
            cost_ratio=config.cost_ratio,
        )
    )


def _recalibration(validation: Predictions, rules: Rules) -> tuple[float, list[float], str]:
    """Fit temperature and offsets, with a sentence on smoothed targets; 1 and 0, with the reason, if not applied."""
    task, label, probability = validation.task, validation.label, validation.uncalibrated
    if rules.offsets:
        temperature, offsets = recalibration.fit(task, label, probability)
        fitted = recalibration.recalibrate(task, probability, temperature, offsets)
        refused, of = "Probabilities were not recalibrated", "the fit to"
    else:
        temperature, offsets, fitted = recalibration.fit_temperature(task, label, probability), [], probability
        refused, of = "No temperature was applied", "that of"
    # Where all are told apart, every lower temperature is likelier; the search ends where rounding hides that.
    bounded = recalibration.is_bounded(temperature, offsets)
    runs_away = temperature < 1 and (bounded or bool((thresholds.decide(task, fitted, 0.5) == label).all()))
    if runs_away and len(label) >= rules.fewest and rules.offsets and rules.smoothing:
        temperature, offsets = recalibration.fit(task, label, probability, smoothed=True)
        if not recalibration.is_bounded(temperature, offsets):
            note = (
                " Targets of the recalibration were smoothed: the validation studies are told apart without an error."
            )
            return temperature, offsets, note
    reason = ""
    if len(label) < rules.fewest:
        reason = f" {refused}: {len(label)} validation studies are fewer than {rules.fewest}."
    elif rules.fewest and (runs_away or bounded):
        reason = f" {refused}: {of} the validation studies is at the bound of its search."
    return (1.0, [0.0] * len(offsets), reason) if reason else (temperature, offsets, "")


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
        "accuracy": (
            "The threshold with the highest accuracy on the validation studies: one half where probabilities are "
            "recalibrated on them."
        ),
    }[config.operating_point]


def mean_threshold(points: Sequence[OperatingPoint]) -> float | None:
    """Return the threshold of an ensemble, the mean of its networks'; None for a task without thresholds."""
    found = [point.threshold for point in points if point.threshold is not None]
    return found[0] if len(set(found)) == 1 else float(np.mean(found)) if found else None


def mean_grade_thresholds(points: Sequence[OperatingPoint]) -> list[float]:
    """Return those of an ensemble, the means of its networks'; none where none has any."""
    questions = max(len(point.grade_thresholds) for point in points)
    every = np.asarray([point.grade_thresholds or [point.threshold] * questions for point in points], np.float64)
    return [float(mean) for mean in np.mean(every, axis=0)] if questions else []


def mean_prevalence(points: Sequence[OperatingPoint]) -> float | None:
    """Return the prevalence that an ensemble is calibrated to.

    None where that of a network is not known, or their odds differ so much that the mean is that of none of them.
    """
    found = [point.prevalence for point in points if point.prevalence is not None]
    odds = [prevalence / (1 - prevalence) for prevalence in found]
    if len(found) < len(points) or max(odds) > MOST_DIFFERENT_ODDS * min(odds):
        return None
    return float(np.mean(found))


class _Frozen(NamedTuple):
    """An entry of the file: a point and the checksum of its network, None where an earlier version wrote it."""

    point: OperatingPoint
    parameters: str | None

    def is_of(self, parameters: str | None) -> bool:
        """Return whether the point was chosen for this network, as far as is known."""
        return None in (self.parameters, parameters) or self.parameters == parameters


def read(workdir: epath.PathLike, step: int, tta: str = "", parameters: str | None = None) -> OperatingPoint | None:
    """Read the frozen operating point of a checkpoint and a set of views.

    Args:
      workdir: the run.
      step: of the checkpoint.
      tta: the set of views; "": none.
      parameters: of its network, see `checkpoints.parameters_checksum`; None: of whatever network.

    Returns:
      The operating point; None where there is none, and, with a warning, where it is of another network, as after a
      checkpoint was removed and trained again.

    Raises:
      UserError: the file is not as it was written.
    """
    path = epath.Path(workdir) / FILE
    found = _read_all(path).get(_key(step, tta))
    if found is None:
        return None
    if not found.is_of(parameters):
        logging.warning(
            "%s: what was chosen for step %d is of another network than is there now: it is not used",
            path,
            step,
        )
        return None
    return found.point


def newest_step(workdir: epath.PathLike) -> int | None:
    """Return the step of the newest checkpoint that has one; None where none has. Raises UserError, see `read`."""
    return max((each.point.step for each in _read_all(epath.Path(workdir) / FILE).values()), default=None)


def freeze(workdir: epath.PathLike, point: OperatingPoint, parameters: str | None = None) -> None:
    """Write the operating point of a checkpoint; one that is frozen already for its network is not changed.

    Args:
      workdir: the run.
      point: the operating point.
      parameters: of the network, see `checkpoints.parameters_checksum`; None: not known.

    Raises:
      UserError: the file is not as it was written.
      OSError: the file cannot be written.
    """
    path = epath.Path(workdir) / FILE
    with storage.exclusive(path):
        frozen = _read_all(path)
        key = _key(point.step, point.tta)
        if key not in frozen or not frozen[key].is_of(parameters):
            frozen[key] = _Frozen(point, parameters)
            entries = {
                key: metrics_json.dump(each.point) | ({PARAMETERS: each.parameters} if each.parameters else {})
                for key, each in frozen.items()
            }
            signed = {key: sign(entry, run_id(workdir)) for key, entry in entries.items()}
            write_text(path, json.dumps(signed, indent=2) + "\n")


def _key(step: int, tta: str) -> str:
    """Return the name of a point in the file."""
    return f"{step}+{tta}" if tta else str(step)


def _check(key: str, point: OperatingPoint) -> None:
    """Raise ValueError or TypeError where a point cannot be what was chosen for a step and a set of views."""
    if _key(point.step, point.tta) != key or not isinstance(point.num_studies, int):
        raise ValueError(f"step {key} has {point}")
    if not 0 < point.temperature < math.inf or not (point.threshold is None or 0 <= point.threshold < math.inf):
        raise ValueError(f"threshold {point.threshold}, temperature {point.temperature}")
    if not all(map(math.isfinite, [*point.offsets, *point.grade_thresholds])):
        raise ValueError(f"offsets {point.offsets}, thresholds {point.grade_thresholds}")
    if not (point.prevalence is None or 0 < point.prevalence < 1):
        raise ValueError(f"prevalence {point.prevalence}")
    if not isinstance(point.criterion, str) or not isinstance(point.description, str):
        raise TypeError("a text is missing")


def _read_all(path: epath.Path) -> dict[str, _Frozen]:
    if not path.exists():
        return {}
    owner = run_id(path.parent)
    try:
        content = json.loads(path.read_bytes())
        entries = {
            step: check_signed(entry, f"what was chosen for step {step}", owner) for step, entry in content.items()
        }
        parameters = {step: entry.pop(PARAMETERS, None) for step, entry in entries.items()}
        points = metrics_json.load(dict[str, OperatingPoint], entries)
        for step, point in points.items():
            _check(step, point)
            if not isinstance(parameters[step], str | None):
                raise TypeError(f"step {step} has {PARAMETERS} {parameters[step]}")
        return {step: _Frozen(point, parameters[step]) for step, point in points.items()}
    except NOT_AS_WRITTEN as error:
        raise UserError(
            f"{path} is not as training wrote it ({error}): remove it, and evaluation chooses again on the validation "
            "studies"
        ) from error
