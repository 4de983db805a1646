"""Training: data, network, state, restore, loop. The loop: evaluate the state, save it, take a batch, step, log."""

import dataclasses
import json
import time
from collections.abc import Callable

import jax
import numpy as np

from covidscan.config import Config, DataPaths
from covidscan.data import domain_shift, leakage
from covidscan.data.dataset import Dataset, load_studies
from covidscan.data.feed import Feed, TrainingRecords, batch_feed, choose_cache, device_feed, gathered, streamed
from covidscan.data.records import read_fields
from covidscan.data.sampling import BatchOrder, loss_weights
from covidscan.distributed import devices, processes
from covidscan.distributed.exits import RunAgain
from covidscan.distributed.preemption import StopRequests
from covidscan.metrics import classification
from covidscan.models import heads
from covidscan.runs.checkpoints import Checkpoints, Validation, best
from covidscan.runs.log import RunLog
from covidscan.runs.workdir import check_run, describe, open_run, read_run, write_text
from covidscan.trained_models import restore
from covidscan.training import losses
from covidscan.training import step as steps
from covidscan.training.experiment import Experiment, create_experiment
from covidscan.training.state import TrainState
from covidscan.training.step_metrics import NotFinite, StepMetrics
from tfds_mosmed.errors import UserError


def train_and_evaluate(config: Config, paths: DataPaths, workdir: str, *, stop_in: str | None = None) -> None:
    """Train from the workdir's last checkpoint to the end, evaluating on the validation studies on the way.

    Args:
      config: what to train.
      paths: where the data are.
      workdir: the run.
      stop_in: the folder in which a file `stop` stops it; None: the workdir.

    Raises:
      UserError: something that the user can mend is in the way.
    """
    devices.enable_compilation_cache()
    devices.share_of_batch(config.batch_size)  # a batch that does not fit is told of before data are built
    check_run(workdir, config)
    studies = load_studies(config, paths)
    leak_check = leakage.check_parts(studies.marks, studies.parts, studies.dataset)
    description = describe(config, paths, studies.to_json())
    processes.check_agreement(description)
    num_train = len(studies.parts["train"])
    experiment = create_experiment(config, len(studies.labels.names), studies.volume_shape, num_train)
    if processes.is_process_0():
        _print_counts(studies)
        print(leak_check)
        open_run(workdir, description)
        leakage.write(workdir, studies.marks, studies.parts)
        domain_shift.keep(workdir, studies.records, studies.parts["train"])
    processes.wait_for_all("config.json")
    read_run(workdir)  # tells a process that does not see process 0's workdir
    start = time.perf_counter()
    with Checkpoints(workdir, keep=config.keep) as checkpoints:
        trainer = Trainer.start(experiment, studies, checkpoints)
        with (
            StopRequests(stop_in or workdir, several=jax.process_count() > 1) as stop,
            RunLog(workdir, trainer.step, experiment.num_steps, writes=processes.is_process_0()) as log,
        ):
            trainer.run(log, stop)
    processes.wait_for_all("last checkpoint")
    restore.restore(workdir).choices(lambda: studies)
    if processes.is_process_0():
        from covidscan.report import plots  # and with it Matplotlib, which a run that is stopped needs not

        curves = log.path.with_name("curves.png")
        plots.learning_curves(log.path, curves)
        print(f"Trained to step {trainer.step} in {time.perf_counter() - start:.0f} s. {trainer.summary()}")
        print(f"Learning curves: {curves}")
        print(f"To judge it on the test studies: python -m covidscan.evaluate --workdir={workdir}")


def _print_counts(studies: Dataset) -> None:
    print(f"{studies.dataset}: {len(studies.study_ids)} studies, {len(studies.skipped)} skipped")
    for part in studies.parts:
        counts = ", ".join(f"{count} {name}" for name, count in studies.counts(part).items())
        print(f"  CT scans for {part}: {counts}")


