"""Training: data, network, state, restore, loop. The loop: evaluate the state, save it, take a batch, step, log."""

import dataclasses
import functools
import json
import time
from collections.abc import Callable

import jax
import numpy as np
from etils import epath

from covidscan.config import Config, DataPaths
from covidscan.data import domain_shift, leakage
from covidscan.data.dataset import Dataset, load_dataset
from covidscan.data.feed import (
    Feed,
    TrainingRecords,
    batch_feed,
    choose_cache,
    device_feed,
    gather_batches,
    stream_batches,
)
from covidscan.data.labels import is_negative, rarest
from covidscan.data.records import read_fields
from covidscan.data.sampling import BatchOrder, loss_weights
from covidscan.distributed import devices, processes, watchdog
from covidscan.distributed.preemption import StopRequests
from covidscan.metrics.headline import headline
from covidscan.metrics.predictions import with_sides
from covidscan.runs import operating_points, tensorboard, tracking
from covidscan.runs.checkpoints import Checkpoints, Validation, best, checksum, parameters_checksum
from covidscan.runs.log import RunLog, read_log
from covidscan.runs.owner import owned
from covidscan.runs.workdir import check_run, describe, has_checkpoints, open_run, read_run, stored_config, write_text
from covidscan.training import initialise, losses
from covidscan.training import step as steps
from covidscan.training.experiment import Experiment, create_experiment, resolve_dtype
from covidscan.training.initialise import Source
from covidscan.training.network import has_lesion_map, source_sha256, warn_if_changed
from covidscan.training.optimizer import learning_rate
from covidscan.training.state import TrainState
from covidscan.training.step_metrics import NotFinite, StepMetrics
from covidscan.training.validation_summaries import ValidationSummaries
from tfds_mosmed import storage
from tfds_mosmed.errors import UserError
from tfds_mosmed.progress import announce, duration, fitted


def train_and_evaluate(
    config: Config,
    paths: DataPaths,
    workdir: str,
    stop: StopRequests,
    tracker: str | None = None,
    read_source: Callable[[str], Source] | None = None,
) -> None:
    """Train from the workdir's last checkpoint to the end, evaluating on the validation studies on the way.

    Args:
      config: the experiment.
      paths: where the data are.
      workdir: the run.
      stop: what may ask it to stop.
      tracker: to which the metrics are sent too, see `open_tracker`.
      read_source: reads the network that --init_from names.

    Raises:
      UserError: a flag, the data or the workdir do not fit; the message says what to change.
      RunAgain: the run was asked to stop, and has saved.
    """
    devices.enable_compilation_cache()
    config = resolve_dtype(config, stored_config(workdir))
    check_run(workdir, config)
    # What does not fit is reported before data are built.
    resumes = has_checkpoints(workdir)
    devices.share_of_batch(config.batch_size, resumes=resumes)
    if config.init_from and not resumes:
        initialise.check_exists(config.init_from)
    tracking.check(tracker)
    source_sha256(config)  # reports a network that cannot be imported before data are built
    dataset = load_dataset(config, paths)
    dataset.check_labels(config)
    leak_check = dataset.check_leaks()
    num_train = len(dataset.parts["train"])
    experiment = create_experiment(
        config, len(dataset.labels.names), dataset.volume_shape, num_train, dataset.scaling()
    )
    experiment.check_crops()
    data = dataset.to_json()
    processes.check_agreement(config.to_json(), data)
    has_begun = processes.decided_by_process_0(lambda: has_checkpoints(workdir))
    begins = bool(config.init_from) and not has_begun
    source = read_source(config.init_from) if begins and read_source else None
    planned = initialise.plan(source, experiment.abstract_state(), dataset) if source else None
    taken = dataclasses.asdict(planned) if planned else None
    description = describe(config, paths, data, source_sha256(config), taken)
    with processes.entered_by_process_0(owned(workdir)):
        if processes.is_process_0():
            _print_counts(dataset)
            if config.flip and (sides := with_sides(dataset.labels.names)):
                print(f"  Warning: --flip={config.flip:g} mirrors studies, which exchanges {sides}: give --flip=0")
            print(fitted(leak_check))
            open_run(workdir, description)
            leakage.write(workdir, dataset.keys, dataset.parts)
            if source and planned:
                print(planned.describe())
                leakage.write_pretraining(workdir, source.studies)
            domain_shift.write(workdir, dataset.records, dataset.parts["train"])
        processes.wait_for_all("config.json")
        warn_if_changed(read_run(workdir), workdir)  # also fails on a host that does not see process 0's workdir
        start, is_logging = time.perf_counter(), processes.is_process_0()
        with (
            tracking.open_tracker(tracker if is_logging else None, workdir) as tracked,
            stop.deferred(),
            Checkpoints(workdir, keep=config.keep, passed_on=processes.is_from_lost_process) as checkpoints,
        ):
            begin = functools.partial(initialise.apply, source, planned) if source and planned else None
            trainer = Trainer(experiment, dataset, checkpoints, begin)
            with RunLog(
                workdir, trainer.step, experiment.num_steps, config.epochs, writes=is_logging, tracker=tracked
            ) as log:
                chosen_by = headline(config.task)
                first_step = trainer.step
                log.write_summaries(first_step, tensorboard.start(config.to_json(), chosen_by.name))
                trainer.run(log, stop)
                leader = best(trainer.history)
                value = chosen_by.sign * leader.score if leader and leader.score is not None else None
                log.write_summaries(trainer.step, tensorboard.end(value, chosen_by.name))
        processes.expect_progress()
        processes.wait_for_all("last checkpoint")
        trainer.freeze_operating_point()
        if processes.is_process_0():
            _print_end(trainer, experiment, workdir, first_step, time.perf_counter() - start)


