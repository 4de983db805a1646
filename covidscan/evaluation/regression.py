"""Evaluation of predicted numbers: metrics, agreement, the largest errors, and baselines."""

from typing import Any

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from covidscan.data.image_features import StudyFeatures
from covidscan.metrics import regression, sample_size
from covidscan.metrics.bootstrap import FEWEST_STUDIES
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import Baseline, Evaluation, Failure, OperatingPoint

LARGEST = 10  # errors that are listed
STRENGTHS = np.logspace(-1, 5, 13)  # of ridge regression, of which leave-one-out chooses

# The sentences below are part of metrics.json, which --verify compares: changing one fails older evaluations.
_FEATURES = (
    ("Slices and spacing", "the number of slices and the spacing of the source", "acquisition", "features"),
    ("Mean lung density", "the mean HU of the lungs", "mean_lung_hu", "features"),
    ("Dense share", "the share of the lungs' voxels above -700 HU", "dense_share", "features"),
    ("Lungs masked out", "volumes of which lungs and rib cage are masked out", "outside", "probe"),
)


def summarize(predictions: Predictions, point: OperatingPoint, constant: float) -> Evaluation:
    """Evaluate predicted numbers, and a constant, on the same studies.

    Args:
      predictions: of a model.
      point: of the model.
      constant: the mean of the training studies' labels.

    Returns:
      The evaluation, without baselines, subgroups, comparison and repeats.
    """
    label, value = predictions.label, predictions.probability[:, 0]
    counts = {predictions.label_names[0]: len(label)}
    metrics = regression.evaluate_values(label, value, constant)
    undefined = [name for name, metric in metrics.items() if metric.value is None]
    vague = [name for name, metric in metrics.items() if metric.value is not None and metric.interval is None]
    notes = [f"Not defined on these studies, which do not differ: {', '.join(undefined)}."] if undefined else []
    if vague and len(label) >= FEWEST_STUDIES:
        notes.append(f"No interval, as these studies do not tell how uncertain they are: {', '.join(vague)}.")
    return Evaluation(
        task=predictions.task,
        num_studies=len(label),
        label_names=list(predictions.label_names),
        counts=counts,
        category_counts={},
        threshold=None,
        operating_point=point,
        baseline=f"always {constant:.4g}, the mean of the training studies",
        metrics=metrics,
        confusion_matrix=[],
        sensitivities={},
        notes=notes,
        calibration=None,
        decision_curve=None,
        smallest_difference=None,
        failures=_largest_errors(predictions),
        baselines=[],
        shortcuts=[],
        subgroups=[],
        comparison=None,
        repeats=None,
        warnings=sample_size.warnings(predictions.task, counts, point, None),
        regression=regression.agreement(label, value, constant),
    )


def _largest_errors(predictions: Predictions) -> list[Failure]:
    label, value = predictions.label, predictions.probability[:, 0]
    error = value - label
    return [
        Failure(
            study_id=predictions.study_id[row],
            kind="Overestimated" if error[row] > 0 else "Underestimated",
            reference=f"{label[row]:.4g}",
            prediction=f"{value[row]:.4g}",
            probability=float(error[row]),
            category=predictions.category[row],
        )
        for row in map(int, np.argsort(-np.abs(error), kind="stable")[:LARGEST])
    ]


def evaluate_baselines(
    train_features: StudyFeatures, train_label: np.ndarray, features: StudyFeatures, label: np.ndarray
) -> list[Baseline]:
    """Fit baselines on a run's training studies, and evaluate them on the studies on which its network is evaluated.

    Args:
      train_features: of the training studies.
      train_label: (training study,).
      features: of the evaluated studies.
      label: (study,).

    Returns:
      The mean and the median of the training studies, which do not look at a study, and ridge regression on features.
    """
    constants = (("Mean", float(np.mean(train_label))), ("Median", float(np.median(train_label))))
    baselines = [
        Baseline(
            f"{name} of the training studies",
            f"Predicts {constant:.4g} whatever the study.",
            "constant",
            regression.errors(label, np.full(len(label), constant)),
        )
        for name, constant in constants
    ]
    for name, described, field, kind in _FEATURES:
        train_values = getattr(train_features, field).reshape(len(train_label), -1)
        known = np.isfinite(train_values).any(axis=0)
        if not known.any():
            continue
        model: Any = make_pipeline(
            StandardScaler(), SimpleImputer(strategy="constant", fill_value=0.0), RidgeCV(STRENGTHS)
        )
        with threadpool_limits(1):
            model.fit(train_values[:, known], train_label)
            value = model.predict(getattr(features, field).reshape(len(label), -1)[:, known])
        # A feature far from all of the training must not lead to a number far from all of theirs.
        value = np.clip(value, np.min(train_label), np.max(train_label))
        baselines.append(Baseline(name, f"Ridge regression on {described}.", kind, regression.errors(label, value)))
    return baselines
