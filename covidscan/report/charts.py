"""Data of the report's curves, computed once for the pictures (Matplotlib) and the page (Plotly)."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn import metrics as sk

from covidscan.metrics import thresholds
from covidscan.metrics.interval_methods import Interval
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import Evaluation
from covidscan.metrics.roc import auroc_metric
from covidscan.metrics.roc_band import RocBand, roc_band
from covidscan.report.explorer import Explorer, explore


class Curve(NamedTuple):
    """Points of a curve, x (point,) and y (point,)."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class QuestionCurves:
    """ROC and precision-recall curve of one yes-or-no question of a task.

    Attributes:
      name: of the positive answer.
      roc: sensitivity by false positive rate.
      band: of the same.
      precision_recall: precision by recall.
      auroc: area under the first.
      interval: (low, high) of it, 95 %; None of too few studies.
      auprc: average precision.
      num_positive: studies whose answer is yes.
      num_studies: all studies.
    """

    name: str
    roc: Curve
    band: RocBand
    precision_recall: Curve
    auroc: float
    interval: Interval | None
    auprc: float
    num_positive: int
    num_studies: int

    @property
    def prevalence(self) -> float:
        """Share of positives, the AUPRC of always answering yes."""
        return self.num_positive / self.num_studies


@dataclass(frozen=True)
class ChartData:
    """Everything that is drawn of an evaluation, but for what the evaluation itself holds.

    Attributes:
      curves: of each question that has both answers among the studies.
      explorer: None of a task without a threshold.
      operating_dot: (false positive rate, sensitivity) at the threshold or thresholds of the binary task, else None.
      learning: see `learning`.
      steps_per_epoch: of the run; None where it is not known.
    """

    curves: list[QuestionCurves]
    explorer: Explorer | None
    operating_dot: tuple[float, float] | None
    learning: dict[str, dict[str, Curve]]
    steps_per_epoch: float | None = None

    def to_json(self, evaluation: Evaluation) -> dict[str, Any]:
        """Return what the page's script reads."""
        calibration = evaluation.calibration
        return {
            "explorer": self.explorer and self.explorer.to_json(),
            "curves": [_curves_to_json(curves) for curves in self.curves],
            "decision": evaluation.decision_curve and asdict(evaluation.decision_curve),
            "reliability": calibration
            and {when: asdict(getattr(calibration, when))["bins"] for when in ("before", "after")},
            "learning": {
                name: {split: {"x": curve.x.tolist(), "y": curve.y.tolist()} for split, curve in splits.items()}
                for name, splits in self.learning.items()
            },
            "steps_per_epoch": self.steps_per_epoch,
        }


def chart_data(
    predictions: Predictions,
    threshold: thresholds.Threshold,
    history: Iterable[Mapping[str, Any]] = (),
    steps_per_epoch: float | None = None,
) -> ChartData:
    """Compute what is drawn of predictions.

    Args:
      predictions: of a model.
      threshold: operating point, one or each study's own; None of a task without one.
      history: the lines of the run's metrics.jsonl.
      steps_per_epoch: of the run.
    """
    found = curves(predictions)
    dot = None
    if found and predictions.task == "binary" and threshold is not None:
        called, positive = predictions.probability[:, 1] >= threshold, predictions.label == 1
        dot = float(called[~positive].mean()), float(called[positive].mean())
    return ChartData(found, explore(predictions, threshold), dot, learning(history), steps_per_epoch)


def curves(predictions: Predictions) -> list[QuestionCurves]:
    """Compute the curves of each question of a task that has both answers among the studies."""
    names = thresholds.question_names(predictions.task, predictions.label_names)
    questions = thresholds.dichotomies(predictions.task, predictions.label, predictions.probability)
    found = []
    for name, (positive, score) in zip(names, questions, strict=True):
        auroc = auroc_metric(positive, score, predictions.patient)
        if auroc.value is None:
            continue
        false_positive_rate, sensitivity, _ = sk.roc_curve(positive, score)
        yes, no = int(positive.sum()), int((~positive).sum())
        counts = np.rint(false_positive_rate * no), np.rint(sensitivity * yes)
        precision, recall, _ = sk.precision_recall_curve(positive, score)
        found.append(
            QuestionCurves(
                name=name,
                roc=Curve(false_positive_rate, sensitivity),
                band=roc_band(*counts, no, yes),
                precision_recall=Curve(recall, precision),
                auroc=auroc.value,
                interval=auroc.interval,
                auprc=float(sk.average_precision_score(positive, score)),
                num_positive=yes,
                num_studies=len(positive),
            )
        )
    return found


def learning(history: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    """Collect "loss", "auroc", "mae" and "learning_rate" -> split -> values by step from the lines of metrics.jsonl.

    The later line of a step counts; what is absent, null or not finite is left out.
    """
    values: dict[str, dict[str, dict[int, float]]] = {"loss": {}, "auroc": {}, "mae": {}, "learning_rate": {}}
    for line in history:
        for name, splits in values.items():
            of_step = splits.setdefault(line["split"], {})
            of_step.pop(line["step"], None)
            if line.get(name) is not None and np.isfinite(line[name]):
                of_step[line["step"]] = line[name]
    found: dict[str, dict[str, Curve]] = {}
    for name, splits in values.items():
        for split, of_step in splits.items():
            if of_step:
                steps = np.array(sorted(of_step))
                found.setdefault(name, {})[split] = Curve(steps, np.array([of_step[int(step)] for step in steps]))
    return found


def _curves_to_json(curves: QuestionCurves) -> dict[str, Any]:
    points = {  # with more digits than a screen shows
        name: {"x": curve.x.round(5).tolist(), "y": curve.y.round(5).tolist()}
        for name, curve in (("roc", curves.roc), ("precision_recall", curves.precision_recall))
    }
    points["band"] = {name: line.round(5).tolist() for name, line in zip("xy", curves.band.outline(), strict=True)}
    return {
        "name": curves.name,
        "auroc": curves.auroc,
        "auprc": curves.auprc,
        "prevalence": curves.prevalence,
        **points,
    }


def plotly_gzip() -> str:
    """Return plotly.js with its cartesian plots as base64 of gzip; the page unpacks it."""
    return base64.b64encode((Path(__file__).parent / "plotly" / "plotly-cartesian.min.js.gz").read_bytes()).decode()