def _print_counts(dataset: Dataset) -> None:
    print(f"{dataset.name}: {len(dataset.study_ids)} studies, {len(dataset.skipped)} skipped")
    for part in dataset.parts:
        print(f"  CT scans for {part}: {dataset.describe(part)}")
    for line in dataset.describe_warnings() if dataset.was_built else []:
        print(f"  Warning: {line}")


def _print_end(trainer: "Trainer", experiment: Experiment, workdir: str, first_step: int, seconds: float) -> None:
    from covidscan.report import charts, plots  # imported lazily: Matplotlib is slow, and unused by a stopped run

    curves = epath.Path(workdir) / "curves.png"
    figure = plots.learning_curves(charts.learning(read_log(workdir)), experiment.steps_per_epoch)
    storage.write_whole(curves, plots.to_png(figure))
    since = f", from step {first_step}," if first_step else ""
    took = f"{since} in {duration(seconds)}" if trainer.step > first_step else " already"
    print(f"Trained to step {trainer.step}{took}. {trainer.summary()}")
    print(f"Learning curves: {curves}")


def training_records(config: Config, dataset: Dataset, *, has_lesion_map: bool) -> TrainingRecords:
    """Select the training studies' records, with their labels, weights in the loss and order.

    With --shuffle_labels, labels are permuted among the studies, by the seed alone, and lesion masks are left out.
    Otherwise a study without disease has a known mask, which is empty. Masks are used where a diseased study has one:
    empty ones alone would teach a network that there are no lesions.

    Args:
      config: the experiment.
      dataset: the data set.
      has_lesion_map: whether the network learns from masks.
    """
    rows = dataset.parts["train"]
    labels = dataset.labels.values[rows]
    if config.shuffle_labels:
        # The last word: without it, the order of epoch 1 would be this permutation.
        labels = np.random.default_rng([config.seed, 1, 1]).permutation(labels)
    balanced = labels
    if config.task == "regression":  # numbers are not balanced
        balanced = np.zeros(len(rows), np.int32)
    elif config.task == "multilabel":
        balanced = rarest(labels)
    negative = is_negative([dataset.categories[row] for row in rows], config.negative_categories)
    if config.task == "multilabel":
        negative = np.logical_not(dataset.labels.values[rows].any(axis=1))
    masked = dataset.index.has_lesion_mask[rows] & ~negative
    uses_masks = has_lesion_map and config.lesion_loss > 0 and not config.shuffle_labels
    with_masks = uses_masks and dataset.has_masks and bool(masked.any())
    if config.lesion_crops and not with_masks:
        raise UserError(
            f"--lesion_crops={config.lesion_crops} needs lesion masks of training studies, and a --lesion_loss above "
            "0: leave it out"
        )
    return TrainingRecords(
        records=dataset.records,
        rows=rows,
        fields=["volume", "lesion_mask", "has_lesion_mask"] if with_masks else ["volume"],
        labels=labels.astype(np.float32 if config.task == "regression" else np.int32),
        weights=loss_weights(balanced, config.class_balance == "loss") * dataset.weights(rows),
        order=BatchOrder(
            balanced,
            seed=config.seed,
            class_balance=config.class_balance,
            batch_size=config.batch_size,
            masked=masked if with_masks else None,
        ),
        known_empty=negative,
        lesions_expected=config.task in ("binary", "severity"),
    )


def _check_agreement(checkpoints: Checkpoints, restored: TrainState | None) -> None:
    """Raise UserError where processes restored different states: hosts may list a shared folder differently a while."""
    if jax.process_count() == 1:
        return
    own = [-1, 0] if restored is None else [int(restored.step), checksum(restored) >> 1]  # below 2**31
    first, *others = processes.gather(own).tolist()
    for process, other in enumerate(others, start=1):
        if other != first:
            steps = [f"step {step}" if step >= 0 else "none" for step, _ in (other, first)]
            raise UserError(
                f"process {process} sees another checkpoint in {checkpoints.directory} than process 0 ({steps[0]}, "
                f"not {steps[1]}): run the same command again on every host"
            )


