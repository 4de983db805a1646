"""Sampling: the order of the training studies, and their weights in the loss.

The order is a pure function of (seed, step), so a checkpoint needs to save nothing about it.
"""

import functools

import numpy as np

MASKED_SHARE = 1 / 4  # of all examples, at least
MOST_MASKED = 1 / 2  # of a label's examples: its other studies are not crowded out
MOST_REPEATS = 8  # of a study in an epoch, for its mask: otherwise a single one would be half of its label's examples


def epoch_order(
    seed: int, epoch: int, labels: np.ndarray, balance: bool, masked: np.ndarray | None = None
) -> np.ndarray:
    """Return the order of the studies in an epoch.

    Studies whose masks mark lesions are a quarter of the examples at least, where there are any: rarer ones are
    repeated in place of others of their label, up to 8 times, but make up no more than half of its examples.

    Args:
      seed: the run's seed.
      epoch: number of the epoch.
      labels: (row,) of the training studies.
      balance: whether each label is drawn equally often; rare studies are then repeated, and frequent ones are not
        drawn in every epoch.
      masked: (row,) bool, whether a study has a mask that marks lesions; None where masks are not used.

    Returns:
      (row,) indices into `labels`, as many as there are rows.
    """
    generator = np.random.default_rng([seed, epoch])
    rows = len(labels)
    present, counts = np.unique(labels, return_counts=True)
    quotas = counts
    if balance:
        quotas = np.full(len(present), rows // len(present))
        quotas[generator.permutation(len(present))[: rows % len(present)]] += 1
    groups = [(np.flatnonzero(labels == label), quota) for label, quota in zip(present, quotas, strict=True)]
    extra = _masked_quotas(groups, masked)
    if extra is None and not balance:
        return generator.permutation(rows)
    if extra is not None:
        assert masked is not None
        groups = [
            part
            for (members, quota), own in zip(groups, extra, strict=True)
            for part in ((members[masked[members]], own), (members[~masked[members]], quota - own))
        ]
    drawn = []
    for members, quota in groups:
        passes = [generator.permutation(members) for _ in range(-(-quota // len(members)) if quota else 0)]
        drawn.append(np.concatenate([members[:0], *passes])[:quota])
    return generator.permutation(np.concatenate(drawn))


def _masked_quotas(groups: list[tuple[np.ndarray, int]], masked: np.ndarray | None) -> list[int] | None:
    """Return how many examples of each label are to have a mask; None where enough have one as they are drawn."""
    if masked is None or not masked.any():
        return None
    shares = [masked[members].mean() for members, _ in groups]
    usual = [share * quota for share, (_, quota) in zip(shares, groups, strict=True)]
    rows = sum(quota for _, quota in groups)
    if sum(usual) >= MASKED_SHARE * rows:
        return None
    # A label whose studies all have a mask has as many as it ever can.
    most = [
        quota if share == 1 else max(min(MOST_MASKED * quota, MOST_REPEATS * share * len(members)), expected)
        for share, expected, (members, quota) in zip(shares, usual, groups, strict=True)
    ]
    room = sum(most) - sum(usual)
    raised = min(1.0, (MASKED_SHARE * rows - sum(usual)) / room) if room else 0.0
    return [
        min(quota, int(np.ceil(expected + raised * (highest - expected) - 1e-9)))
        for expected, highest, (_, quota) in zip(usual, most, groups, strict=True)
    ]


class BatchOrder:
    """The training rows in each step's global batch.

    Args:
      labels: (row,) of the training studies.
      seed: the run's seed.
      class_balance: "sampling" draws each label equally often.
      batch_size: of the global batch.
      masked: see `epoch_order`.
    """

    def __init__(
        self,
        labels: np.ndarray,
        *,
        seed: int,
        class_balance: str,
        batch_size: int,
        masked: np.ndarray | None = None,
    ):
        balance = class_balance == "sampling"
        self._epoch = functools.lru_cache(maxsize=4)(lambda epoch: epoch_order(seed, epoch, labels, balance, masked))
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
