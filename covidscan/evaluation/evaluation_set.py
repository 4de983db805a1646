"""Evaluated studies, checked for leaks, and their predictions."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from etils import epath

from covidscan.config import DataPaths
from covidscan.data import leakage
from covidscan.data.dataset import Dataset, load_dataset
from covidscan.data.labels import is_negative
from covidscan.metrics import metrics_json
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.prevalence import adapt, shift, shift_threshold
from covidscan.metrics.prevalence import check as check_prevalence
from covidscan.metrics.results import OperatingPoint
from covidscan.metrics.thresholds import Threshold
from covidscan.runs.workdir import evaluation_folder, grid_of
from covidscan.trained_models.restore import RestoredModel
from tfds_mosmed.errors import UserError

_HEALTHY = re.compile(r"(?<![^\W_])(normals?|healthy|controls?|negative|no.?finding)", re.IGNORECASE)
RELABELLED = (
    "The labels of studies were changed since the training: the network and its threshold were made with others than "
    "those that it is evaluated against."
)


class EvaluationSet(NamedTuple):
    """Studies to be evaluated, and where the evaluation is written.

    Attributes:
      workdir: the run, or the cross-validation.
      dataset: the data set.
      part: the part of it.
      external: whether it holds other studies than the data set that was trained on.
      checkpoint: as the user chose it.
      leak_check: what was compared to find studies that also trained or chose the network.
      paths: where the data are; None: where they were when the run was trained.
      prevalence: to which predictions are adapted; None: to none.
      tta: set of views over which the predictions are averaged; "": none.
      ensemble: digits that identify the runs of an ensemble, whose evaluation is in the workdir of the first; "": none.
    """

    workdir: epath.Path
    dataset: Dataset
    part: str
    external: bool
    checkpoint: str
    leak_check: str
    paths: DataPaths | None
    prevalence: float | None = None
    tta: str = ""
    ensemble: str = ""

    @property
    def folder(self) -> epath.Path:
        """The folder of the evaluation."""
        folder = self.folder_of(self.workdir, self.checkpoint)
        return folder.with_name(f"{folder.name}-ensemble_{self.ensemble}") if self.ensemble else folder

    def folder_of(self, workdir: epath.PathLike, checkpoint: str) -> epath.Path:
        """Return the folder of the evaluation of a run on the same studies."""
        folder = functools.partial(evaluation_folder, workdir)
        place = self.part, checkpoint, self.prevalence, self.tta
        if not self.external or epath.Path(workdir) == self.workdir:
            return folder(self.dataset.name, *place)
        # Which name the studies have there depends on what was evaluated there before.
        named = folder(_with_fingerprint(self.dataset), *place)
        return named if named.exists() else folder(self.dataset.name.partition("@")[0], *place)

    @property
    def rows(self) -> np.ndarray:
        """The records of the part, (study,)."""
        return self.dataset.parts[self.part]

    @property
    def study_ids(self) -> list[str]:
        """The ids of its studies."""
        return [self.dataset.study_ids[row] for row in self.rows]


class ScoredStudies(NamedTuple):
    """Predictions of one or several networks on an evaluation set.

    Attributes:
      predictions: after recalibration.
      threshold: of the decision, frozen before.
      operating_point: how it was chosen.
      members: the networks; more than one of an ensemble or a cross-validation.
      seconds: that predicting took.
    """

    predictions: Predictions
    threshold: Threshold
    operating_point: OperatingPoint
    members: Sequence[RestoredModel]
    seconds: float

    def adapted(self, prevalence: float | None) -> "ScoredStudies":
        """Return them adapted to the prevalence of a clinic, if one is given; see `metrics.prevalence`.

        Raises:
          UserError: it is not known to which prevalence they are calibrated.
        """
        point = self.operating_point
        names = ", ".join(str(member.workdir) for member in self.members)
        check_prevalence(self.predictions.task, point.prevalence, prevalence, names)
        if prevalence is None or point.prevalence is None:
            return self
        probability = shift(self.predictions.probability, point.prevalence, prevalence)
        return self._replace(
            predictions=dataclasses.replace(self.predictions, probability=probability),
            threshold=shift_threshold(point.criterion, self.threshold, point.prevalence, prevalence),
            operating_point=adapt(point, prevalence),
        )


def load_evaluation_set(
    network: RestoredModel,
    split: str,
    checkpoint: str,
    dataset: str | None,
    paths: DataPaths | None,
    workdir: epath.PathLike | None = None,
) -> EvaluationSet:
    """Load what is evaluated: a part of the run's own data set, or all of another one.

    A folder of other studies is another data set, whatever its name; then its fingerprint is added to its name.

    Args:
      network: that is evaluated.
      split: part of its own data set.
      checkpoint: as the user chose it.
      dataset: another data set, NAME/CONFIG, or None.
      paths: where the data are; None: where they were when the run was trained.
      workdir: where the evaluation is written; None: that of the network.

    Raises:
      UserError: it does not fit the run, or studies of it trained or chose the network.
    """
    data, given = network.run["data"], paths or DataPaths(**network.run["paths"])
    other = None
    if dataset is not None:
        if paths is None and dataset.partition("/")[0] != data["dataset"].partition("/")[0]:
            given = DataPaths(given.data_dir)  # the folder and table of the training are of its own data set
        _check_grid(network, dataset, given)
        other = load_dataset(network.experiment.config, given, dataset=dataset, label_names=data["label_names"])
    if other is None or other.fingerprint == data["fingerprint"]:
        own = network.own_dataset(paths)
        check_leaks([network], own)
        leak_check = own.check_leaks()
        if not own.is_labelled_as(data):
            logging.warning("%s: %s", own.name, RELABELLED)
            leak_check += f" {RELABELLED}"
        return EvaluationSet(network.workdir, own, split, False, checkpoint, leak_check, paths)
    leak_check = check_leaks([network], other)
    config = network.experiment.config
    if config.task == "binary":
        _warn_of_healthy(other, config.negative_categories)
    place = epath.Path(workdir or network.workdir)
    if other.name == data["dataset"] or _has_evaluations_of_others(place, other):
        other = other._replace(name=_with_fingerprint(other))
    return EvaluationSet(place, other, "test", True, checkpoint, leak_check, paths)


def _check_grid(network: RestoredModel, dataset: str, paths: DataPaths) -> None:
    """Raise UserError if a data set is on another grid, of which the field of view is a part; before it is built."""
    from tfds_mosmed import catalog  # imported lazily: slow, as it imports TFDS

    builder: Any = catalog.load_builder(dataset, paths.data_dir, paths.manual_dir, paths.table)
    grid, trained = str(builder.builder_config.grid), grid_of(network.run)
    if grid != trained:
        raise UserError(
            f"--dataset={dataset} has the grid {grid}, the run was trained on {trained}: choose a configuration of "
            "that grid"
        )


def _with_fingerprint(dataset: Dataset) -> str:
    return f"{dataset.name.partition('@')[0]}@{dataset.fingerprint[:8]}"


def _warn_of_healthy(dataset: Dataset, negative: Sequence[str]) -> None:
    """Warn if studies that seem to be healthy are positive, as the run's --negative_categories lacks their name."""
    positive = ~is_negative(dataset.categories, negative)
    found = {name for name, is_positive in zip(dataset.categories, positive, strict=True) if is_positive}
    healthy = sorted(filter(_HEALTHY.search, found))
    if healthy:
        logging.warning(
            "%s: studies of %s are evaluated as positive, since the run was trained with --negative_categories=%s; if "
            "they have no disease, give them one of these names", dataset.name, ", ".join(healthy), ",".join(negative)
        )  # fmt: skip


