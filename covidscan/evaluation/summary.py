"""Metrics of predictions beside the baseline's, their calibration, and the worst failures."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from covidscan.evaluation.subgroups import failures
from covidscan.metrics import calibration, classification, tempering, thresholds
from covidscan.metrics import intervals as uncertainty
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.thresholds import Threshold


def _table(task: str, label: np.ndarray, probability: np.ndarray, threshold: Threshold) -> dict[str, Any]:
    """Put a model's figures beside the baseline's: "baseline", "figures", "confusion_matrix" of `judge`."""
    baseline_name, constant = classification.constant_probability(task, label, probability.shape[1])
    model = classification.figures(task, label, probability, threshold)
    baseline = classification.figures(task, label, constant, 0.5)
    counts = classification.confusion(label, thresholds.decide(task, probability, threshold), probability.shape[1])
    intervals = uncertainty.intervals(task, label, probability, threshold)

    def figure(name: str, value: float | None) -> dict[str, Any]:
        low, high, method = intervals.get(name, (None, None, None))
        interval = None if method is None else [low, high]
        return {"value": value, "interval": interval, "method": method, "baseline": baseline[name]}

    return {
        "baseline": baseline_name,
        "figures": {name: figure(name, value) for name, value in model.items()},
        "confusion_matrix": counts.tolist(),
    }


def _calibration(predictions: Predictions) -> dict[str, Any]:
    """Judge probabilities as probabilities, before and after temperature scaling: "calibration", "decision_curve"."""
    task, label = predictions.task, predictions.label
    positive, after, question = tempering.confidence(task, label, predictions.probability)
    positive_before, before, _ = tempering.confidence(task, label, predictions.uncalibrated)
    both = 0 < np.sum(positive) < len(label)
    return {
        "calibration": {
            "question": question,
            "before": calibration.calibration(positive_before, before),
            "after": calibration.calibration(positive, after),
        },
        "decision_curve": calibration.decision_curve(positive, after) if both and task != "classes" else None,
    }


def _smallest_difference(predictions: Predictions) -> dict[str, Any] | None:
    if predictions.task == "classes":
        return None
    positive, score, _ = tempering.confidence(predictions.task, predictions.label, predictions.probability)
    return uncertainty.smallest_difference(positive, score)._asdict()


def judge(
    predictions: Predictions, threshold: Threshold, operating_point: Mapping[str, Any], **beside: Any
) -> dict[str, Any]:
    """Judge predictions beside the baseline that never looks at a scan, on the same studies.

    Args:
      predictions: of a model.
      threshold: see `decisions.decide`; never to be chosen on these studies.
      operating_point: how threshold and temperature were chosen, for the reader: "criterion", "described",
        "threshold", "temperature", "num_studies", "step".
      **beside: what else is to be told: "baselines", "shortcuts", "subgroups", "comparison", "repeats", and
        "notes" beside its own.

    Returns:
      What `metrics.json` holds: "task", "num_studies", "label_names", "counts" (label -> studies), "category_counts",
      "threshold" (None where studies have thresholds of their own, or there is none), "operating_point", "baseline"
      (its name), "figures" (name -> {"value", "interval", "method", "baseline"}), "confusion_matrix" (a row a reference
      label), "sensitivities" (label -> share found), "notes"; for severity also "disease": baseline, figures and
      confusion matrix of the first grade against the others; "calibration", "decision_curve", "smallest_difference",
      "failures"; and what is given beside. Intervals are of 95 %; a value that is not defined is None.
    """
    task, label, probability, names = (
        predictions.task,
        predictions.label,
        predictions.probability,
        predictions.label_names,
    )
    table = _table(task, label, probability, threshold)
    if task != "binary":
        table["baseline"] = (
            f"always {names[classification.constant_probability(task, label, len(names))[1][0].argmax()]}"
        )
    values = {name: figure["value"] for name, figure in table["figures"].items()}
    chosen = thresholds.decide(task, probability, threshold)
    result = {
        "task": task,
        "num_studies": len(predictions.study_id),
        "label_names": list(names),
        "counts": {name: int(np.sum(label == k)) for k, name in enumerate(names)},
        "category_counts": dict(sorted(Counter(predictions.category).items())),
        "threshold": operating_point["threshold"],
        "operating_point": dict(operating_point),
        **table,
        "sensitivities": dict(zip(names, classification.recalls(label, chosen, len(names)), strict=True)),
        "notes": [*classification.undefined_notes(values, label, names), *beside.pop("notes", [])],
        **_calibration(predictions),
        "smallest_difference": _smallest_difference(predictions),
        "failures": failures(task, label, probability, threshold, predictions.study_id, predictions.category, names),
        "baselines": [],
        "shortcuts": [],
        "subgroups": [],
        "comparison": None,
        "repeats": None,
        **beside,
    }
    if task == "severity":
        diseased, score = thresholds.dichotomies(task, label, probability)[0]
        result["disease"] = _table("binary", diseased.astype(int), np.stack([1 - score, score], axis=1), threshold)
    return result
