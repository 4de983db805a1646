"""Evaluation of sets of labels: metrics over all labels, and of each label."""

import numpy as np

from covidscan.evaluation.summary import calibrate, tabulate
from covidscan.metrics import multilabel, sample_size, thresholds
from covidscan.metrics.predictions import Predictions, join_names
from covidscan.metrics.results import Evaluation, Failure, LabelResult, OperatingPoint
from covidscan.metrics.thresholds import Threshold

EACH = 5  # mistakes of a kind that are listed


def summarize(predictions: Predictions, threshold: Threshold, operating_point: OperatingPoint) -> Evaluation:
    """Evaluate sets of labels, and their prevalence, on the same studies.

    Args:
      predictions: of a model.
      threshold: one for each label, see `thresholds.frozen`; never to be chosen on these studies.
      operating_point: how thresholds and recalibration were chosen, for the reader.

    Returns:
      The evaluation, without baselines, subgroups, comparison and repeats.
    """
    label, probability, names = predictions.label, predictions.probability, predictions.label_names
    decision = thresholds.decide(predictions.task, probability, threshold)
    counts = dict(zip(names, label.sum(axis=0).tolist(), strict=True))
    metrics = multilabel.evaluate_sets(label, probability, decision, predictions.patient)
    absent = [name for name, count in counts.items() if not 0 < count < len(label)]
    notes = [f"All studies, or none, have {', '.join(absent)}: averages leave it out."] if absent else []
    return Evaluation(
        task=predictions.task,
        num_studies=len(label),
        label_names=list(names),
        counts=counts,
        category_counts={},
        threshold=None,
        operating_point=operating_point,
        baseline="each label's prevalence",
        metrics=metrics,
        confusion_matrix=[],
        sensitivities={},
        notes=notes,
        calibration=None,
        decision_curve=None,
        smallest_difference=None,
        failures=find_failures(predictions, decision),
        baselines=[],
        shortcuts=[],
        subgroups=[],
        comparison=None,
        repeats=None,
        warnings=sample_size.set_warnings(len(label), counts, operating_point),
        labels=[_of_label(predictions, index, threshold) for index in range(len(names))],
    )


def _of_label(predictions: Predictions, index: int, threshold: Threshold) -> LabelResult:
    """Evaluate the question whether a study has a label."""
    has = predictions.label[:, index]
    own, score = predictions.uncalibrated[:, index], predictions.probability[:, index]
    at = thresholds.of_question(threshold, index)
    table = tabulate("binary", has, np.stack([1 - score, score], axis=1), at, predictions.patient)
    return LabelResult(
        name=predictions.label_names[index],
        num_positive=int(has.sum()),
        threshold=None if isinstance(at, np.ndarray) else at,
        metrics=table.metrics,
        calibration=calibrate(
            f"Does the study have {predictions.label_names[index]}?", has == 1, own, score, predictions.patient
        ),
    )


def find_failures(predictions: Predictions, decision: np.ndarray) -> list[Failure]:
    """Choose the worst mistakes: those in which the wrong answer for a label got the highest probability.

    Args:
      predictions: of a model.
      decision: (study, label), 0 or 1.

    Returns:
      Worst first; at most one of a study.
    """
    label, probability, names = predictions.label, predictions.probability, predictions.label_names
    wrong = np.where(decision != label, np.abs(label - probability), -1.0)
    left = {"False negative": EACH, "False positive": EACH}
    found = []
    for row in map(int, np.argsort(-wrong.max(axis=1), kind="stable")):
        index = int(wrong[row].argmax())
        kind = "False negative" if label[row, index] else "False positive"
        if wrong[row, index] < 0 or not left[kind]:
            continue
        left[kind] -= 1
        found.append(
            Failure(
                study_id=predictions.study_id[row],
                kind=kind,
                reference=join_names(names, label[row]),
                prediction=join_names(names, decision[row]),
                probability=float(probability[row, index]),
                category=names[index],
            )
        )
    return found
