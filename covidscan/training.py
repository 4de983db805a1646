"""Training: data, network, state, restore, loop. The loop: evaluate the state, save it, take a batch, step, log."""

import dataclasses
import time
from collections import deque

import jax
import numpy as np

from covidscan import metrics, parallel, plots, steps, tasks
from covidscan.checkpoint import Checkpoints, Validation, best
from covidscan.data import Studies, load_studies
from covidscan.experiment import Experiment, create_experiment
from covidscan.flags import Config, DataPaths
from covidscan.input_pipeline import record_reader, train_batches
from covidscan.run_log import RunLog
from covidscan.train_state import TrainState
from covidscan.workdir import check_run, describe, open_run


def train_and_evaluate(config: Config, paths: DataPaths, workdir: str) -> None:
    """Train from the workdir's last checkpoint to the end, evaluating on the validation studies on the way.

    Args:
      config: what to train.
      paths: where the data are.
      workdir: the run.

    Raises:
      UserError: something that the user can mend is in the way.
    """
    parallel.keep_compiled_programs()
    parallel.share_of_batch(config.batch_size)  # a batch that does not fit is told of before data are built
    check_run(workdir, config)
    studies = load_studies(config, paths)
    _print_counts(studies)
    num_train = len(studies.parts["train"])
    experiment = create_experiment(config, len(studies.labels.names), studies.volume_shape, num_train)
    open_run(workdir, describe(config, paths, studies))
    start = time.perf_counter()
    with Checkpoints(workdir, keep=config.keep) as checkpoints:
        trainer = Trainer.start(experiment, studies, checkpoints)
        with RunLog(workdir, trainer.step, experiment.num_steps) as log:
            trainer.run(log)
    seconds = time.perf_counter() - start
    curves = log.path.with_name("curves.png")
    plots.learning_curves(log.path, curves)
    print(f"Trained to step {trainer.step} in {seconds:.0f} s. {trainer.summary()}")
    print(f"Learning curves: {curves}")
    print(f"To judge it on the test studies: python -m covidscan.evaluate --workdir={workdir}")


def _print_counts(studies: Studies) -> None:
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
    studies: Studies
    checkpoints: Checkpoints
    state: TrainState
    step: int
    history: list[Validation]

    @classmethod
    def start(cls, experiment: Experiment, studies: Studies, checkpoints: Checkpoints) -> "Trainer":
        """Begin at step 0, or where the newest checkpoint is."""
        step = checkpoints.latest_step()
        if step is None:
            state = parallel.replicate(experiment.create_state())
            return cls(experiment, studies, checkpoints, state, 0, [])
        state, history = checkpoints.restore(step, experiment.abstract_state())
        return cls(experiment, studies, checkpoints, parallel.replicate(state), step, history)

    def run(self, log: RunLog) -> None:
        """Train to the last step, or until the validation AUROC has stopped rising."""
        config, experiment = self.experiment.config, self.experiment
        rows = self.studies.parts["train"]
        self._predict = experiment.predictor()
        self._read_validation = record_reader(self.studies.records, self.studies.parts["validation"], ["volume"])
        train_step = experiment.train_step()
        batches = train_batches(
            record_reader(self.studies.records, rows, self._train_fields()),
            rows,
            self.studies.labels.values[rows],
            seed=config.seed,
            class_balance=config.class_balance,
            batch_size=config.batch_size,
            share=parallel.share_of_batch(config.batch_size),
            steps=range(self.step, experiment.num_steps),
        )
        recent = _Recent(config.task, config.batch_size)
        first = self.step
        while self.step < experiment.num_steps:
            if self.step and self.step % experiment.steps_per_evaluation == 0:
                self._evaluate_and_save(log)
                recent.restart_clock()
            elif self.step > first and self.step % config.checkpoint_every == 0:
                self.checkpoints.save(self.state, self.history)
            if self._has_converged():
                return
            batch = next(batches)
            self.state, figures, probabilities = train_step(self.state, parallel.to_replicas(batch))
            self.step += 1
            recent.add(figures, probabilities, batch.label)
            log.advance()
            if self.step % config.log_every == 0 or self.step == experiment.num_steps:
                log.write(self.step, "train", recent.take())
        self._evaluate_and_save(log)

    def _train_fields(self) -> list[str]:
        masks = ["lesion_mask", "has_lesion_mask"]
        learned = self.experiment.config.lesion_loss > 0 and self.studies.has_masks
        return ["volume", *(masks if learned else [])]

    def _evaluate_and_save(self, log: RunLog) -> None:
        if self.history and self.history[-1].step == self.step:
            return  # the run resumed right here
        config, rows = self.experiment.config, self.studies.parts["validation"]
        logits = self._predict(steps.eval_variables(self.state), self._read_validation, rows)
        labels = self.studies.labels.values[rows]
        target = tasks.targets(config.task, labels, self.experiment.num_labels, smoothing=0.0)
        auroc = metrics.auroc(labels, np.asarray(tasks.probabilities(config.task, logits)), config.task)
        self.history.append(Validation(self.step, auroc))
        log.write(
            self.step,
            "validation",
            {"loss": float(tasks.loss(config.task, logits, target).mean()), "auroc": auroc},
        )
        self.checkpoints.save(self.state, self.history)

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


class _Recent:
    """The figures of the steps since the last line of the log."""

    def __init__(self, task: str, batch_size: int):
        self._task, self._batch_size = task, batch_size
        self._steps = []
        self._running = deque(maxlen=2)
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leave out of volumes_per_second what has just been done other than training."""
        self._since, self._timed = time.perf_counter(), 0

    def add(self, figures: dict[str, jax.Array], probabilities: jax.Array, labels: np.ndarray) -> None:
        """Remember a step; wait for the one before the last, so that the host never runs far ahead of the devices."""
        if len(self._running) == 2:
            jax.block_until_ready(self._running[0])
        self._running.append(figures)
        self._steps.append((figures, probabilities, labels))
        self._timed += 1

    def take(self) -> dict[str, float | None]:
        """Give the means since the last call, the AUROC of these examples as trained on, and the speed."""
        figures = jax.device_get([figures for figures, _, _ in self._steps])
        probabilities = np.concatenate([parallel.from_replicas(found) for _, found, _ in self._steps])
        labels = np.concatenate([labels for _, _, labels in self._steps])
        means = {name: float(np.mean([step[name] for step in figures])) for name in figures[0]}
        seconds = time.perf_counter() - self._since
        speed = self._timed * self._batch_size / seconds
        self._steps.clear()
        self.restart_clock()
        return means | {
            "auroc": metrics.auroc(labels, probabilities, self._task),
            "volumes_per_second": speed,
        }