def _has_evaluations_of_others(workdir: epath.Path, dataset: Dataset) -> bool:
    """Return whether the evaluations of this name are of another folder of studies, and would be replaced."""
    prefix, fingerprints = evaluation_folder(workdir, dataset.name, "test", "").name, set()
    for folder in (workdir / "evaluations").glob(f"{prefix}*"):
        try:
            stored = metrics_json.read(folder, edited=True)
        except UserError:  # it may be of this one
            continue
        fingerprints |= {stored[1].fingerprint} if stored else set()
    return bool(fingerprints) and dataset.fingerprint not in fingerprints


def check_leaks(members: Sequence[RestoredModel], dataset: Dataset) -> str:
    """Check that no test study trained or chose one of the networks, and that none chose on what it had trained on.

    Returns:
      What was compared.

    Raises:
      UserError: there are such studies.
    """
    tested = dataset.keys.take(dataset.parts["test"])
    checks = []
    for network in members:
        before = leakage.read_pretraining(network.workdir, network.run.get("initialisation"))
        own, own_name = leakage.read(network.workdir), network.run["data"]["dataset"]
        if before is not None:  # the network that this one began with
            began = network.run["initialisation"]
            leakage.check_tested(before, tested, trained_on=began["trained_on"], dataset=dataset.name)
            try:
                leakage.check_choosing(before, own["validation"], trained_on=began["trained_on"], dataset=own_name)
            except UserError as error:
                raise UserError(
                    f"--workdir={network.workdir} began with {began['source']}, and {error}: train it again with the "
                    "--protocol, --fold and --split_seed of that run"
                ) from error
        checks.append(leakage.check_tested(own, tested, trained_on=own_name, dataset=dataset.name))
    return checks[-1]


def training_dataset_if_built(network: RestoredModel) -> Dataset | None:
    """Load the data set that a run was trained on; None where its records are gone or others by now.

    An external test does not need them.
    """
    try:
        return network.own_dataset() if network.has_records() else None
    except UserError as error:
        logging.warning("what needs the training studies is left out: %s", error)
        return None
