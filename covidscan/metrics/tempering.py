"""One number that mends probabilities, a temperature, and the question by which they are judged."""

from typing import Any

import numpy as np
from scipy import optimize, special

from covidscan.metrics import thresholds

COLDEST, HOTTEST = 1 / 20, 20.0
_TINY = np.finfo(np.float64).tiny


def _log(probability: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probability, _TINY))


def _log_odds_above(probability: np.ndarray) -> np.ndarray:
    """Give the log-odds of label > k, (study, label - 1), of probability (study, label), from sums, not 1 - x."""
    below = np.cumsum(probability, axis=1)[:, :-1]
    above = np.cumsum(probability[:, ::-1], axis=1)[:, ::-1][:, 1:]
    return _log(above) - _log(below)


def temper(task: str, probability: np.ndarray, temperature: float) -> np.ndarray:
    """Soften (temperature > 1) or sharpen (< 1) probabilities without changing which is likelier.

    Args:
      task: "binary" or "classes": softmax of the log probabilities by the temperature (Guo et al., ICML 2017).
        "severity": each P(label > k) goes through its own log-odds by the temperature, as the network's outputs are
        such log-odds; their order is kept, so no grade's probability turns negative.
      probability: (study, label), each row sums to 1.
      temperature: above 0; 1 changes nothing.

    Returns:
      (study, label), float64. Small probabilities keep their relative precision; those near 1 end at 1 where float64
      does.
    """
    probability = np.asarray(probability, np.float64)
    if temperature == 1:
        return probability.copy()
    if task != "severity":
        return special.softmax(_log(probability) / temperature, axis=1)
    above = _log_odds_above(probability) / temperature
    higher, lower = above[:, :-1], np.minimum(above[:, 1:], above[:, :-1])
    # expit(a) - expit(b), without the loss of a difference of like numbers.
    middle = special.expit(higher) * special.expit(-lower) * -np.expm1(lower - higher)
    return np.concatenate([special.expit(-above[:, :1]), middle, special.expit(above[:, -1:])], axis=1)


def fit_temperature(task: str, label: np.ndarray, probability: np.ndarray) -> float:
    """Find the temperature at which validation studies are likeliest.

    One number, because more parameters fit the noise of the few hundred studies that a validation part has; and it
    leaves the AUROC of two labels as it is.

    Args:
      task: see `temper`.
      label: (study,), of validation studies.
      probability: (study, label).

    Returns:
      The temperature of the least negative log likelihood (for "severity" summed over the questions "graver than k",
      as in training), from 1/20 to 20: a model that errs nowhere would run to 0 and ends at the bound. 1 where only one
      label is present, or where no temperature does better.
    """
    label, probability = np.asarray(label, np.int64), np.asarray(probability, np.float64)
    if label.min() == label.max():
        return 1.0
    if task == "severity":
        log_odds = _log_odds_above(probability)
        signed = np.where(label[:, None] > np.arange(log_odds.shape[1]), log_odds, -log_odds)
    else:
        logits = _log(probability)
        right = logits[np.arange(len(label)), label]

    def loss(log_temperature: float) -> float:
        by = np.exp(-log_temperature)
        if task == "severity":
            return float(-special.log_expit(signed * by).sum(1).mean())
        return float((special.logsumexp(logits * by, axis=1) - right * by).mean())

    found: Any = optimize.minimize_scalar(
        loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-7}
    )
    return float(np.exp(found.x)) if found.fun < loss(0.0) - 1e-12 else 1.0


def confidence(task: str, label: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Give the yes-or-no question that a task's calibration is about.

    Args:
      task: "binary": label 1. "severity": graver than the first grade. "classes": whether the likeliest label is right.
      label: (study,).
      probability: (study, label).

    Returns:
      Whether the answer is yes, (study,) bool; the probability of yes, (study,) float64; the question.
    """
    label, probability = np.asarray(label), np.asarray(probability, np.float64)
    if task == "classes":
        return label == probability.argmax(1), probability.max(1), "Is the likeliest label right?"
    question = "Is the study positive?" if task == "binary" else "Is the study graver than the first grade?"
    return *thresholds.dichotomies(task, label, probability)[0], question
