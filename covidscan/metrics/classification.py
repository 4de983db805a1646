"""Classification metrics of labels and probabilities. A metric that the studies do not define is None, never 0."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn import metrics as sk

from covidscan.metrics.thresholds import Threshold, decide, dichotomies

# Names for the reader, in the order in which they are shown.
TITLES = {
    "auroc": "AUROC",
    "auprc": "AUPRC (average precision)",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "Positive predictive value",
    "npv": "Negative predictive value",
    "f1": "F1",
    "mae": "Mean absolute error",
    "rmse": "Root mean squared error",
    "r2": "R²",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "macro_auroc": "AUROC, macro average",
    "micro_auroc": "AUROC, micro average",
    "label_accuracy": "Accuracy over all labels",
    "exact_match": "Studies with all labels right",
    "macro_f1": "F1, macro average",
    "quadratic_weighted_kappa": "Quadratic weighted kappa",
    "mean_absolute_error": "Mean absolute error (grades)",
    "brier": "Brier score",
    "ece": "Expected calibration error",
    "slope": "Calibration slope",
    "intercept": "Calibration intercept",
}

Values = dict[str, float | None]

_NAN: Any = float("nan")  # as `zero_division`, which scikit-learn declares as text


def compute_metrics(task: str, label: np.ndarray, probability: np.ndarray, threshold: Threshold = 0.5) -> Values:
    """Compute the metrics of a task.

    Args:
      task: "binary", "severity" or "classes".
      label: (study,).
      probability: (study, label).
      threshold: operating point, see `thresholds.decide`.

    Returns:
      Those of `binary_metrics`, `severity_metrics` or `classes_metrics`.
    """
    label, probability = np.asarray(label), np.asarray(probability, np.float64)
    if task == "binary":
        return binary_metrics(label, probability[:, 1], threshold)
    if task == "severity":
        return severity_metrics(label, probability, threshold)
    return classes_metrics(label, probability)


def binary_metrics(label: np.ndarray, score: np.ndarray, threshold: Threshold = 0.5) -> Values:
    """Evaluate a binary classifier.

    Args:
      label: (study,), 1 is positive.
      score: (study,), probability of positive.
      threshold: a study with at least this probability is called positive.

    Returns:
      AUROC, AUPRC (average precision), accuracy, balanced accuracy, sensitivity, specificity, predictive
      values and F1; None for those that need a label, or a prediction, that no study has.
    """
    label = np.asarray(label).astype(np.int64)
    prediction = (np.asarray(score) >= threshold).astype(np.int64)
    sensitivity = _defined(sk.recall_score(label, prediction, zero_division=_NAN))
    specificity = _defined(sk.recall_score(label, prediction, pos_label=0, zero_division=_NAN))
    both = label.min() < label.max()
    return {
        "auroc": binary_auroc(label == 1, score),
        "auprc": float(sk.average_precision_score(label, score)) if both else None,
        "accuracy": float(sk.accuracy_score(label, prediction)),
        "balanced_accuracy": float(sk.balanced_accuracy_score(label, prediction)) if both else None,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": _defined(sk.precision_score(label, prediction, zero_division=_NAN)),
        "npv": _defined(sk.precision_score(label, prediction, pos_label=0, zero_division=_NAN)),
        "f1": _defined(sk.f1_score(label, prediction, zero_division=_NAN)),
    }


def severity_metrics(label: np.ndarray, probability: np.ndarray, threshold: Threshold = 0.5) -> Values:
    """Evaluate ordered grades, label (study,) and probability (study, grade).

    Returns:
      Accuracy, balanced accuracy, Cohen's kappa with quadratic weights, mean absolute error in grades, and
      the mean of the AUROCs of "graver than grade k".
    """
    prediction, grades = decide("severity", probability, threshold), probability.shape[1]
    kappa = None  # not defined where every label and prediction is the same grade
    if len(np.unique(np.concatenate([label, prediction]))) > 1:
        kappa = float(sk.cohen_kappa_score(label, prediction, labels=range(grades), weights="quadratic"))
    return {
        "macro_auroc": mean_auroc(label, probability, "severity"),
        **_accuracies(label, prediction, grades),
        "quadratic_weighted_kappa": kappa,
        "mean_absolute_error": float(sk.mean_absolute_error(label, prediction)),
    }


def classes_metrics(label: np.ndarray, probability: np.ndarray) -> Values:
    """Evaluate unordered classes, label (study,) and probability (study, class).

    Returns:
      Accuracy, balanced accuracy, macro F1 (over classes that are present or predicted), and the mean of the
      AUROCs of each class against the rest.
    """
    prediction, num_labels = decide("classes", probability), probability.shape[1]
    f1 = sk.f1_score(label, prediction, labels=range(num_labels), average="macro", zero_division=_NAN)
    return {
        "macro_auroc": mean_auroc(label, probability),
        **_accuracies(label, prediction, num_labels),
        "macro_f1": _defined(float(f1)),
    }


def binary_auroc(positive: np.ndarray, score: np.ndarray) -> float | None:
    """Area under the ROC curve: the probability that a positive study scores above a negative one, ties half.

    Args:
      positive: (study,), bool or 0/1.
      score: (study,), higher for positive.

    Returns:
      The area, or None where only one label is present or a score is not a number.
    """
    positive = np.asarray(positive, bool)
    defined = positive.any() and not positive.all() and np.isfinite(score).all()
    return float(sk.roc_auc_score(positive, score)) if defined else None


def mean_auroc(label: np.ndarray, probability: np.ndarray, task: str = "classes") -> float | None:
    """Compute the metric that chooses checkpoints: the mean AUROC of a task's `dichotomies` where defined.

    Of two labels "binary" and "classes" have the same value.
    """
    label, probability = np.asarray(label), np.asarray(probability, np.float64)
    return _mean_defined([binary_auroc(yes, score) for yes, score in dichotomies(task, label, probability)])


def confusion_matrix(label: np.ndarray, prediction: np.ndarray, num_labels: int) -> np.ndarray:
    """Count studies: (label, label), a row a reference label, a column a prediction."""
    return sk.confusion_matrix(label, prediction, labels=range(num_labels))


def recalls(label: np.ndarray, prediction: np.ndarray, num_labels: int) -> list[float | None]:
    """Compute the sensitivity of each label; None for a label that no study has."""
    counts = confusion_matrix(label, prediction, num_labels)
    return [float(row[k] / row.sum()) if row.sum() else None for k, row in enumerate(counts)]


def _accuracies(label: np.ndarray, prediction: np.ndarray, num_labels: int) -> Values:
    several = len(np.unique(label)) > 1
    balanced = _mean_defined(recalls(label, prediction, num_labels)) if several else None
    return {"accuracy": float(sk.accuracy_score(label, prediction)), "balanced_accuracy": balanced}


def _defined(value: float) -> float | None:
    """Turn NaN, scikit-learn's "not defined", into None."""
    return None if math.isnan(value) else float(value)


def _mean_defined(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def constant_probability(task: str, label: np.ndarray, num_labels: int) -> tuple[str, np.ndarray]:
    """Make the constant prediction, which never looks at a scan: always positive, or always the commonest label.

    Returns:
      Its name, and its probabilities (study, label), 0 or 1.
    """
    constant = 1 if task == "binary" else int(np.bincount(label, minlength=num_labels).argmax())
    name = "always positive" if task == "binary" else f"always label {constant}"
    return name, np.tile(np.eye(num_labels)[constant], (len(label), 1))


def undefined_notes(values: Mapping[str, float | None], label: np.ndarray, label_names: Sequence[str]) -> list[str]:
    """Write sentences on which metrics are not defined and which labels no study has."""
    notes = []
    absent = [name for k, name in enumerate(label_names) if not np.any(label == k)]
    if absent:
        notes.append(f"No study is {' or '.join(absent)}: averages over labels leave it out.")
    missing = [TITLES[name] for name, value in values.items() if value is None]
    if missing:
        notes.append(f"Not defined on these studies: {', '.join(missing)}.")
    return notes
