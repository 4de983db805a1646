"""Networks in Keras: (batch, slice, row, column, 1) -> logits."""

import keras
from keras import layers


def _convolutions(x, widths: tuple[int, ...], padding: str):
    for width in widths:
        x = layers.Conv3D(width, 3, padding=padding, activation="relu")(x)
        x = layers.MaxPooling3D(2)(x)
        x = layers.BatchNormalization()(x)
    return x


def covidscan_cnn(shape: tuple[int, int, int]) -> keras.Model:
    """The original CovidScan's network for volumes of `shape` (slice, row, column)."""
    inputs = keras.Input((*shape, 1))
    x = layers.Flatten()(_convolutions(inputs, (64, 128), "valid"))
    x = layers.Dense(512, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    x = layers.Dense(256, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(2)(x))


def keras_example(shape: tuple[int, int, int]) -> keras.Model:
    """The Keras example's network for volumes of `shape` (slice, row, column)."""
    inputs = keras.Input((*shape, 1))
    x = layers.GlobalAveragePooling3D()(_convolutions(inputs, (64, 64, 128, 256), "same"))
    x = layers.Dense(512, activation="relu")(x)
    x = layers.Dropout(0.3)(x)
    return keras.Model(inputs, layers.Dense(1)(x))


NETWORKS = {"covidscan_cnn": covidscan_cnn, "keras_example": keras_example}


def count(model: keras.Model) -> int:
    """Count the network's parameters, running statistics included."""
    return model.count_params()
