"""CovidScan: times pmapped steps, or trains the default network, with the project's own modules."""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
from absl import flags as absl_flags

from covidscan.cli import flags
from covidscan.config import Config, DataPaths
from covidscan.data.dataset import load_dataset
from covidscan.data.feed import Batch, TrainingRecords, gather_batches, prefetch_to_devices
from covidscan.data.sampling import BatchOrder, loss_weights
from covidscan.distributed import compiler_arguments, devices
from covidscan.models.keras_cnn import KerasCNN
from covidscan.training import step as covidscan_steps
from covidscan.training.experiment import Experiment, create_experiment
from tests.peers import replies

STILL = dict.fromkeys(("flip", "scale", "shift", "rotation", "blur", "intensity", "noise"), 0.0)
NUM_TRAIN = 140  # used by the schedule only


def _config(*arguments: str) -> Config:
    flags.define_config()
    flags.define_workdir()
    absl_flags.FLAGS(["peers", "--workdir=", *arguments])
    return flags.config()


def _experiment(network: str, shape: tuple[int, int, int], batch_size: int, augmented: bool) -> Experiment:
    if network == "lung_resnet":
        config = _config(f"--batch_size={batch_size}")
        config = config if augmented else dataclasses.replace(config, **STILL)
        return create_experiment(config, 2, shape, NUM_TRAIN)
    config = _config("--flagfile=covidscan/presets/covidscan_recipe.flags", f"--batch_size={batch_size}")
    if network == "covidscan_cnn":
        return create_experiment(config, 2, shape, NUM_TRAIN)
    # Two ordered labels have one logit and the sigmoid's cross-entropy, as the Keras example has.
    experiment = create_experiment(dataclasses.replace(config, task="severity"), 2, shape, NUM_TRAIN)
    return experiment._replace(model=KerasCNN(outputs=1, axis_name=devices.REPLICAS))


def steps(network: str, shape: list[int], batch_size: int, augmented: bool) -> dict:
    """Return tasks: a training step, and the inference of a batch of records, int16 HU in host memory."""
    experiment = _experiment(network, tuple(shape), batch_size, augmented)
    train_step = experiment.train_step()
    eval_step = devices.pmap_eval_step(
        covidscan_steps.make_eval_step(experiment.config, experiment.model, devices.REPLICAS)
    )
    hu, labels = replies.synthetic_batch(tuple(shape), batch_size)
    batch = devices.to_replicas(Batch(hu, labels, np.ones(batch_size, np.float32)))
    state = devices.replicate(experiment.create_state())

    def train() -> None:
        nonlocal state
        state, *outputs = train_step(state, batch)
        jax.block_until_ready((state, outputs))

    return {
        "train": train,
        "predict": lambda: np.asarray(eval_step(covidscan_steps.eval_variables(state), batch.volume)),
    }


def learn(data_dir: str, lesion_masks: bool) -> tuple[Iterator[np.ndarray], np.ndarray]:
    """Train the default network with the demo's flags, at its default width, and predict after each epoch.

    Without lesion masks it learns more slowly, and trains for the default number of epochs.

    Returns:
      The scores of the validation and test studies after each epoch, and their labels.
    """
    config = _config("--flagfile=covidscan/presets/demo.flags", "--eval_every=1")
    config = dataclasses.replace(config, width=None)
    if not lesion_masks:
        config = dataclasses.replace(config, lesion_loss=0.0, epochs=Config.epochs)
    studies = load_dataset(config, DataPaths(data_dir))
    rows = studies.parts["train"]
    held = np.concatenate([studies.parts["validation"], studies.parts["test"]])
    experiment = create_experiment(config, len(studies.labels.names), studies.volume_shape, len(rows))
    fields = ["volume", *(["lesion_mask", "has_lesion_mask"] if lesion_masks else [])]

    def scores() -> Iterator[np.ndarray]:
        train_step, predict = experiment.train_step(), experiment.predictor()
        labels = studies.labels.values[rows].astype(np.int32)
        order = BatchOrder(labels, seed=config.seed, class_balance=config.class_balance, batch_size=config.batch_size)
        weights = loss_weights(labels, config.class_balance == "loss")
        examples = TrainingRecords(studies.records, rows, fields, labels, weights, order).read()
        share = devices.share_of_batch(config.batch_size)
        batches = prefetch_to_devices(gather_batches(examples, order, share, range(experiment.num_steps)))
        state = devices.replicate(experiment.create_state())
        for step, batch in enumerate(batches, 1):
            state, *_ = train_step(state, batch)
            if step % experiment.steps_per_evaluation == 0 or step == experiment.num_steps:
                variables = covidscan_steps.eval_variables(state)
                logits = predict(variables, lambda row: studies.records[row]["volume"], held)
                yield logits[:, 1] - logits[:, 0]

    return scores(), studies.labels.values[held]


if __name__ == "__main__":
    compiler_arguments.set_arguments()  # as every command does
    output = replies.open_output()
    what, settings = replies.settings()
    if what == "steps":
        replies.reply_with_timings(output, steps(**settings))
    else:
        replies.report_aurocs(output, *learn(**settings))
