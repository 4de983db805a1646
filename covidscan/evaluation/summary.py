"""Evaluation of predictions: metrics with the baseline's, calibration, and the worst failures."""

from collections import Counter

import numpy as np

from covidscan.metrics import calibration, classification, intervals, paired_tests, sample_size, thresholds
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import Calibration, Evaluation, Failure, Metric, MetricsTable, OperatingPoint
from covidscan.metrics.thresholds import Threshold


def summarize(predictions: Predictions, threshold: Threshold, operating_point: OperatingPoint) -> Evaluation:
    """Evaluate predictions, and the constant prediction, which never looks at a scan, on the same studies.

    Args:
      predictions: of a model.
      threshold: see `thresholds.decide`; never to be chosen on these studies.
      operating_point: how threshold and recalibration were chosen, for the reader.

    Returns:
      The evaluation, without baselines, subgroups, comparison and repeats.
    """
    task, label, probability = predictions.task, predictions.label, predictions.probability
    names = predictions.label_names
    patient = predictions.patient
    table = tabulate(task, label, probability, threshold, patient)
    baseline, disease = table.baseline, None
    if task != "binary":
        baseline = f"always {names[classification.constant_probability(task, label, len(names))[1][0].argmax()]}"
    if task == "severity":
        diseased, score = thresholds.dichotomies(task, label, probability)[0]
        disease = tabulate(
            "binary",
            diseased.astype(int),
            np.stack([1 - score, score], axis=1),
            thresholds.of_question(threshold, 0),
            patient,
        )
    values = {name: metric.value for name, metric in table.metrics.items()}
    positive, score, question = calibration.binarize(task, label, probability)
    both = bool(0 < np.sum(positive) < len(label))
    decided = thresholds.decide(task, probability, threshold)
    counts = {name: int(np.sum(label == k)) for k, name in enumerate(names)}
    strata = label if task == "classes" else None
    calibrated = Calibration(
        question=question,
        before=calibration.reliability(
            *calibration.binarize(task, label, predictions.uncalibrated)[:2], strata, patient
        ),
        after=calibration.reliability(positive, score, strata, patient),
    )
    return Evaluation(
        task=task,
        num_studies=len(predictions.study_id),
        label_names=list(names),
        counts=counts,
        category_counts=dict(sorted(Counter(predictions.category).items())),
        threshold=operating_point.threshold,
        operating_point=operating_point,
        baseline=baseline,
        metrics=table.metrics,
        confusion_matrix=table.confusion_matrix,
        sensitivities=dict(zip(names, classification.recalls(label, decided, len(names)), strict=True)),
        notes=classification.undefined_notes(values, label, names),
        calibration=calibrated,
        decision_curve=calibration.decision_curve(positive, score) if both and task != "classes" else None,
        smallest_difference=None if task == "classes" else paired_tests.smallest_difference(positive, score, patient),
        failures=find_failures(predictions, threshold),
        baselines=[],
        shortcuts=[],
        subgroups=[],
        comparison=None,
        repeats=None,
        disease=disease,
        warnings=sample_size.warnings(task, counts, operating_point, calibrated),
    )


def calibrate(
    question: str, positive: np.ndarray, own: np.ndarray, score: np.ndarray, patient: np.ndarray | None
) -> Calibration:
    """Examine the calibration of a yes-or-no question.

    Args:
      question: whose answers these are.
      positive: (study,), bool.
      own: (study,), the network's own probability of yes.
      score: (study,), that after recalibration.
      patient: (study,), see `Predictions`.
    """
    before, after = (calibration.reliability(positive, each, cluster=patient) for each in (own, score))
    return Calibration(question, before, after)


def tabulate(
    task: str, label: np.ndarray, probability: np.ndarray, threshold: Threshold, patient: np.ndarray | None = None
) -> MetricsTable:
    """Compute a task's metrics with their intervals, and those of the constant prediction."""
    baseline_name, constant = classification.constant_probability(task, label, probability.shape[1])
    baseline = classification.compute_metrics(task, label, constant, 0.5)
    ends = intervals.confidence_intervals(task, label, probability, threshold, cluster=patient)
    metrics = {}
    for name, value in classification.compute_metrics(task, label, probability, threshold).items():
        low, high, method = ends.get(name, (0.0, 0.0, None))
        metrics[name] = Metric(value, None if method is None else (low, high), method, baseline[name])
    decided = thresholds.decide(task, probability, threshold)
    counts = classification.confusion_matrix(label, decided, probability.shape[1])
    return MetricsTable(baseline_name, metrics, counts.tolist())


def find_failures(predictions: Predictions, threshold: Threshold, each: int = 5) -> list[Failure]:
    """Choose the worst mistakes, those in which the reference label got the least probability.

    Args:
      predictions: of a model.
      threshold: operating point.
      each: mistakes at most of each kind: "False negative" and "False positive", or "Wrong" of the tasks with several
        labels, of which there may be twice as many.

    Returns:
      Worst first.
    """
    label, probability, names = predictions.label, predictions.probability, predictions.label_names
    binary = predictions.task == "binary"
    decided = thresholds.decide(predictions.task, probability, threshold)
    of_reference = probability[np.arange(len(label)), label]
    left = {"False negative": each, "False positive": each, "Wrong": 2 * each}
    found = []
    for index in map(int, np.argsort(of_reference, kind="stable")):
        if decided[index] == label[index]:
            continue
        kind = ("False positive", "False negative")[label[index]] if binary else "Wrong"
        if left[kind] == 0:
            continue
        left[kind] -= 1
        found.append(
            Failure(
                study_id=predictions.study_id[index],
                kind=kind,
                reference=names[label[index]],
                prediction=names[decided[index]],
                probability=float(probability[index, 1] if binary else of_reference[index]),
                category=predictions.category[index],
            )
        )
    return found
