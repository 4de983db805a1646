"""Keras 3 on TensorFlow: times steps, or trains with the published recipes."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
# By default TensorFlow uses oneDNN on newer CPUs only; on others a step without it takes four times as long.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import random
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage

from tests.peers import replies
from tests.peers.networks import keras_networks

ANGLES = (-20, -10, -5, 5, 10, 20)  # the Keras example's, degrees


def _compiled(network: str, shape: tuple[int, int, int], learning_rate) -> keras.Model:
    model = keras_networks.NETWORKS[network](shape)
    one_logit = model.output_shape[-1] == 1
    losses = keras.losses
    loss = losses.BinaryCrossentropy if one_logit else losses.SparseCategoricalCrossentropy
    # Keras would use XLA, whose 3-D convolutions take about twice as long as TensorFlow's own on CPUs.
    model.compile(keras.optimizers.Adam(learning_rate), loss(from_logits=True), jit_compile=False)
    return model


def steps(network: str, shape: list[int], batch_size: int) -> dict:
    """Return tasks: a training step, and the inference of a batch."""
    model = _compiled(network, tuple(shape), 1e-4)
    hu, labels = replies.synthetic_batch(tuple(shape), batch_size)
    volumes = replies.windowed(hu)[..., None]
    return {
        "train": lambda: model.train_on_batch(volumes, labels),
        "predict": lambda: model.predict_on_batch(volumes),
    }


def _rotated(volume: np.ndarray) -> np.ndarray:
    """Rotate a volume (slice, row, column) in plane by one of the example's angles."""
    rotated = ndimage.rotate(volume, random.choice(ANGLES), axes=(1, 2), reshape=False)
    return np.clip(rotated, 0, 1)


def _augmented(volume, label):
    rotated = tf.numpy_function(_rotated, [volume], tf.float32)
    return tf.ensure_shape(rotated, volume.shape)[..., None], label


def _halved(volumes: np.ndarray) -> np.ndarray:
    """Halve rows and columns by averaging: the original CovidScan's grid of 64x64x32."""
    studies, slices, rows, columns = volumes.shape
    return volumes.reshape(studies, slices, rows // 2, 2, columns // 2, 2).mean((3, 5))


def learn(network: str, records: str) -> tuple[Iterator[np.ndarray], np.ndarray]:
    """Train with the network's published recipe.

    Returns:
      The held-out studies' scores after each epoch, without end, and their labels.
    """
    volumes, labels = replies.load_records(records, "train")
    held_volumes, held_labels = replies.load_records(records, "held")
    learning_rate = 1e-4
    if network == "keras_example":
        learning_rate = keras.optimizers.schedules.ExponentialDecay(1e-4, 100_000, 0.96, staircase=True)
    else:
        volumes, held_volumes = _halved(volumes), _halved(held_volumes)
    studies = tf.data.Dataset.from_tensor_slices((volumes, labels)).shuffle(len(labels))
    if network == "keras_example":
        studies = studies.map(_augmented)
    batches = studies.batch(2).prefetch(2)
    model = _compiled(network, volumes.shape[1:], learning_rate)

    def scores() -> Iterator[np.ndarray]:
        while True:
            model.fit(batches, shuffle=False, verbose=0)  # `batches` are shuffled
            logits = model.predict(held_volumes[..., None], batch_size=2, verbose=0)
            yield logits[:, -1] - (logits[:, 0] if logits.shape[1] > 1 else 0)

    return scores(), held_labels


if __name__ == "__main__":
    output = replies.open_output()
    what, settings = replies.settings()
    tf.config.threading.set_intra_op_parallelism_threads(replies.CORES)
    tf.config.threading.set_inter_op_parallelism_threads(replies.CORES)
    keras.utils.set_random_seed(0)
    if what == "steps":
        replies.reply_with_timings(output, steps(**settings))
    else:
        replies.report_aurocs(output, *learn(**settings))
