"""Recalibration: scale and offsets of the log-odds, fitted on validation studies.

For two labels it is logistic recalibration (Platt, Advances in Large Margin Classifiers 1999; with its smoothed targets
where asked for); for several, temperature scaling (Guo et al., ICML 2017) with an offset for each label (Alexandari et
al., ICML 2020); for ordered grades, a cumulative logit model with an offset for each question "graver than k". A scale
alone cannot restore the prevalence: sampling that draws each label equally often shifts the log-odds by a constant.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import optimize, special

MIN_TEMPERATURE, MAX_TEMPERATURE = 1 / 20, 20.0
MAX_OFFSET = 20.0
_SIGMOID = ("severity", "multilabel")  # tasks whose outputs are log-odds of a question each
_TINY = np.finfo(np.float64).tiny
_SMALL = np.finfo(np.float64).epsneg


def probabilities(task: str, logits: np.ndarray) -> np.ndarray:
    """Compute the probability of each label from a network's outputs, as `models.heads.probabilities`, but in float64.

    In float32 a logit above 17 is a probability of exactly 1, from which no log-odds can be had back.

    Args:
      task: see `recalibrate`.
      logits: (study, output).

    Returns:
      (study, label), float64. Small probabilities keep their relative precision; those near 1 end at 1 where float64
      does.
    """
    logits = np.asarray(logits, np.float64)
    if task == "multilabel":
        return special.expit(logits)
    if task != "severity":
        return special.softmax(logits, axis=1)
    above = np.minimum.accumulate(logits, axis=1)
    higher, lower = above[:, :-1], above[:, 1:]
    # expit(a) - expit(b), without the cancellation of a difference of nearly equal numbers.
    middle = special.expit(higher) * special.expit(-lower) * np.abs(np.expm1(lower - higher))
    return np.concatenate([special.expit(-above[:, :1]), middle, special.expit(above[:, -1:])], axis=1)


def recalibrate(task: str, probability: np.ndarray, temperature: float, offsets: Sequence[float] = ()) -> np.ndarray:
    """Divide log-odds by a temperature, and add offsets.

    Args:
      task: "binary" or "classes": softmax of the log probabilities divided by the temperature, plus the offset of each
        label. "severity": the same of the log-odds of each P(label > k), as the network's outputs are such log-odds;
        where offsets make P(label > k) rise with k, the lower one is taken, so no grade's probability turns negative.
        "multilabel": the same of the log-odds of each label, which are independent.
      probability: (study, label), each row sums to 1.
      temperature: above 0; more than 1 softens, 1 changes nothing.
      offsets: one for each label, of "severity" for each question; none: 0.

    Returns:
      (study, label), float64, as precise as those of `probabilities`.
    """
    probability = np.asarray(probability, np.float64)
    if temperature == 1 and not any(offsets):
        return probability.copy()
    added = np.asarray(offsets, np.float64) if len(offsets) else 0.0
    return probabilities(task, _logits(task, probability) / temperature + added)


def _log(probability: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probability, _TINY))


def _log_odds_above(probability: np.ndarray) -> np.ndarray:
    """Return the log-odds of label > k, (study, label - 1), of probability (study, label), from sums, not 1 - x."""
    below = np.cumsum(probability, axis=1)[:, :-1]
    above = np.cumsum(probability[:, ::-1], axis=1)[:, ::-1][:, 1:]
    return _log(above) - _log(below)


def _logits(task: str, probability: np.ndarray) -> np.ndarray:
    """Return log probabilities, or log-odds of labels of "multilabel" and of the questions of "severity"."""
    if task == "multilabel":
        return special.logit(np.clip(probability, _TINY, 1 - _SMALL))
    return _log_odds_above(probability) if task == "severity" else _log(probability)


def _logits_and_targets(task: str, label: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of `_logits`, and what their probabilities should be: 0 or 1."""
    logits = _logits(task, probability)
    if task == "multilabel":
        return logits, label == 1
    outputs = np.arange(logits.shape[1])
    return logits, label[:, None] > outputs if task == "severity" else label[:, None] == outputs


