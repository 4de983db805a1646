"""Localisation by saliency maps: the share of each map that lies in lesions and lungs, and where its peak is.

The maps of a trained network are compared with those of networks that learned nothing (Adebayo et al., NeurIPS 2018).
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from etils import epath

from covidscan.data.dataset import Dataset
from covidscan.explanation.saliency import SaliencyMapper
from covidscan.trained_models import ensemble
from covidscan.trained_models.ensemble import Ensemble
from covidscan.training import state as train_state
from covidscan.training import step
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.lung_region import lung_region
from tfds_mosmed.progress import progress

MAPS = ("grad_cam", "integrated_gradients")


@dataclasses.dataclass(frozen=True)
class Overlap:
    """Overlap of a map with the lesions and lungs of one study; shares are of the map's positive part.

    Attributes:
      in_lesion: share within the lesion mask.
      in_lungs: share within the lungs, lesions included; None where no lungs are found.
      peak_in_lesion: whether the highest voxel is lesion (the pointing game of Zhang et al., IJCV 2018, without its
        margin).
      chance: share of the lungs, or of the volume where none are found, that is lesion: the score of a map that knows
        the lungs only.
    """

    in_lesion: float
    in_lungs: float | None
    peak_in_lesion: bool
    chance: float


@dataclasses.dataclass(frozen=True)
class MeanOverlap:
    """Means of `Overlap` over `studies` studies; None of no study."""

    studies: int
    in_lesion: float | None
    in_lungs: float | None
    peak_in_lesion: float | None
    chance: float | None


@dataclasses.dataclass(frozen=True)
class Localisation:
    """Localisation of several networks on the same studies, as localisation.json holds it.

    Attributes:
      chance: the mean share of the lungs that is lesion.
      networks: "trained", "untrained", "shuffled labels" -> name of the map -> its overlap.
    """

    chance: float | None
    networks: dict[str, dict[str, MeanOverlap]]


def overlap(
    saliency_map: np.ndarray, lesion_mask: np.ndarray, volume: np.ndarray, spacing_mm: Sequence[float]
) -> Overlap | None:
    """Compare a map with a study's lesions and lungs.

    Args:
      saliency_map: (slice, row, column); values below 0 are evidence against the label and are left out.
      lesion_mask: of the same shape, above 0 where there is lesion.
      volume: HU, of the same shape.
      spacing_mm: of the voxels.

    Returns:
      The overlap; None where the map is empty or the mask is.
    """
    positive, lesion = np.maximum(saliency_map, 0).astype(np.float64), lesion_mask > 0
    whole = positive.sum()
    if not whole or not lesion.any():
        return None
    region = lung_region(volume, spacing_mm)
    lungs = None if region is None else region.lungs | lesion  # dense lesions do not look like lung
    return Overlap(
        in_lesion=float(positive[lesion].sum() / whole),
        in_lungs=None if lungs is None else float(positive[lungs].sum() / whole),
        peak_in_lesion=bool(lesion.flat[positive.argmax()]),
        chance=float(lesion.mean() if lungs is None else lesion.sum() / lungs.sum()),
    )


def mean_overlap(overlaps: Sequence[Overlap | None]) -> MeanOverlap:
    """Average the overlaps of several studies, without those that have none."""
    known = [each for each in overlaps if each is not None]
    means = {}
    for spec in dataclasses.fields(Overlap):
        values = [value for each in known if (value := getattr(each, spec.name)) is not None]
        means[spec.name] = float(np.mean(values)) if values else None
    return MeanOverlap(studies=len(known), **means)


def localise(trained: Ensemble, shuffled: Ensemble | None, dataset: Dataset) -> Localisation:
    """Compute the maps of diseased test studies that have a lesion mask, and their overlap with it.

    Args:
      trained: the network.
      shuffled: one trained on shuffled labels, or None.
      dataset: the data set, with the network's own parts.

    Raises:
      UserError: no test study has a lesion mask.
    """
    networks = {"trained": trained, "untrained": untrained_control(trained)}
    if shuffled is not None:
        networks["shuffled labels"] = shuffled
    rows = list(_rows_with_lesions(dataset))
    if not rows:
        raise UserError(
            f"{dataset.name}: no test study has a lesion mask to compare the maps with: use a run whose data set "
            "has masks"
        )
    overlaps = {
        name: _mean_overlaps(network, dataset, progress(rows, len(rows), f"Maps of the {name} network"))
        for name, network in networks.items()
    }
    return Localisation(overlaps["trained"]["grad_cam"].chance, overlaps)


def _rows_with_lesions(dataset: Dataset) -> Iterator[int]:
    for row in map(int, dataset.parts["test"] if dataset.has_masks else []):
        record = dataset.records[row]
        if record["has_lesion_mask"] and np.any(record["lesion_mask"]):
            yield row


def _mean_overlaps(network: Ensemble, dataset: Dataset, rows: Iterable[int]) -> dict[str, MeanOverlap]:
    mapper, found = SaliencyMapper(network), {name: [] for name in MAPS}
    for row in rows:
        record = dataset.records[row]
        volume, mask = np.asarray(record["volume"]), np.asarray(record["lesion_mask"])
        maps = mapper(volume, int(dataset.labels.values[row]))
        for name in MAPS:
            found[name].append(overlap(getattr(maps, name), mask, volume, np.asarray(record["spacing_mm"]).tolist()))
    return {name: mean_overlap(overlaps) for name, overlaps in found.items()}


def untrained_control(trained: Ensemble) -> Ensemble:
    """Initialise networks of the same shape, from seeds that no member was trained with."""
    members = []
    for member in trained.members:
        experiment = member.experiment
        state = train_state.create_train_state(
            experiment.model, experiment.tx, experiment.input_shape, experiment.config.seed + 1_000_000, ema=False
        )
        members.append(member._replace(variables=step.eval_variables(state)))
    return trained._replace(members=members)


def shuffled_control(trained: Ensemble, workdir: epath.PathLike) -> Ensemble:
    """Restore the control that was trained on shuffled labels.

    Args:
      trained: the network that it is compared with.
      workdir: of the control.

    Raises:
      UserError: it was not trained so, or on other studies.
    """
    control = ensemble.load([workdir], "latest")
    if not control.members[0].experiment.config.shuffle_labels:
        raise UserError(f"--shuffled_workdir={workdir}: was not trained with --shuffle_labels: train the control so")
    for name in ("task", "label_names", "grid"):
        if getattr(control.info, name) != getattr(trained.info, name):
            raise UserError(f"--shuffled_workdir={workdir}: its {name} is not the run's: train it with the same flags")
    if control.members[0].run["data"]["split_hash"] != trained.members[0].run["data"]["split_hash"]:
        raise UserError(
            f"--shuffled_workdir={workdir}: its studies are split in another way than the run's: train it with "
            "the same --dataset, --protocol, --fold and --split_seed"
        )
    return control
