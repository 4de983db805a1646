"""Measures of the transfer benchmark, from predictions."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from covidscan.metrics import interval_methods, roc, thresholds
from covidscan.metrics.bootstrap import RESAMPLES
from covidscan.metrics.detectability import Detectability, Inserted, summarize
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import Difference, Metric
from tests.transfer.results import Band, Comparison, HardPhantoms, Hospital, Insertions, RealStudies, RealStudy
from tfds_mosmed.ct_phantom.disease.cases import DISEASES, PNEUMONIAS
from tfds_mosmed.errors import UserError
from tfds_mosmed.insertion.lesion import Lesion

EDGES_MM = (0.0, 8.0, 15.0, 25.0, math.inf)  # of the bands of the largest lesion's diameter
SPECIFICITY = 0.95
COVID = "covid"  # folder of the real studies with COVID-19


def disease(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return which studies are positive, (study,) bool, and their probability of that, (study,).

    Raises:
      UserError: the task does not ask for it.
    """
    if predictions.task == "classes":
        raise UserError("--task=classes: the phantoms have grades, not classes: use binary or severity in the recipe")
    return thresholds.dichotomies(predictions.task, predictions.label, predictions.probability)[0]


def hard_phantoms(predictions: Predictions, details: Mapping[str, Mapping[str, Any]]) -> HardPhantoms:
    """Measure the performance on the hard phantoms.

    Args:
      predictions: of the studies.
      details: study id -> its findings and lesion diameters, see `StudyIndex.details`.
    """
    positive, score = disease(predictions)
    # A lesion that fills less than half of every voxel has no mask, and so no diameter.
    largest = np.asarray([max(details[name]["lesion_diameters_mm"], default=0.0) for name in predictions.study_id])
    diseased = np.asarray([_has_disease(details[name]["findings"]) for name in predictions.study_id]) & ~positive
    bands = []
    for low, high in itertools.pairwise(EDGES_MM):
        inside = positive & (low <= largest) & (largest < high)
        name = f"{low:g} mm or more" if high == math.inf else f"{low:g} to {high:g} mm" if low else f"below {high:g} mm"
        used = inside | ~positive
        bands.append(Band(name, int(inside.sum()), roc.auroc_metric(positive[used], score[used])))
    return HardPhantoms(
        int(positive.sum()),
        int((~positive).sum()),
        int(diseased.sum()),
        roc.auroc_metric(positive, score),
        bands,
        threshold_at_specificity(score[positive], score[diseased]) if diseased.any() else None,
        sensitivity_at_specificity(score[positive], score[diseased]),
    )


def _has_disease(findings: Sequence[str]) -> bool:
    return any(name in DISEASES or name in PNEUMONIAS for name in findings)


