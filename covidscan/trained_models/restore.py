"""Trained network, restored from its workdir alone."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from covidscan.config import Config, DataPaths
from covidscan.data import leakage
from covidscan.data.dataset import Dataset, load_dataset
from covidscan.distributed import processes
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import OperatingPoint
from covidscan.models import heads
from covidscan.runs import operating_points
from covidscan.runs.checkpoints import Checkpoints, parameters_checksum
from covidscan.runs.operating_points import Rules
from covidscan.runs.workdir import fold_workdir, read_cross_validation, read_run
from covidscan.training import step as steps
from covidscan.training.experiment import Experiment, create_experiment
from covidscan.training.network import warn_if_changed
from tfds_mosmed.errors import UserError
from tfds_mosmed.progress import Progress


class RestoredModel(NamedTuple):
    """A network with the variables of a checkpoint.

    Attributes:
      workdir: the run.
      run: content of its config.json.
      experiment: the network with its flags.
      variables: numpy; parameters (their running mean where the run has one) and batch statistics.
      step: of the checkpoint.
    """

    workdir: epath.Path
    run: dict[str, Any]
    experiment: Experiment
    variables: dict[str, Any]
    step: int

    def predict(self, dataset: Dataset, rows: np.ndarray, tta: str = "") -> Predictions:
        """Predict studies, without recalibration; all processes call it, and each gets all predictions.

        Args:
          dataset: the data set.
          rows: indices of its records.
          tta: set of views over which logits are averaged, see `models.views`; "": none.
        """
        predict, volume_of = self.experiment.predictor(), lambda row: dataset.records[row]["volume"]
        part = next((f", {name}" for name, of_part in dataset.parts.items() if np.array_equal(of_part, rows)), "")
        with Progress(f"Predicting {dataset.name}{part}", len(rows), shown=processes.is_process_0()) as progress:
            logits = predict(self.variables, volume_of, rows, progress.advance, tta)
            progress.finish()
        return dataset.predictions(rows, self.experiment.probabilities(logits), self.experiment.config.task)

    def own_dataset(self, paths: DataPaths | None = None) -> Dataset:
        """Load the data set that the run was trained on.

        Args:
          paths: where the data are; None: where they were when the run was trained.

        Raises:
          UserError: it does not exist, or holds other studies now.
        """
        data, paths = self.run["data"], paths or DataPaths(**self.run["paths"])
        dataset = load_dataset(self.experiment.config, paths, label_names=data["label_names"])
        same_studies = dataset.fingerprint == data["fingerprint"] or leakage.are_those_of(self.workdir, dataset.keys)
        if dataset.split_hash != data["split_hash"] or not same_studies:
            raise UserError(
                f"--data_dir={paths.data_dir} holds other studies of {dataset.name} than the run was trained on; "
                "its parts are not the run's: use the --data_dir of the training, or "
                f"--dataset={dataset.name} to evaluate them as an external test"
            )
        return dataset

    def has_records(self) -> bool:
        """Return whether the records exist that the run was trained on."""
        from tfds_mosmed import catalog  # imported lazily: slow, as it imports TFDS, and seldom needed to predict

        paths = DataPaths(**self.run["paths"])
        name = self.run["data"]["dataset"]
        return catalog.load_builder(name, paths.data_dir, paths.manual_dir, paths.table).is_built()

    def built_dataset(self) -> Dataset:
        """Load the data set that the run was trained on; unlike `own_dataset` it builds nothing.

        Raises:
          UserError: see `own_dataset`; or its records do not exist.
        """
        if not self.has_records():
            raise UserError(
                f"{self.workdir}: the records of {self.run['data']['dataset']} that it was trained on are not in "
                f"--data_dir={self.run['paths']['data_dir']}: run python -m covidscan.evaluate where they are"
            )
        return self.own_dataset()

    def operating_point(
        self, own_dataset: Callable[[], Dataset], *, freeze: bool = True, tta: str = ""
    ) -> OperatingPoint:
        """Return the frozen operating point of the checkpoint; where its network has none, choose and freeze it.

        All processes call it.

        Args:
          own_dataset: loads the run's own data set; called only where there is no frozen operating point.
          freeze: whether a newly chosen operating point is written.
          tta: set of views over which the predictions are averaged; each set has an operating point of its own.

        Raises:
          UserError: the run's own data set cannot be loaded, or the frozen operating point cannot be read.
        """
        parameters = parameters_checksum(self.variables)

        def read() -> dict[str, Any] | None:
            found = operating_points.read(self.workdir, self.step, tta, parameters)
            return found and dataclasses.asdict(found)

        frozen = processes.decided_by_process_0(read)
        if frozen is not None:
            return OperatingPoint(**frozen)
        chosen = self.choose_operating_point(own_dataset(), tta=tta)
        if freeze:
            processes.decided_by_process_0(lambda: operating_points.freeze(self.workdir, chosen, parameters))
        return chosen

    def choose_operating_point(
        self,
        own_dataset: Dataset,
        rules: Rules = Rules(),  # noqa: B008
        tta: str = "",
    ) -> OperatingPoint:
        """Choose the operating point on the validation studies, regardless of a frozen one; all processes call it."""
        validation = self.predict(own_dataset, own_dataset.parts["validation"], tta)
        return operating_points.choose(self.experiment.config, validation, self.step, rules, tta)


def restore(workdir: epath.PathLike, checkpoint: str = "best") -> RestoredModel:
    """Restore a network on any number of devices; all processes call it.

    Process 0 chooses the checkpoint: hosts may see a shared folder differently for some seconds.

    Args:
      workdir: the run.
      checkpoint: "best" on the validation studies, "latest" or a step.

    Raises:
      UserError: the workdir is not a run's, it has no such checkpoint, or the checkpoint is of another network.
    """
    run = read_run(workdir)
    warn_if_changed(run, workdir)
    data = run["data"]
    with Checkpoints(workdir, keep=None) as checkpoints:
        step = processes.decided_by_process_0(lambda: checkpoints.find(checkpoint))
        experiment = create_experiment(
            Config.from_json(run["config"]),
            len(data["label_names"]),
            tuple(data["volume_shape"]),
            data["num_train"],
            heads.Scaling(**data["scaling"]) if "scaling" in data else heads.UNSCALED,
        )
        state, _ = checkpoints.restore(step, experiment.abstract_state())
    return RestoredModel(epath.Path(workdir), run, experiment, steps.eval_variables(state), step)


def checksums(networks: Sequence[RestoredModel]) -> str:
    """Return the checksums of networks' parameters, the same in whatever order the networks are named."""
    return "+".join(sorted(parameters_checksum(network.variables) for network in networks))


def restore_folds(workdir: epath.PathLike, checkpoint: str = "best") -> list[RestoredModel]:
    """Restore the networks of a cross-validation; all processes call it.

    Args:
      workdir: of the cross-validation.
      checkpoint: of each fold's run.

    Raises:
      UserError: a fold is not trained yet.
    """
    num_folds = read_cross_validation(workdir).num_folds
    return [restore(fold_workdir(workdir, fold), checkpoint) for fold in range(num_folds)]
