"""Sampling: the order of the training studies, and their weights in the loss.

The order is a pure function of (seed, step), so a checkpoint needs to save nothing about it.
"""

import functools

import numpy as np


def epoch_order(seed: int, epoch: int, labels: np.ndarray, balance: bool) -> np.ndarray:
    """Return the order of the studies in an epoch.

    Args:
      seed: the run's seed.
      epoch: number of the epoch.
      labels: (row,) of the training studies.
      balance: whether each label is drawn equally often; rare studies are then repeated, and frequent ones are not
        drawn in every epoch.

    Returns:
      (row,) indices into `labels`, as many as there are rows.
    """
    generator = np.random.default_rng([seed, epoch])
    rows = len(labels)
    if not balance:
        return generator.permutation(rows)
    present = np.unique(labels)
    quotas = np.full(len(present), rows // len(present))
    quotas[generator.permutation(len(present))[: rows % len(present)]] += 1
    drawn = []
    for label, quota in zip(present, quotas, strict=True):
        of_label = np.flatnonzero(labels == label)
        passes = [generator.permutation(of_label) for _ in range(-(-quota // len(of_label)))]
        drawn.append(np.concatenate(passes)[:quota])
    return generator.permutation(np.concatenate(drawn))


class BatchOrder:
    """The training rows in each step's global batch.

    Args:
      labels: (row,) of the training studies.
      seed: the run's seed.
      class_balance: "sampling" draws each label equally often.
      batch_size: of the global batch.
    """

    def __init__(self, labels: np.ndarray, *, seed: int, class_balance: str, batch_size: int):
        balance = class_balance == "sampling"
        self._epoch = functools.lru_cache(maxsize=4)(lambda epoch: epoch_order(seed, epoch, labels, balance))
        self._rows = len(labels)
        self.batch_size = batch_size

    def rows(self, step: int) -> np.ndarray:
        """Return (batch,) indices into `labels`: the next ones in the concatenated orders of all epochs."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        return np.array([self._epoch(position // self._rows)[position % self._rows] for position in positions])


def loss_weights(labels: np.ndarray, balance: bool) -> np.ndarray:
    """Return (row,) weights: inverse label frequencies with mean 1, or all 1 without `balance`."""
    if not balance:
        return np.ones(len(labels), np.float32)
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return (len(labels) / (len(counts) * counts[inverse])).astype(np.float32)