@dataclasses.dataclass
class Trainer:
    """A run at some step.

    Attributes:
      experiment: what is trained.
      studies: what it is trained on.
      checkpoints: where it is saved.
      state: the state after `step` steps.
      step: steps taken.
      history: the validations so far.
    """

    experiment: Experiment
    studies: Dataset
    checkpoints: Checkpoints
    state: TrainState
    step: int
    history: list[Validation]

    @classmethod
    def start(cls, experiment: Experiment, studies: Dataset, checkpoints: Checkpoints) -> "Trainer":
        """Begin at step 0, or where the newest checkpoint that can be read is."""
        newest = checkpoints.restore_newest(experiment.abstract_state())
        if newest is None:
            return cls(experiment, studies, checkpoints, devices.replicate(experiment.create_state()), 0, [])
        state, history = newest
        return cls(experiment, studies, checkpoints, devices.replicate(state), int(state.step), history)

    def run(self, log: RunLog, stop: StopRequests) -> None:
        """Train to the last step, or until the validation AUROC has stopped rising.

        Raises:
          RunAgain: the run was asked to stop, and has saved.
          UserError: a loss or gradient is not a number.
        """
        config, experiment = self.experiment.config, self.experiment
        self._predict = experiment.predictor()
        training = self._training_records()
        # Of one mind: hosts of different memory would run different programs, and wait for each other for ever.
        cache = processes.broadcast_from_process_0(choose_cache(config.cache, training.size()))
        feed = self._feed(training, cache)
        self._validation_volume = self._reader_of_validation(cached=cache != "none")
        self._progress = StepMetrics(config.task, config.batch_size, stop_if_not_finite=not config.skip_nonfinite)
        try:
            while self.step < experiment.num_steps:
                self._save_if_due(log)
                if self._has_converged():
                    return
                if stop.reached():
                    self._save(log)
                    raise RunAgain(f"stopped at step {self.step} of {experiment.num_steps} and saved")
                self.state, sent = feed(self.state, self.step, self._steps_to_next_line())
                self._progress.add(self.step, sent)
                self.step += sent.num_steps
                log.advance(sent.num_steps)
                if self.step % config.log_every == 0 or self.step == experiment.num_steps:
                    log.write(self.step, "train", self._progress.take())
            self._evaluate_and_save(log)
        except NotFinite as error:
            raise self._explained(error) from error

    def _training_records(self) -> TrainingRecords:
        config, rows, labels = self.experiment.config, self.studies.parts["train"], self._train_labels()
        return TrainingRecords(
            records=self.studies.records,
            rows=rows,
            fields=self._train_fields(),
            labels=labels.astype(np.int32),
            weights=loss_weights(labels, config.class_balance == "loss"),
            order=self._order(),
        )

    def _order(self) -> BatchOrder:
        config = self.experiment.config
        return BatchOrder(
            self._train_labels(), seed=config.seed, class_balance=config.class_balance, batch_size=config.batch_size
        )

    def _feed(self, training: TrainingRecords, cache: str) -> Feed:
        share = devices.share_of_batch(self.experiment.config.batch_size)
        remaining = range(self.step, self.experiment.num_steps)
        if cache == "none":
            return batch_feed(self.experiment.train_step(), streamed(training, share, remaining))
        examples = training.read()
        if cache == "device":
            return device_feed(self.experiment.train_steps(), examples, training.order, share)
        batches = gathered(examples, training.order, share, remaining)
        return batch_feed(self.experiment.train_step(), batches)

    def _reader_of_validation(self, *, cached: bool) -> Callable[[int], np.ndarray]:
        records, rows = self.studies.records, self.studies.parts["validation"]
        if not cached:
            return lambda row: records[row]["volume"]
        volumes = read_fields(records, rows, ["volume"])["volume"]
        place_of = {row: place for place, row in enumerate(rows.tolist())}
        return lambda row: volumes[place_of[row]]

    def _steps_to_next_line(self) -> int:
        """Tell after how many steps something else is due: a line of the log, a checkpoint, an evaluation, the end."""
        config, experiment = self.experiment.config, self.experiment
        every = (config.log_every, config.checkpoint_every, experiment.steps_per_evaluation)
        return min(experiment.num_steps - self.step, *(period - self.step % period for period in every))

    def _train_fields(self) -> list[str]:
        masks = ["lesion_mask", "has_lesion_mask"]
        config = self.experiment.config
        learned = config.lesion_loss > 0 and self.studies.has_masks and not config.shuffle_labels
        return ["volume", *(masks if learned else [])]

    def _train_labels(self) -> np.ndarray:
        """Give the label of each training study; in a control that of another one, drawn by the seed alone."""
        config, labels = self.experiment.config, self.studies.labels.values[self.studies.parts["train"]]
        return np.random.default_rng([config.seed, 1]).permutation(labels) if config.shuffle_labels else labels

    def _save_if_due(self, log: RunLog) -> None:
        if self.step and self.step % self.experiment.steps_per_evaluation == 0:
            self._evaluate_and_save(log)
        elif self.step and self.step % self.experiment.config.checkpoint_every == 0:
            self._save(log)

    def _save(self, log: RunLog) -> None:
        self._progress.settle()
        log.flush()
        self.checkpoints.save(self.state, self.history)

    def _evaluate_and_save(self, log: RunLog) -> None:
        if self.history and self.history[-1].step == self.step:
            return  # the run resumed right here
        self._progress.settle()
        config, rows = self.experiment.config, self.studies.parts["validation"]
        logits = self._predict(steps.eval_variables(self.state), self._validation_volume, rows)
        labels = self.studies.labels.values[rows]
        target = losses.targets(config.task, labels, self.experiment.num_labels, smoothing=0.0)
        auroc = classification.auroc(labels, np.asarray(heads.probabilities(config.task, logits)), config.task)
        self.history.append(Validation(self.step, auroc))
        loss = float(losses.loss(config.task, logits, target).mean())
        log.write(self.step, "validation", {"loss": loss, "auroc": auroc})
        self._save(log)
        self._progress.restart_clock()

    def _explained(self, error: NotFinite) -> UserError:
        """Name the step and its studies, and mark the last good checkpoint."""
        rows = self.studies.parts["train"]
        batch = self._order().rows(error.step)
        studies = [self.studies.study_ids[rows[batch[place]]] for place in error.suspects or range(len(batch))]
        good = self.checkpoints.latest_step()
        if processes.is_process_0():
            mark = {"step": error.step + 1, "studies": studies, "last_good_checkpoint": good}
            write_text(self.checkpoints.workdir / "not_finite.json", json.dumps(mark, indent=2) + "\n")
        return UserError(
            f"step {error.step + 1}: the loss or its gradient is not a finite number (studies "
            f"{', '.join(dict.fromkeys(studies))}); the last good checkpoint is {'none' if good is None else good}: "
            "lower --learning_rate in a new --workdir, or leave such steps out with --skip_nonfinite"
        )

    def _has_converged(self) -> bool:
        patience, leader = self.experiment.config.early_stopping, best(self.history)
        if not patience or leader is None:
            return False
        first = next(place for place, validation in enumerate(self.history) if validation.auroc == leader.auroc)
        return len(self.history) - 1 - first >= patience

    def summary(self) -> str:
        """Tell the best validation in one sentence."""
        leader = best(self.history)
        if leader is None:
            return "Validation AUROC is not defined: the validation studies are all of one label."
        return f"Best validation AUROC {leader.auroc:.3f} at step {leader.step}."
