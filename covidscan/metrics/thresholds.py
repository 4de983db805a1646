"""From probabilities to labels: the yes-or-no questions that a task is made of, and their answers at a threshold."""

import numpy as np

Threshold = float | np.ndarray | None  # one for all, each study's own (study,), or none


def dichotomies(task: str, label: np.ndarray, probability: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Take a task apart into the yes-or-no questions whose ROC curves are drawn and averaged.

    Args:
      task: "binary": positive or not. "severity": graver than each grade but the last. "classes": each
        against the rest.
      label: (study,).
      probability: (study, label).

    Returns:
      Pairs of (study,) arrays: whether the answer is yes by the reference standard, and the probability of
      yes.
    """
    num_labels = probability.shape[1]
    if task == "binary":
        return [(label == 1, probability[:, 1])]
    if task == "severity":
        # Rounding keeps sums of the same probabilities in another order from breaking ties.
        return [(label > k, probability[:, k + 1 :].sum(1).round(12)) for k in range(num_labels - 1)]
    return [(label == k, probability[:, k]) for k in range(num_labels)]


def decide(task: str, probability: np.ndarray, threshold: Threshold = 0.5) -> np.ndarray:
    """Choose a label for each study.

    Args:
      task: "binary": positive where its probability reaches the threshold. "severity": the median grade, that
        is the number of grades k with P(label > k) at or above the threshold; its being above CT-0 is the
        binary answer at the same threshold. "classes": the likeliest; no threshold.
      probability: (study, label).
      threshold: operating point, one for all or each study's own (study,); None only for "classes".

    Returns:
      (study,), int64.
    """
    probability = np.asarray(probability, np.float64)
    if task == "classes":
        return probability.argmax(1)
    questions = dichotomies(task, np.zeros(len(probability), np.int64), probability)
    return np.stack([score >= threshold for _, score in questions]).sum(0, dtype=np.int64)
