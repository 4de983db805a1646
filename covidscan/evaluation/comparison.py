"""Two runs beside each other on the same studies, and several runs summed up; free of JAX."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from covidscan.metrics import intervals, thresholds
from covidscan.metrics.predictions import Predictions
from tfds_mosmed.errors import UserError

_SAME_STUDIES = "evaluate both runs on the same --split or --dataset, with the same --protocol and --split_seed"


def compare(
    mine: Predictions,
    other: Predictions,
    my_decision: np.ndarray,
    other_decision: np.ndarray,
    other_name: str,
) -> dict[str, Any]:
    """Test whether two runs differ on the same studies, matched by study id.

    Whether the other run was trained on some of them is not seen from its predictions: compare the split hashes first.

    Args:
      mine: of the run that is judged.
      other: of the run that it is compared with.
      my_decision: (study,), the label that `mine` decided on, see `decisions.decide`.
      other_decision: (study,), that `other` decided on, at its own operating point.
      other_name: the other run, as the user named it.

    Returns:
      "other", "num_studies", "figures" and "described", as metrics.json holds them. "figures" has "accuracy"
      (McNemar) and, for a question of yes or no with two studies of each answer or more, "auroc" (DeLong), each with
      "difference" (this run minus the other), "interval" (95 %), "p_value" (two-sided) and "method". Severity is
      compared by its first question, graver than the first grade or not; classes by accuracy alone.

    Raises:
      UserError: the runs differ in task, labels or studies.
    """
    order = _order(mine, other, f"--compare={other_name}")
    figures: dict[str, Any] = {}
    if mine.task != "classes":
        positive, my_score = thresholds.dichotomies(mine.task, mine.label, mine.probability)[0]
        _, other_score = thresholds.dichotomies(mine.task, mine.label, other.probability[order])[0]
        if 2 <= positive.sum() <= len(positive) - 2:  # DeLong's variance needs two studies of each answer
            figures["auroc"] = _figure(intervals.delong_test(positive, my_score, other_score), "DeLong")
    mcnemar = intervals.mcnemar(
        _right(mine.task, mine.label, my_decision), _right(mine.task, mine.label, other_decision[order])
    )
    figures["accuracy"] = _figure(mcnemar, "McNemar")
    question = "" if mine.task != "severity" else f" Both are of {mine.label_names[0]} against the other grades."
    return {
        "other": other_name,
        "num_studies": len(order),
        "figures": figures,
        "described": (
            f"This run minus {other_name}, on the same {len(order)} studies, each run at its own operating point: "
            f"{mcnemar.only_a} studies are right in this run alone, {mcnemar.only_b} in the other alone.{question}"
        ),
    }


def _order(mine: Predictions, other: Predictions, flag: str) -> np.ndarray:
    """Find each of this run's studies in the other run: (study,), places; UserError where the runs do not fit."""
    if (mine.task, mine.label_names) != (other.task, other.label_names):
        there, here = (f"{run.task} ({', '.join(run.label_names)})" for run in (other, mine))
        raise UserError(f"{flag}: its task is {there}, this run's {here}: compare runs of one task")
    places = {study_id: place for place, study_id in enumerate(other.study_id)}
    missing = [study_id for study_id in mine.study_id if study_id not in places]
    if missing:
        raise UserError(f"{flag}: study {missing[0]} was judged here but not there: {_SAME_STUDIES}")
    mine_alone = set(mine.study_id)
    extra = [study_id for study_id in other.study_id if study_id not in mine_alone]
    if extra:
        raise UserError(f"{flag}: study {extra[0]} was judged there but not here: {_SAME_STUDIES}")
    order = np.asarray([places[study_id] for study_id in mine.study_id])
    differing = np.flatnonzero(mine.label != other.label[order])
    if differing.size:
        place = differing[0]
        here, there = mine.label_names[mine.label[place]], mine.label_names[other.label[order[place]]]
        raise UserError(
            f"{flag}: study {mine.study_id[place]} is {there} there and {here} here: compare runs with the same "
            "--negative_categories on the same records"
        )
    return order


def _right(task: str, label: np.ndarray, decision: np.ndarray) -> np.ndarray:
    """Tell which studies are answered rightly: (study,), bool; of severity, whether graver than the first grade."""
    return (decision > 0) == (label > 0) if task == "severity" else decision == label


def _figure(test: Any, method: str) -> dict[str, Any]:
    low, high = test.interval
    return {
        "difference": float(test.difference),
        "interval": [float(low), float(high)],
        "p_value": float(test.p_value),
        "method": method,
    }


def summarise(members: Mapping[str, Mapping[str, float | None]], kind: str) -> dict[str, Any]:
    """Sum up folds, or runs of several seeds.

    Args:
      members: what each is called -> its figures, of one task; None where a figure is not defined.
      kind: "folds" or "runs".

    Returns:
      "kind", "members" and "figures" as metrics.json holds them: figure -> "mean", "sd" (of a sample), "lowest",
      "highest" and "runs", the number of members in which it is defined; figures defined in none are left out.
    """
    names = list(dict.fromkeys(name for figures in members.values() for name in figures))
    found: dict[str, Any] = {}
    for name in names:
        values = [value for figures in members.values() if (value := figures.get(name)) is not None]
        if values:
            found[name] = intervals.spread(values)
    return {
        "kind": kind,
        "members": [{"name": name, "figures": dict(figures)} for name, figures in members.items()],
        "figures": found,
    }
