"""Absolute scale of a run's saliency maps, fixed on its validation studies.

Scaled to its own maximum, the map of a normal study is as bright as that of a diseased one. A map says where the
evidence lies, and its values depend on how far it spreads; how strong it is, the log-odds of the label say. So maps are
shown as shares of their maximum times a strength, which is 0 up to the log-odds of validation studies without it.
"""

import json
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath

from covidscan.data.dataset import Dataset
from covidscan.distributed import processes
from covidscan.metrics import thresholds
from covidscan.metrics.calibration import to_log_odds
from covidscan.metrics.results import OperatingPoint
from covidscan.metrics.signed_json import check_signed, sign
from covidscan.runs.checkpoints import parameters_checksum
from covidscan.runs.operating_points import PARAMETERS
from covidscan.runs.workdir import run_id, write_text
from covidscan.trained_models.ensemble import Ensemble
from covidscan.trained_models.restore import RestoredModel
from tfds_mosmed import storage
from tfds_mosmed.errors import NOT_AS_WRITTEN, UserError
from tfds_mosmed.progress import announce

FILE = "explanation.json"
FLOOR_QUANTILE = 0.95  # of validation studies without the label, whose maps are to show nothing
MIN_RANGE = 1.0  # log-odds, from no strength to full strength


class Scale(NamedTuple):
    """Strength of the evidence for a label.

    Attributes:
      floor: log-odds up to which there is none.
      full: log-odds from which it is 1.
    """

    floor: float
    full: float

    def strength(self, log_odds: float) -> float:
        """Return the strength of the evidence in a study, from 0 to 1."""
        return float(np.clip((log_odds - self.floor) / (self.full - self.floor), 0, 1))


def of_ensemble(ensemble: Ensemble) -> list[Scale] | None:
    """Return the scales of an ensemble, the means of the networks'.

    Those that are not stored are computed on the run's own validation studies, and not written.

    Returns:
      As `compute`; None where the validation studies of a run are not at hand.
    """
    scales = []
    for member, point in zip(ensemble.members, ensemble.operating_points, strict=True):
        stored = _read(member)
        if stored is None:
            try:
                dataset = member.built_dataset()
            except (UserError, OSError) as error:
                logging.warning("every map is shown as if its evidence were strong: %s", error)
                return None
            stored = compute(member, point, dataset)
        scales.append(stored)
    return [Scale(*np.mean(of_label, axis=0).tolist()) for of_label in zip(*scales, strict=True)]


def compute(member: RestoredModel, point: OperatingPoint, dataset: Dataset) -> list[Scale]:
    """Compute the scale of each label that has maps of its own, or that of disease, on the validation studies.

    Args:
      member: the network.
      point: its operating point, which recalibrates the log-odds.
      dataset: the run's own.
    """
    predictions = member.predict(dataset, dataset.parts["validation"]).calibrated(point)
    questions = thresholds.dichotomies(predictions.task, predictions.label, predictions.probability)
    if not thresholds.is_of_each_label(predictions.task):
        questions = questions[:1]  # the other tasks explain disease of any grade
    return [scale_of(to_log_odds(probability), has_label) for has_label, probability in questions]


def scale_of(log_odds: np.ndarray, has_label: np.ndarray) -> Scale:
    """Return the scale of a label.

    Args:
      log_odds: (study,), of the label.
      has_label: (study,), bool.
    """
    without, of_label = log_odds[~has_label], log_odds[has_label]
    floor = float(np.quantile(without, FLOOR_QUANTILE, method="inverted_cdf")) if len(without) else 0.0
    full = float(np.median(of_label)) if len(of_label) else 0.0
    return Scale(floor, max(full, floor + MIN_RANGE))  # a network that does not tell them apart has no range


def freeze(member: RestoredModel, point: OperatingPoint, dataset: Dataset) -> None:
    """Store the scales of a run's checkpoint in its workdir, unless they are there; see `compute`.

    All processes call it.
    """
    if processes.decided_by_process_0(lambda: _read(member) is not None):
        return
    if processes.is_process_0():
        announce("Fixing the scale of saliency maps on the validation studies")
    scales = compute(member, point, dataset)
    if processes.is_process_0():
        path = member.workdir / FILE
        with storage.exclusive(path):
            entries = _entries(path)
            content = {
                "scales": [scale._asdict() for scale in scales],
                PARAMETERS: parameters_checksum(member.variables),
            }
            entries[str(member.step)] = sign(content, run_id(member.workdir))
            write_text(path, json.dumps(entries, indent=1) + "\n")


def _read(member: RestoredModel) -> list[Scale] | None:
    """Read the scales of a checkpoint; None where there are none, or, with a warning, those of another network.

    Raises:
      UserError: the file is not as it was written.
    """
    path = member.workdir / FILE
    try:
        entry = _entries(path).get(str(member.step))
        if entry is None:
            return None
        content = check_signed(entry, f"the scale of step {member.step}", run_id(member.workdir))
        if content.get(PARAMETERS) not in (None, parameters_checksum(member.variables)):
            logging.warning(
                "%s: the scale of step %d is of another network than is there now: computing it again",
                path,
                member.step,
            )
            return None
        return [Scale(**values) for values in content["scales"]]
    except NOT_AS_WRITTEN as error:
        raise UserError(
            f"{path} is not as evaluation wrote it ({error}): remove it and run python -m covidscan.evaluate again"
        ) from error


def _entries(path: epath.Path) -> dict:
    return json.loads(path.read_bytes()) if path.exists() else {}
