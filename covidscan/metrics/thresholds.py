"""Decision thresholds: the yes-or-no questions of a task, decisions at a threshold, and the choice of one."""

from collections.abc import Sequence

import numpy as np

CRITERIA = ("youden", "sensitivity", "cost", "accuracy")

# One for all, each study's own (study,), or none; of "severity" also one for each question, (1, question) for all
# studies or (study, question); of "multilabel" one for each label.
Threshold = float | np.ndarray | None


def is_explained(task: str) -> bool:
    """Return whether maps explain the predictions of a task, which are of labels."""
    return task != "regression"


def is_of_each_label(task: str) -> bool:
    """Return whether each label of a task has maps of its own; those of the others explain disease."""
    return task in ("classes", "multilabel")


def frozen(threshold: float | None, grade_thresholds: Sequence[float]) -> Threshold:
    """Return the threshold of all questions, or one for each where there are several."""
    return np.asarray([grade_thresholds], np.float64) if grade_thresholds else threshold


def of_question(threshold: Threshold, question: int) -> Threshold:
    """Return the threshold of a question of `dichotomies`: one, or each study's own (study,)."""
    if not isinstance(threshold, np.ndarray) or threshold.ndim == 1:
        return threshold
    column = threshold[:, question]
    return float(column[0]) if len(column) == 1 else column


def of_studies(threshold: Threshold, members: np.ndarray) -> Threshold:
    """Return the thresholds of some studies."""
    is_each_studys = isinstance(threshold, np.ndarray) and (threshold.ndim == 1 or len(threshold) > 1)
    return threshold[members] if isinstance(threshold, np.ndarray) and is_each_studys else threshold


def dichotomies(task: str, label: np.ndarray, probability: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split a task into the yes-or-no questions whose ROC curves are drawn and averaged.

    Args:
      task: "binary": positive or not. "severity": graver than each grade but the last. "classes": each
        against the rest. "multilabel": each label. "regression" has none.
      label: (study,); of "multilabel" (study, label), 0 or 1.
      probability: (study, label).

    Returns:
      Pairs of (study,) arrays: whether the answer is yes by the reference standard, and the probability of
      yes.
    """
    num_labels = probability.shape[1]
    if task == "regression":
        return []
    if task == "multilabel":
        return [(label[:, k] == 1, probability[:, k]) for k in range(num_labels)]
    if task == "binary":
        return [(label == 1, probability[:, 1])]
    if task == "severity":
        # Rounding keeps sums of the same probabilities in another order from breaking ties.
        return [(label > k, probability[:, k + 1 :].sum(1).round(12)) for k in range(num_labels - 1)]
    return [(label == k, probability[:, k]) for k in range(num_labels)]


def question_names(task: str, label_names: Sequence[str]) -> list[str]:
    """Return names of the yes-or-no questions of `dichotomies`, in their order."""
    if task == "regression":
        return []
    if task == "binary":
        return [label_names[1]]
    if task == "severity":
        return [f"{name} or graver" for name in label_names[1:-1]] + [label_names[-1]]
    return list(label_names)


def decide(task: str, probability: np.ndarray, threshold: Threshold = 0.5) -> np.ndarray:
    """Choose a label for each study.

    Args:
      task: "binary": positive where its probability reaches the threshold. "severity": the grade up to
        which every P(label > k) is at or above its threshold, with one of 0.5 the median grade; whether it is above
        CT-0 is the binary answer at the same threshold. "classes": the likeliest; no threshold.
      probability: (study, label).
      threshold: operating point, see `Threshold`; None only for "classes".

    Returns:
      (study,), int64; of "multilabel" (study, label), 1 where a label's probability reaches its threshold.
    """
    probability = np.asarray(probability, np.float64)
    if task == "classes":
        return probability.argmax(1)
    if task == "multilabel":
        threshold = 0.5 if threshold is None else threshold
        return (probability >= threshold).astype(np.int64)
    questions = dichotomies(task, np.zeros(len(probability), np.int64), probability)
    above = [score >= of_question(threshold, k) for k, (_, score) in enumerate(questions)]
    return np.logical_and.accumulate(above).sum(0, dtype=np.int64)


def choose_threshold(
    positive: np.ndarray, score: np.ndarray, criterion: str, *, target_sensitivity: float, cost_ratio: float
) -> float:
    """Choose an operating point; a study with `score >= threshold` is called positive.

    The threshold lies midway between two neighbouring scores (or between one and 0 or 1), because any value between
    them gives the same decisions on these studies, and the middle leaves most margin for others. Of equally good
    thresholds the lowest is taken, because it misses fewest positives; so the choice does not depend on the order of
    the studies.

    Args:
      positive: (study,), bool or 0/1, of validation studies; never of those that the threshold is evaluated on.
      score: (study,), probability of positive, from 0 to 1.
      criterion: "youden": greatest sensitivity + specificity - 1 (Youden, Cancer 1950), where both matter alike
        whatever the prevalence. "sensitivity": the highest threshold that reaches `target_sensitivity`, and so the best
        specificity at it, where a limit on misses is agreed. "cost": least `cost_ratio` x false negatives + false
        positives, where the harms are known and the prevalence is that of these studies. "accuracy": most studies
        right, at the prevalence of these studies.
      target_sensitivity: from 0 to 1, for "sensitivity".
      cost_ratio: how many false positives a false negative is worth, above 0, for "cost".

    Returns:
      The threshold, in (0, 1); 0.5 where only one label is present. Where positives of score 0 put the target out of
      reach, the sensitivity comes as near as it can.

    Raises:
      ValueError: the criterion is none of `CRITERIA`.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"`criterion` (={criterion!r}) must be one of {', '.join(CRITERIA)}.")
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return 0.5
    thresholds = _candidates(score)
    true_positives = positives - np.searchsorted(np.sort(score[positive]), thresholds)
    false_positives = negatives - np.searchsorted(np.sort(score[~positive]), thresholds)
    if criterion == "youden":
        # In whole numbers, so that equals are equal.
        return float(thresholds[np.argmax(true_positives * negatives - false_positives * positives)])
    if criterion in ("cost", "accuracy"):
        cost_ratio = cost_ratio if criterion == "cost" else 1.0
        return float(thresholds[np.argmin(cost_ratio * (positives - true_positives) + false_positives)])
    target = target_sensitivity * positives - 1e-9  # 0.07 x 100 is a little more than 7
    return float(thresholds[np.flatnonzero(true_positives >= min(target, true_positives.max()))[-1]])


def _candidates(score: np.ndarray) -> np.ndarray:
    """Return a threshold for each way to split the scores, rising, each inside (0, 1) and far from scores."""
    known = np.unique(score)
    middle = known[:-1] / 2 + known[1:] / 2
    # No float lies between neighbouring floats: the higher one splits them as well.
    between = np.where(middle > known[:-1], middle, known[1:])
    lowest = max(known[0] / 2, np.nextafter(0, 1))  # calls every study positive, unless a score is 0
    highest = known[-1] / 2 + 0.5  # calls none positive, unless a score is 1
    found = np.concatenate([[lowest], between, [highest] if highest > known[-1] else []])
    return np.unique(found[(found > 0) & (found < 1)])
