"""Absolute scale of a run's saliency maps, fixed on its validation studies.

Scaled to its own maximum, the map of a normal study is as bright as that of a diseased one. Here the same value has the
same colour in every study: colours begin where the maps of validation studies without the label end.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath

from covidscan.data.dataset import Dataset
from covidscan.explanation.maps import per_ml, smooth
from covidscan.explanation.saliency import SaliencyMapper
from covidscan.metrics.signed_json import check_signed, sign
from covidscan.runs.workdir import run_id, write_text
from covidscan.trained_models.ensemble import Ensemble
from covidscan.trained_models.restore import RestoredModel
from tfds_mosmed import storage
from tfds_mosmed.errors import NOT_AS_WRITTEN, UserError

FILE = "explanation.json"
MOST_STUDIES = 60  # each costs a gradient
FLOOR_QUANTILE = 0.95  # of validation studies without the label, whose maps are to show nothing
OUTLIERS = 0.999  # quantile of the integrated gradients of a study that takes the last colour
ATTRIBUTION_FLOOR = 0.1  # share of that value from which integrated gradients are shown
RELATIVE_FLOOR = 0.3  # of a map's maximum, where no absolute scale is known


class Scale(NamedTuple):
    """Colour scale of the maps of one label.

    Attributes:
      floor: Grad-CAM up to which a voxel shows no evidence.
      full: Grad-CAM from which it has the last colour.
      attribution: absolute integrated gradients, log-odds per ml, from which they have the last colour.
      is_absolute: whether it is that of the validation studies, and not of the shown map itself.
    """

    floor: float
    full: float
    attribution: float
    is_absolute: bool = True


def relative(cam: np.ndarray, attributed: np.ndarray, spacing_mm: Sequence[float]) -> Scale:
    """Return the scale of the maps' own maxima, for a network whose validation studies are not at hand."""
    full = float(cam.max()) or 1.0
    return Scale(RELATIVE_FLOOR * full, full, _attribution(attributed, spacing_mm), is_absolute=False)


def of_ensemble(ensemble: Ensemble) -> list[Scale] | None:
    """Return the scale of each label, the mean of the networks'.

    Those that are not stored are computed on the run's own validation studies, and not written.

    Returns:
      One for each label; None where the validation studies of a run are not at hand.
    """
    scales = []
    for position, member in enumerate(ensemble.members):
        stored = _read(member)
        if stored is None:
            try:
                dataset = member.own_dataset()
            except (UserError, OSError) as error:
                logging.warning("maps are shown relative to their own maximum: %s", error)
                return None
            stored = compute(_alone(ensemble, position), dataset)
        scales.append(stored)
    return [
        Scale(*np.mean([scale[:3] for scale in of_label], axis=0).tolist()) for of_label in zip(*scales, strict=True)
    ]


def _alone(ensemble: Ensemble, position: int) -> Ensemble:
    points = ensemble.operating_points
    return ensemble._replace(members=[ensemble.members[position]], operating_points=[points[position]])


def compute(network: Ensemble, dataset: Dataset) -> list[Scale]:
    """Compute the scale of each label on the validation studies.

    Args:
      network: of one run.
      dataset: the run's own.
    """
    mapper, rows = SaliencyMapper(network), dataset.parts["validation"]
    if len(rows) > MOST_STUDIES:  # their order is arbitrary
        rows = rows[:: -(-len(rows) // MOST_STUDIES)]
    labels = dataset.labels.values[rows]
    if network.info.task != "classes":
        labels = np.minimum(labels, 1)  # disease of any grade
    explained = range(len(network.info.label_names)) if network.info.task == "classes" else [1]
    peaks = {label: np.empty(len(rows)) for label in explained}
    for position, row in enumerate(map(int, rows)):
        volume = np.asarray(dataset.records[row]["volume"])
        for label in explained:
            peaks[label][position] = mapper.grad_cam(volume, label).max()
    typical = {label: _typical(peaks[label], labels == label) for label in explained}
    scales = {}
    for label in explained:
        record = dataset.records[int(rows[typical[label]])]
        attributed = mapper(np.asarray(record["volume"]), label).integrated_gradients
        attribution = _attribution(attributed, np.asarray(record["spacing_mm"]).tolist())
        scales[label] = Scale(*_range(peaks[label], labels == label), attribution)
    return [scales.get(label, scales[explained[0]]) for label in range(len(network.info.label_names))]


def _range(peaks: np.ndarray, has_label: np.ndarray) -> tuple[float, float]:
    """Compute floor and full from the highest Grad-CAM of each study."""
    without, of_label = peaks[~has_label], peaks[has_label]
    floor = float(np.quantile(without, FLOOR_QUANTILE, method="inverted_cdf")) if len(without) else 0.0
    full = float(np.median(of_label)) if len(of_label) else 0.0
    # A network that does not tell them apart has no range between them.
    return floor, max(full, 2 * floor, float(np.finfo(np.float32).tiny))


def _typical(peaks: np.ndarray, has_label: np.ndarray) -> int:
    """Return the position of the study of the label whose peak is the median one."""
    candidates = np.flatnonzero(has_label) if has_label.any() else np.arange(len(peaks))
    return int(candidates[np.argsort(peaks[candidates])[len(candidates) // 2]])


def _attribution(attributed: np.ndarray, spacing_mm: Sequence[float]) -> float:
    density = smooth(per_ml(attributed, spacing_mm), spacing_mm)
    return float(np.quantile(np.abs(density), OUTLIERS)) or 1.0


def freeze(network: Ensemble, dataset: Dataset) -> None:
    """Store the scales of a run's checkpoint in its workdir, unless they are there.

    Args:
      network: of one run.
      dataset: the run's own.
    """
    member = network.members[0]
    if _read(member) is not None:
        return
    scales = compute(network, dataset)
    path = member.workdir / FILE
    with storage.exclusive(path):
        entries = _entries(path)
        entries[str(member.step)] = sign({"scales": [scale._asdict() for scale in scales]}, run_id(member.workdir))
        write_text(path, json.dumps(entries, indent=1) + "\n")


def _read(member: RestoredModel) -> list[Scale] | None:
    """Read the scales of a checkpoint; None where there are none.

    Raises:
      UserError: the file is not as it was written.
    """
    path = member.workdir / FILE
    try:
        entry = _entries(path).get(str(member.step))
        if entry is None:
            return None
        content = check_signed(entry, f"the scale of step {member.step}", run_id(member.workdir))
        return [Scale(**values) for values in content["scales"]]
    except NOT_AS_WRITTEN as error:
        raise UserError(
            f"{path} is not as evaluation wrote it ({error}): remove it and run python -m covidscan.evaluate again"
        ) from error


def _entries(path: epath.Path) -> dict:
    return json.loads(path.read_bytes()) if path.exists() else {}