def _loss(task: str, logits: np.ndarray, target: np.ndarray) -> float:
    """Compute the mean cross-entropy, for "severity" summed over the questions as in training."""
    if task in _SIGMOID:
        terms = target * special.log_expit(logits) + (1 - target) * special.log_expit(-logits)
        return float(-terms.sum(1).mean())
    return float((special.logsumexp(logits, axis=1) - (target * logits).sum(1)).mean())


def _smoothed(task: str, target: np.ndarray) -> np.ndarray:
    """Return Platt's targets: of n studies with an answer (n + 1) / (n + number of answers) where they have it."""
    present = target.sum(axis=0)
    if task in _SIGMOID:
        return np.where(target, (present + 1) / (present + 2), 1 / (len(target) - present + 2))
    answers = target.shape[1]
    own = present[target.argmax(axis=1)][:, None]
    return np.where(target, (own + 1) / (own + answers), 1 / (own + answers))


def fit_temperature(task: str, label: np.ndarray, probability: np.ndarray) -> float:
    """Find the temperature of greatest likelihood on validation studies, without offsets.

    Args:
      task: see `recalibrate`.
      label: (study,), of validation studies.
      probability: (study, label).

    Returns:
      The temperature of the least negative log likelihood (for "severity" summed over the questions "graver than k",
      as in training), from 1/20 to 20: for a model without errors it would run to 0 and ends at the bound. 1 where only
      one label is present, or where no temperature does better.
    """
    label, probability = np.asarray(label, np.int64), np.asarray(probability, np.float64)
    if label.min() == label.max():
        return 1.0
    logits, target = _logits_and_targets(task, label, probability)

    def loss(log_temperature: float) -> float:
        return _loss(task, logits * np.exp(-log_temperature), target)

    bounds = np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)
    found: Any = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    return float(np.exp(found.x)) if found.fun < loss(0.0) - 1e-12 else 1.0


def fit(task: str, label: np.ndarray, probability: np.ndarray, *, smoothed: bool = False) -> tuple[float, list[float]]:
    """Find the temperature and offsets of greatest likelihood on validation studies.

    Args:
      task: see `recalibrate`.
      label: (study,), of validation studies.
      probability: (study, label).
      smoothed: whether targets are smoothed, as if each answer had occurred once more.

    Returns:
      The temperature, from 1/20 to 20, and the offsets, from -20 to 20; of labels the first is 0. Where studies are
      told apart without an error they would run away, and may end anywhere, unless `smoothed`. Where a label is absent,
      or all studies answer a question alike, which leaves its offset unknown, the temperature of `fit_temperature` and
      offsets of 0.
    """
    label, probability = np.asarray(label, np.int64), np.asarray(probability, np.float64)
    logits, target = _logits_and_targets(task, label, probability)
    outputs = logits.shape[1]
    first = 0 if task in _SIGMOID else 1  # a constant added to all labels' log probabilities changes nothing
    shares = target.mean(axis=0)
    if ((shares == 0) | (shares == 1)).any() if task in _SIGMOID else len(np.unique(label)) < probability.shape[1]:
        return fit_temperature(task, label, probability), [0.0] * outputs
    target = _smoothed(task, target) if smoothed else target.astype(np.float64)

    def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = logits * numbers[0]
        scaled[:, first:] += numbers[1:]
        predicted = special.expit(scaled) if task in _SIGMOID else special.softmax(scaled, axis=1)
        wrong = (predicted - target) / len(label)
        return _loss(task, scaled, target), np.array([(wrong * logits).sum(), *wrong.sum(0)[first:]])

    bounds = [(1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE), *[(-MAX_OFFSET, MAX_OFFSET)] * (outputs - first)]
    start = np.array([1.0, *[0.0] * (outputs - first)])
    options = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 1000}
    found: Any = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return float(1 / found.x[0]), [0.0] * first + [float(offset) for offset in found.x[1:]]


def is_bounded(temperature: float, offsets: Sequence[float]) -> bool:
    """Return whether a fit ended at a bound of its search."""
    low, high = MIN_TEMPERATURE * 1.001, MAX_TEMPERATURE / 1.001
    return not low < temperature < high or any(abs(offset) > MAX_OFFSET / 1.001 for offset in offsets)
