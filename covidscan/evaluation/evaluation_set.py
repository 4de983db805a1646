"""What an evaluation is about: studies, loaded and searched for leaks, what networks said of them, what is asked."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath

from covidscan.config import DataPaths
from covidscan.data import leakage
from covidscan.data.dataset import Dataset, load_studies
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.thresholds import Threshold
from covidscan.runs.workdir import evaluation_folder
from covidscan.trained_models.restore import RestoredModel
from tfds_mosmed import catalog
from tfds_mosmed.errors import UserError


class EvaluationOptions(NamedTuple):
    """What a reader wants to know besides the figures.

    Attributes:
      metadata: CSV file with a column study_id; its other columns make subgroups.
      compare: workdir of another run, tested against this one on the same studies.
      repeats: workdirs of runs of the same experiment with other seeds, summed up with this one.
      verify: no evaluation is written; the one that stands is computed again and compared.
    """

    metadata: str | None = None
    compare: str | None = None
    repeats: Sequence[str] = ()
    verify: bool = False


class EvaluationSet(NamedTuple):
    """The studies that are judged, and where the evaluation is written.

    Attributes:
      workdir: the run, or the cross-validation.
      studies: the data set.
      part: the part of it.
      external: whether it holds other studies than the data set that was trained on.
      checkpoint: as the user chose it.
      leak_check: what was compared to find studies that also trained or chose the network.
      paths: where the data are; None: where they were when the run was trained.
    """

    workdir: epath.Path
    studies: Dataset
    part: str
    external: bool
    checkpoint: str
    leak_check: str
    paths: DataPaths | None

    @property
    def folder(self) -> epath.Path:
        """Where the evaluation is written."""
        return evaluation_folder(self.workdir, self.studies.dataset, self.part, self.checkpoint)


class ScoredStudies(NamedTuple):
    """What one or several networks said of the studies.

    Attributes:
      predictions: after temperature scaling.
      threshold: of the decision, frozen before.
      operating_point: how it was chosen, see `judge.judge`.
      members: the networks; more than one of an ensemble or a cross-validation.
      seconds: that predicting took.
    """

    predictions: Predictions
    threshold: Threshold
    operating_point: dict[str, Any]
    members: Sequence[RestoredModel]
    seconds: float


def read_table(folder: epath.Path) -> dict[str, Any] | None:
    """Read an evaluation's metrics.json; None where there is none.

    Raises:
      UserError: it is not as it was written.
    """
    path = folder / "metrics.json"
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not as it was written ({error}): evaluate again") from error


def own_if_built(network: RestoredModel) -> Dataset | None:
    """Load the data set that a run was trained on where its records stand; an external test does not need them."""
    builder = catalog.load_builder(network.run["data"]["dataset"], network.run["paths"]["data_dir"])
    return network.own_dataset() if builder.is_built() else None


def load_judged(
    network: RestoredModel, split: str, checkpoint: str, dataset: str | None, paths: DataPaths | None
) -> EvaluationSet:
    """Load what is judged: a part of the run's own data set, or all of another one.

    A folder of other studies is another data set, whatever it is called; then its fingerprint joins its name.

    Raises:
      UserError: it does not fit the run, or studies of it trained or chose the network.
    """
    data, given = network.run["data"], paths or DataPaths(**network.run["paths"])
    other = None
    if dataset is not None:
        other = load_studies(network.experiment.config, given, dataset=dataset, label_names=data["label_names"])
    if other is None or other.fingerprint == data["fingerprint"]:
        studies = network.own_dataset(paths)
        check_tested([network], studies)
        leak_check = leakage.check_parts(studies.marks, studies.parts, studies.dataset)
        return EvaluationSet(network.workdir, studies, split, False, checkpoint, leak_check, paths)
    if list(other.volume_shape) != data["volume_shape"]:
        raise UserError(
            f"--dataset={other.dataset} has volumes of {other.volume_shape}, the run was trained on "
            f"{tuple(data['volume_shape'])}: choose a configuration of that grid"
        )
    leak_check = check_tested([network], other)
    if other.dataset == data["dataset"]:
        other = other._replace(dataset=f"{other.dataset}@{other.fingerprint[:8]}")
    return EvaluationSet(network.workdir, other, "test", True, checkpoint, leak_check, paths)


def check_tested(members: Sequence[RestoredModel], studies: Dataset) -> str:
    """Check that no study that judges has made one of the networks; tells what was compared, or raises UserError."""
    tested = studies.marks.take(studies.parts["test"])
    said = [
        leakage.check_tested(
            leakage.read(network.workdir), tested, trained_on=network.run["data"]["dataset"], dataset=studies.dataset
        )
        for network in members
    ]
    return said[-1]