def threshold_at_specificity(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Return the lowest threshold with a specificity of `SPECIFICITY` or more.

    Args:
      positives: (study,), scores of positive studies; the threshold lies midway between two neighbouring scores.
      negatives: (study,), scores of negative ones.
    """
    # With the labels exchanged, specificity is the sensitivity that the threshold is chosen for.
    is_negative = np.repeat([True, False], [len(negatives), len(positives)])
    scores = 1 - np.concatenate([negatives, positives])
    return 1 - thresholds.choose_threshold(
        is_negative, scores, "sensitivity", target_sensitivity=SPECIFICITY, cost_ratio=1.0
    )


def sensitivity_at_specificity(positives: np.ndarray, negatives: np.ndarray) -> Metric:
    """Return the highest sensitivity at a specificity of `SPECIFICITY` or more, a point of the ROC curve.

    The threshold is a quantile of the negative studies, so its interval is that of resamples of both; where these do
    not vary, as at perfect separation, Wilson's of as many studies as there are of the rarer label.

    Args:
      positives: (study,), scores of positive studies.
      negatives: (study,), scores of negative ones.
    """
    if not len(positives) or not len(negatives):
        return Metric(None)

    def sensitivity(positives: np.ndarray, negatives: np.ndarray) -> float:
        return float((positives >= threshold_at_specificity(positives, negatives)).mean())

    rng, value = np.random.default_rng(0), sensitivity(positives, negatives)
    drawn = [sensitivity(*(rng.choice(each, len(each)) for each in (positives, negatives))) for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, [50 * (1 - interval_methods.LEVEL), 50 * (1 + interval_methods.LEVEL)])
    if low == high:
        rarer = min(len(positives), len(negatives))
        return Metric(value, interval_methods.wilson(round(value * rarer), rarer), interval_methods.WILSON_OF_RAREST)
    return Metric(value, (float(low), float(high)), "bootstrap")


def hospital(predictions: Predictions) -> Hospital:
    """Measure the performance on the second hospital."""
    positive, score = disease(predictions)
    return Hospital(int(positive.sum()), int((~positive).sum()), roc.auroc_metric(positive, score))


def real_studies(studies: Sequence[RealStudy]) -> RealStudies:
    """Measure the performance on real studies; those that were refused do not count."""
    read = [study for study in studies if study.probability is not None]
    positive = np.asarray([study.kind == COVID for study in read], bool)
    score = np.asarray([study.probability for study in read], np.float64)
    ranks = sorted(int((score >= own).sum()) for own in score[positive])
    return RealStudies(list(studies), ranks, roc.auroc_metric(positive, score))


def insertions(measured: Detectability, inserted: Sequence[Inserted], threshold: float) -> Insertions:
    """Measure the sensitivity to inserted lesions at another threshold than the frozen one.

    Args:
      measured: by `covidscan.detectability`.
      inserted: its insertions.
      threshold: see `threshold_at_specificity`.
    """
    scans = [dataclasses.replace(each, positive=each.probability >= threshold) for each in measured.scans]
    decided = [dataclasses.replace(each, detected=each.probability >= threshold) for each in inserted]
    lesions = [Lesion(each.diameter_mm, each.density_hu) for each in measured.detections]
    num_positive = sum(each.positive for each in scans)
    return Insertions(len(scans), num_positive, measured.unusable, summarize(decided, scans, lesions))


def compare(mine: Predictions, other: Predictions, name: str) -> Comparison:
    """Compare two AUROCs on the studies that both networks predicted.

    Args:
      mine: predictions of a network.
      other: of another recipe's, on the same records.
      name: of the other recipe.

    Raises:
      UserError: too few studies are shared, or their labels differ.
    """
    shared = sorted(set(mine.study_id) & set(other.study_id))
    if not shared:
        raise UserError(f"--against={name}: it predicted none of the same hard phantoms")
    (positive, score), (theirs, other_score) = (disease(_take(each, shared)) for each in (mine, other))
    if (positive != theirs).any():
        raise UserError(f"--against={name}: its labels are others: use the same --negative_categories in both recipes")
    if min(positive.sum(), (~positive).sum()) < 2:
        raise UserError(f"--against={name}: {len(shared)} shared phantoms are too few for DeLong's test")
    test = roc.delong_test(positive, score, other_score)
    return Comparison(name, len(shared), Difference(test.difference, test.interval, test.p_value, "DeLong"))


def mean(members: Sequence[Predictions]) -> Predictions:
    """Return the mean of the probabilities of several networks on the same studies."""
    first = members[0]
    aligned = [_take(each, first.study_id) for each in members]
    probability = np.mean([each.probability for each in aligned], axis=0)
    return dataclasses.replace(first, probability=probability, uncalibrated=probability)


def _take(predictions: Predictions, study_ids: Sequence[str]) -> Predictions:
    """Return the predictions of some studies, in that order."""
    row_of = {name: row for row, name in enumerate(predictions.study_id)}
    rows = [row_of[name] for name in study_ids]
    return dataclasses.replace(
        predictions,
        study_id=list(study_ids),
        category=[predictions.category[row] for row in rows],
        label=predictions.label[rows],
        probability=predictions.probability[rows],
        uncalibrated=predictions.uncalibrated[rows],
    )
