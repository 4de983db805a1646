"""What the page's script needs: curves as numbers, and the answer and score of each study for the threshold slider."""

import base64
import functools
import gzip
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs
from sklearn import metrics as sk

from covidscan.metrics import classification, interval_methods, thresholds
from covidscan.metrics.predictions import Predictions
from covidscan.report import plots

TABLE_THRESHOLDS = np.arange(1, 20) / 20


@functools.cache
def plotly_gzip() -> str:
    """Pack plotly.js as base64 of gzip: a third of its size; the page unpacks it."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 6, mtime=0)).decode()


def operating_numbers(yes: np.ndarray, score: np.ndarray, threshold: float, prevalence: float) -> dict[str, Any]:
    """Count and judge the answers at a threshold.

    Args:
      yes: (study,), bool, by the reference standard.
      score: (study,); yes is answered from the threshold upwards.
      threshold: operating point.
      prevalence: share of yes among those whom the predictive values are meant for.

    Returns:
      "threshold", counts "tp", "fp", "fn", "tn"; "sensitivity" and "specificity"; "ppv" and "npv" by Bayes' rule;
      "net_benefit" and "treat_all", that of always yes, on these studies (Vickers & Elkin, Medical Decision Making
      2006). None where not defined.
    """
    (tn, fp), (fn, tp) = classification.confusion_matrix(yes.astype(int), (score >= threshold).astype(int), 2).tolist()
    sensitivity = tp / (tp + fn) if tp + fn else None
    specificity = tn / (tn + fp) if tn + fp else None
    ppv = npv = None
    if sensitivity is not None and specificity is not None:
        ppv = _share(sensitivity * prevalence, (1 - specificity) * (1 - prevalence))
        npv = _share(specificity * (1 - prevalence), (1 - sensitivity) * prevalence)
    odds = threshold / (1 - threshold) if threshold < 1 else None
    return {
        "threshold": threshold,
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": tn,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": ppv,
        "npv": npv,
        "net_benefit": None if odds is None else (tp - fp * odds) / len(yes),
        "treat_all": None if odds is None else (tp + fn - (tn + fp) * odds) / len(yes),
    }


def _share(part: float, rest: float) -> float | None:
    return part / (part + rest) if part + rest else None


def explorer(predictions: Predictions, threshold: float | None) -> dict[str, Any] | None:
    """Give the first yes-or-no question of a task; None for "classes", which ask none.

    Args:
      predictions: those judged.
      threshold: that of all studies, for the slider; None where each fold has its own.

    Returns:
      "question", "names" (of no and yes), "yes" and "score" (study,), "prevalence", "frozen" and "table"
      (`operating_numbers` at the frozen threshold, with Wilson's "intervals", or None; and at `TABLE_THRESHOLDS`).
    """
    if predictions.task == "classes":
        return None
    yes, score = thresholds.dichotomies(predictions.task, predictions.label, predictions.probability)[0]
    names, prevalence = predictions.label_names, float(yes.mean())
    binary = predictions.task == "binary"
    return {
        "question": f"{names[1]} or {names[0]}" if binary else f"graver than {names[0]}, or not",
        "names": [names[0], names[1] if binary else f"graver than {names[0]}"],
        "yes": yes,
        "score": score,
        "prevalence": prevalence,
        "frozen": None if threshold is None else _frozen(yes, score, threshold, prevalence),
        "table": [operating_numbers(yes, score, float(place), prevalence) for place in TABLE_THRESHOLDS],
    }


def _frozen(yes: np.ndarray, score: np.ndarray, threshold: float, prevalence: float) -> dict[str, Any]:
    frozen = operating_numbers(yes, score, threshold, prevalence)
    counts = {"sensitivity": ("tp", "fn"), "specificity": ("tn", "fp")}
    frozen["intervals"] = {
        name: interval_methods.wilson(frozen[right], frozen[right] + frozen[wrong])
        if frozen[right] + frozen[wrong]
        else None
        for name, (right, wrong) in counts.items()
    }
    return frozen


def curves(predictions: Predictions) -> list[dict[str, Any]]:
    """List the ROC and precision-recall curve of each question of a task that has both answers."""
    found = []
    for name, yes, score in plots.questions(predictions):
        false_positives, sensitivity, _ = sk.roc_curve(yes, score)
        precision, recall, _ = sk.precision_recall_curve(yes, score)
        found.append(
            {
                "name": name,
                "roc": {"x": _short(false_positives), "y": _short(sensitivity)},
                "precision_recall": {"x": _short(recall), "y": _short(precision)},
                "auroc": classification.binary_auroc(yes, score),
                "auprc": float(sk.average_precision_score(yes, score)),
                "share": float(yes.mean()),
                "num_yes": int(yes.sum()),
                "num_studies": len(yes),
            }
        )
    return found


def _short(values: Iterable[float]) -> list[float]:
    """Round to more than a screen shows."""
    return [round(float(value), 5) for value in values]


def learning(history: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Give what is drawn of `metrics.jsonl`: figure -> split -> "x" (steps) and "y", where ever logged."""
    found = {}
    for split, steps in plots.by_split(history).items():
        for name in ("loss", "auroc"):
            x, y = plots.series(steps, name)
            if x:
                found.setdefault(name, {})[split] = {"x": x, "y": y}
    return found


def page_data(
    result: Mapping[str, Any],
    explored: Mapping[str, Any] | None,
    curve: Sequence[Mapping[str, Any]],
    logged: Mapping[str, Any],
) -> dict[str, Any]:
    """Gather what the page's script reads, as plain JSON.

    Args:
      result: what `judge.judge` gave.
      explored: what `explorer` gave.
      curve: what `curves` gave.
      logged: what `learning` gave.
    """
    asked = None
    if explored:
        frozen = explored["frozen"]
        asked = {name: explored[name] for name in ("names", "prevalence")}
        asked |= {"threshold": frozen and frozen["threshold"], "score": explored["score"].tolist()}
        asked["yes"] = "".join("01"[int(answer)] for answer in explored["yes"])
    calibration = result.get("calibration")
    return {
        "asked": asked,
        "curves": curve,
        "decision": result.get("decision_curve"),
        "reliability": calibration and {when: calibration[when]["bins"] for when in ("before", "after")},
        "learning": logged,
    }
