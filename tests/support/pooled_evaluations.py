"""A cross-validation's evaluation: each study predicted by the network of its fold, at that fold's own threshold."""

from typing import Any

import numpy as np

from covidscan.evaluation.summary import summarize
from covidscan.metrics import metrics_json
from covidscan.metrics import thresholds as decisions
from covidscan.metrics.results import OperatingPoint
from tests.support.full_evaluations import Evaluation

THRESHOLDS = (0.31, 0.44, 0.58, 0.62, 0.73)  # of the folds
POINT = {
    "criterion": "youden",
    "described": "The best sum. Each fold has its own threshold (0.31, 0.44, 0.58, 0.62, 0.73).",
    "threshold": None,
    "temperature": 1.375,
    "num_studies": 331,
    "step": 1200,
}


def pooled_context(context: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Change a context of one network into that of the five of a cross-validation."""
    counts: dict[str, int] = {}
    for labels in context["counts"].values():
        counts = {name: counts.get(name, 0) + number for name, number in labels.items()}
    opening = {"date": "2026-01-31", "dataset": context["dataset"], "checkpoint": 1200, "command": "cross"}
    return {
        **context,
        "config": {**context["config"], "protocol": "kfold", "num_folds": 5},
        "part": "out_of_fold",
        "arrangement": "out_of_fold",
        "num_members": 5,
        "counts": {"out_of_fold": counts},
        "flow": {**context["flow"], "protocol": "kfold", "parts": {"out_of_fold": sum(counts.values())}},
        "test_openings": [{**opening, "fold": fold} for fold in range(5)],
        **changes,
    }


def own_thresholds(number: int) -> np.ndarray:
    """Return the threshold of each study's fold."""
    return np.resize(THRESHOLDS, number)


def pooled(evaluation: Evaluation) -> Evaluation:
    """Evaluate an evaluation's studies again, each at its fold's threshold."""
    predictions = evaluation.predictions
    thresholds = None if predictions.task == "classes" else own_thresholds(len(predictions.study_id))
    point = metrics_json.load(OperatingPoint, POINT)
    again = metrics_json.evaluation_to_json(summarize(predictions, thresholds, point))
    named = ("threshold", "operating_point", "figures", "confusion_matrix", "sensitivities", "failures", "disease")
    result = evaluation.result | {name: again[name] for name in named if name in again}
    return evaluation._replace(result=result, context=pooled_context(evaluation.context))


def counted(evaluation: Evaluation) -> list[list[int]]:
    """Count no and yes of the first question by hand: a row of the reference standard."""
    predictions = evaluation.predictions
    yes, score = decisions.dichotomies(predictions.task, predictions.label, predictions.probability)[0]
    called = [score[k] >= THRESHOLDS[k % 5] for k in range(len(yes))]
    return [[sum(c == b and y == a for c, y in zip(called, yes, strict=True)) for b in (0, 1)] for a in (0, 1)]
