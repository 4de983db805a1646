"""Metrics of a yes-or-no question at every threshold, for the page's slider and its table."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from covidscan.metrics import interval_methods, thresholds
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import Metric

TABLE_THRESHOLDS = [k / 20 for k in range(1, 20)]


@dataclass(frozen=True)
class OperatingRow:
    """Counts and metrics of a yes-or-no question at a threshold; what is not defined is None.

    Attributes:
      tp, fp, fn, tn: studies.
      sensitivity: with Wilson's interval.
      specificity: with Wilson's interval.
      ppv: positive predictive value at these studies' prevalence.
      npv: negative predictive value.
    """

    tp: int
    fp: int
    fn: int
    tn: int
    sensitivity: Metric
    specificity: Metric
    ppv: float | None
    npv: float | None

    def net_benefit(self, threshold: float) -> float:
        """Return the net benefit per study (Vickers & Elkin, Medical Decision Making 2006) below a threshold of 1."""
        odds = threshold / (1 - threshold)
        return (self.tp - self.fp * odds) / (self.tp + self.fp + self.fn + self.tn)

    def treat_all_benefit(self, threshold: float) -> float:
        """Return the net benefit of treating every study as positive."""
        odds = threshold / (1 - threshold)
        return (self.tp + self.fn - (self.fp + self.tn) * odds) / (self.tp + self.fp + self.fn + self.tn)


class OperatingTable:
    """Metrics of a yes-or-no question at every threshold.

    Attributes:
      scores: the distinct scores, rising.
      rows: row k is of thresholds above score k - 1 and up to score k; of the last one no study is predicted positive.
    """

    def __init__(self, positive: np.ndarray, score: np.ndarray):
        self.scores = np.unique(score)
        self.rows = [_operating_row(positive, score >= lowest) for lowest in (*self.scores, np.inf)]

    def at(self, threshold: float) -> OperatingRow:
        """Look up the metrics where studies with at least this score are predicted positive."""
        return self.rows[int(np.searchsorted(self.scores, threshold))]

    def to_json(self) -> dict[str, Any]:
        """Return the table by column, for the page's script."""
        columns = {name: [getattr(row, name) for row in self.rows] for name in ("tp", "fp", "fn", "tn", "ppv")}
        for name in ("sensitivity", "specificity"):
            metrics = [getattr(row, name) for row in self.rows]
            columns |= {name: [m.value for m in metrics], f"{name}-interval": [m.interval for m in metrics]}
        return {"scores": self.scores.tolist(), "columns": columns}


def _operating_row(positive: np.ndarray, predicted: np.ndarray) -> OperatingRow:
    tp, fp = int((positive & predicted).sum()), int((~positive & predicted).sum())
    fn, tn = int(positive.sum()) - tp, int((~positive).sum()) - fp
    both = tp + fn > 0 and fp + tn > 0
    return OperatingRow(
        tp=tp,
        fp=fp,
        fn=fn,
        tn=tn,
        sensitivity=_proportion(tp, tp + fn),
        specificity=_proportion(tn, tn + fp),
        ppv=tp / (tp + fp) if both and tp + fp else None,
        npv=tn / (tn + fn) if both and tn + fn else None,
    )


def _proportion(count: int, total: int) -> Metric:
    return Metric(count / total, interval_methods.wilson(count, total)) if total else Metric(None)


@dataclass(frozen=True)
class Explorer:
    """The first yes-or-no question of a task, whose threshold the page's slider moves.

    Attributes:
      question: in words.
      names: of no and yes.
      positive: (study,), bool, by the reference standard.
      score: (study,), probability of yes.
      table: the metrics at every threshold.
      threshold: the frozen one; None where each fold of a cross-validation has its own.
    """

    question: str
    names: tuple[str, str]
    positive: np.ndarray
    score: np.ndarray
    table: OperatingTable
    threshold: float | None

    @property
    def prevalence(self) -> float:
        """Share of positives."""
        return float(self.positive.mean())

    @property
    def frozen(self) -> OperatingRow | None:
        """Metrics at the frozen threshold; None where there is none."""
        return None if self.threshold is None else self.table.at(self.threshold)

    @property
    def frozen_point(self) -> tuple[float, float] | None:
        """False positive rate and sensitivity at the frozen threshold; None where they are not defined."""
        row = self.frozen
        if row is None or row.specificity.value is None or row.sensitivity.value is None:
            return None
        return 1 - row.specificity.value, row.sensitivity.value

    @property
    def rows(self) -> list[tuple[float, OperatingRow]]:
        """The frozen threshold and those of a table for print, each with its metrics."""
        frozen = [] if self.threshold is None else [self.threshold]
        return [(threshold, self.table.at(threshold)) for threshold in [*frozen, *TABLE_THRESHOLDS]]

    def to_json(self) -> dict[str, Any]:
        """Return what the page's script reads; `positive` as a string of 0 and 1."""
        return {
            "names": self.names,
            "prevalence": self.prevalence,
            "threshold": self.threshold,
            "score": self.score.tolist(),
            "positive": "".join("01"[int(answer)] for answer in self.positive),
            "table": self.table.to_json(),
        }


def explore(predictions: Predictions, threshold: thresholds.Threshold) -> Explorer | None:
    """Tabulate the first yes-or-no question of a task; None of a task without one threshold.

    Args:
      predictions: of a model.
      threshold: operating point; an array where each study has that of its fold.
    """
    if predictions.task in ("classes", "multilabel", "regression"):
        return None
    positive, score = thresholds.dichotomies(predictions.task, predictions.label, predictions.probability)[0]
    negative_name, positive_name, *_ = predictions.label_names
    question = f"{positive_name} or {negative_name}"
    if predictions.task == "severity":
        positive_name = f"graver than {negative_name}"
        question = f"{positive_name}, or not"
    own = thresholds.of_question(threshold, 0)
    frozen = None if isinstance(own, np.ndarray) else own
    names = (negative_name, positive_name)
    return Explorer(question, names, positive, score, OperatingTable(positive, score), frozen)