class Trainer:
    """A run, beginning at step 0 or at the newest checkpoint that can be read.

    Attributes:
      state: the state after `step` steps.
      step: steps taken.
      history: the validations so far.

    Args:
      experiment: the network with its training.
      dataset: the data set.
      checkpoints: the run's.
      begin: changes the state of step 0; None: it begins with random parameters.
    """

    def __init__(
        self,
        experiment: Experiment,
        dataset: Dataset,
        checkpoints: Checkpoints,
        begin: Callable[[TrainState], TrainState] | None = None,
    ):
        config = experiment.config
        self._experiment, self._dataset, self._checkpoints = experiment, dataset, checkpoints
        has_map = has_lesion_map(experiment.model, experiment.input_shape)
        self._training = training_records(config, dataset, has_lesion_map=has_map)
        self._learning_rate = learning_rate(config, experiment.num_steps)
        self._metrics = StepMetrics(config.task, config.batch_size, stop_if_not_finite=not config.skip_nonfinite)
        self._predict = experiment.predictor()
        self._summaries = ValidationSummaries(config, dataset)
        # Of the best validation since the start or restart: step, logits, checksum of the network.
        self._best_validated: tuple[int, np.ndarray, str] | None = None
        restored = checkpoints.restore_newest(experiment.abstract_state())
        _check_agreement(checkpoints, restored[0] if restored else None)
        with watchdog.current().resting():  # compiles
            if restored is None:
                first = experiment.create_state()
                restored = (begin(first) if begin else first), []
            state, self.history = restored
        self.state, self.step = devices.replicate(state), int(state.step)

    def run(self, log: RunLog, stop: StopRequests) -> None:
        """Train to the last step, or until the validations have stopped improving.

        Raises:
          RunAgain: the run was asked to stop, and has saved.
          UserError: a loss or gradient is not a finite number.
        """
        config, num_steps = self._experiment.config, self._experiment.num_steps
        cache = choose_cache(config.cache, self._training.size())
        if processes.is_process_0() and self.step < num_steps and not self._has_converged():
            work = "compiling the training step, which takes up to some minutes"
            work = work if cache == "none" else f"reading {len(self._training.rows)} training studies, then {work}"
            announce(f"Resuming at step {self.step}: {work}" if self.step else f"{work[0].upper()}{work[1:]}")
        feed = self._feed(cache)
        self._validation_volume = self._reader_of_validation(cached=cache != "none")
        self._metrics.restart_clock()
        try:
            while self.step < num_steps:
                if self._is_due(self._experiment.steps_per_evaluation):
                    self._evaluate_and_save(log)
                elif self._is_due(config.checkpoint_every):
                    self._save(log)
                if self._has_converged():
                    return
                if stop.reached():
                    self._save(log)
                    self._checkpoints.wait()
                    raise stop.exception(f"stopped at step {self.step} of {num_steps} and saved")
                self._expect_next()
                self.state, dispatch = feed(self.state, self.step, self._steps_to_next_event())
                self._metrics.add(self.step, dispatch)
                self._expect_next()
                self.step += dispatch.num_steps
                log.advance(dispatch.num_steps)
                if self._is_due(config.log_every) or self.step == num_steps:
                    rate = {"learning_rate": np.asarray(self._learning_rate(self.step - 1)).item()}
                    log.write(self.step, "train", self._metrics.take() | rate)
            self._evaluate_and_save(log)
        except NotFinite as error:
            raise self._explained(error) from error

    def _feed(self, cache: str) -> Feed:
        experiment, training = self._experiment, self._training
        share = devices.share_of_batch(experiment.config.batch_size)
        remaining = range(self.step, experiment.num_steps)
        if cache == "none":
            return batch_feed(experiment.train_step(), stream_batches(training, share, remaining))
        examples = training.read()
        if cache == "device":
            return device_feed(experiment.train_steps(), examples, training.order, share)
        return batch_feed(experiment.train_step(), gather_batches(examples, training.order, share, remaining))

    def _reader_of_validation(self, *, cached: bool) -> Callable[[int], np.ndarray]:
        records, rows = self._dataset.records, self._dataset.parts["validation"]
        if not cached:
            return lambda row: records[row]["volume"]
        volumes = dict(zip(rows.tolist(), read_fields(records, rows, ["volume"])["volume"], strict=True))
        return volumes.__getitem__

    def _is_due(self, every: int) -> bool:
        return self.step > 0 and self.step % every == 0

    def _steps_to_next_event(self) -> int:
        """Return the number of steps to the next log line, checkpoint or evaluation, or to the end."""
        config, experiment = self._experiment.config, self._experiment
        every = (config.log_every, config.checkpoint_every, experiment.steps_per_evaluation)
        return min(experiment.num_steps - self.step, *(period - self.step % period for period in every))

    def _save(self, log: RunLog) -> None:
        self._metrics.settle()
        log.flush()
        self._checkpoints.save(self.state, self.history)

    def _evaluate_and_save(self, log: RunLog) -> None:
        if self.history and self.history[-1].step == self.step:
            return  # the run resumed right here
        self._metrics.settle()
        task, labels = self._experiment.config.task, self._dataset.labels.values[self._dataset.parts["validation"]]
        variables = steps.eval_variables(self.state)
        logits = self._validation_logits(variables)
        chosen_by = headline(task)
        target = losses.targets(task, labels, self._experiment.num_labels, 0.0, self._experiment.scaling)
        loss = float(losses.loss(task, logits, target).mean())
        probability = self._experiment.probabilities(logits)
        value = chosen_by.compute(labels, probability)
        self.history.append(Validation(self.step, None if value is None else chosen_by.sign * value))
        if self._best_step() == self.step:
            self._best_validated = self.step, logits, parameters_checksum(jax.device_get(variables))
        log.write(self.step, "validation", {"loss": loss, chosen_by.name: value})
        if log.writes:
            log.write_summaries(self.step, self._summaries.of(probability))
        self._save(log)
        self._metrics.restart_clock()

    def _validation_logits(self, variables: dict) -> np.ndarray:
        return self._predict(variables, self._validation_volume, self._dataset.parts["validation"])

    def _expect_next(self) -> None:
        watchdog.current().expect(
            f"process {jax.process_index()}: nothing of the training ended after step {self.step}",
            "a process of the job hangs; run the same command again on every host",
        )

    def _best_step(self) -> int:
        """Return the step of the best checkpoint, or the last one where no score is defined."""
        leader = best(self.history)
        return leader.step if leader else self.step

    def freeze_operating_point(self) -> None:
        """Choose recalibration and threshold of the best checkpoint on the validation studies, and write them.

        Those that are written already for this network stay. All processes call it, after `run`.
        """
        step, workdir = self._best_step(), self._checkpoints.workdir
        if self._best_validated and self._best_validated[0] == step:
            _, logits, parameters = self._best_validated
            if self._is_frozen(step, parameters):
                return
        else:  # its validation was before a restart
            try:
                state, _ = self._checkpoints.restore(step, self._experiment.abstract_state())
            except UserError:
                if self._is_frozen(step):
                    return
                raise
            variables = steps.eval_variables(state)
            parameters = parameters_checksum(variables)
            if self._is_frozen(step, parameters):
                return
            logits = self._validation_logits(variables)
        config, rows = self._experiment.config, self._dataset.parts["validation"]
        probability = self._experiment.probabilities(logits)
        chosen = operating_points.choose(config, self._dataset.predictions(rows, probability, config.task), step)
        processes.decided_by_process_0(lambda: operating_points.freeze(workdir, chosen, parameters))

    def _is_frozen(self, step: int, parameters: str | None = None) -> bool:
        return processes.decided_by_process_0(
            lambda: operating_points.read(self._checkpoints.workdir, step, parameters=parameters) is not None
        )

    def _explained(self, error: NotFinite) -> UserError:
        """Return an error that names the step, its studies and the last good checkpoint; write them to a file too."""
        batch = self._training.rows[self._training.order.rows(error.step)]
        studies = [self._dataset.study_ids[batch[position]] for position in error.suspects or range(len(batch))]
        good = self._checkpoints.latest_step()
        if processes.is_process_0():
            mark = {"step": error.step + 1, "studies": studies, "last_good_checkpoint": good}
            write_text(self._checkpoints.workdir / "not_finite.json", json.dumps(mark, indent=2) + "\n")
        return UserError(
            f"step {error.step + 1}: the loss or its gradient is not a finite number (studies "
            f"{', '.join(dict.fromkeys(studies))}); the last good checkpoint is {'none' if good is None else good}: "
            "lower --learning_rate in a new --workdir, or leave such steps out with --skip_nonfinite"
        )

    def _has_converged(self) -> bool:
        patience, leader = self._experiment.config.early_stopping, best(self.history)
        if not patience or leader is None:
            return False
        first = next(i for i, validation in enumerate(self.history) if validation.score == leader.score)
        return len(self.history) - 1 - first >= patience

    def summary(self) -> str:
        """Describe the best validation in one sentence."""
        leader, chosen_by = best(self.history), headline(self._experiment.config.task)
        if leader is None or leader.score is None:
            return f"Validation {chosen_by.title} is not defined: the validation studies are all of one label."
        return f"Best validation {chosen_by.title} {chosen_by.sign * leader.score:.3f} at step {leader.step}."
