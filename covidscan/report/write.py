"""Files of an evaluation: metrics, predictions, pictures, the page, the model card and the checklists."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from covidscan.metrics.predictions import Predictions
from covidscan.metrics.thresholds import Threshold
from covidscan.report import html, montage, plots
from covidscan.report.checklist import render_checklist
from tfds_mosmed import storage


def shown_studies(predictions: Predictions, threshold: Threshold, result: Mapping[str, Any]) -> list[str]:
    """Choose the studies whose volumes `write_evaluation` shows: those of the montage, and the worst failures."""
    chosen = [study_id for _, members in montage.choose(predictions, threshold) for study_id in members]
    return list(dict.fromkeys([*chosen, *(failure["study_id"] for failure in result["failures"])]))


def write_evaluation(
    directory: epath.PathLike,
    predictions: Predictions,
    threshold: Threshold,
    result: Mapping[str, Any],
    context: Mapping[str, Any],
    volumes: Mapping[str, tuple[np.ndarray, Sequence[float]]],
    *,
    history: Sequence[Mapping[str, Any]] = (),
    curves: epath.PathLike | None = None,
) -> None:
    """Write the evaluation's files, each whole or not at all, `metrics.json` last.

    Args:
      directory: made where it does not exist; files of an earlier evaluation are replaced.
      predictions: of a model.
      threshold: see `thresholds.decide`.
      result: what `summary.judge` returned.
      context: see `html.Context`.
      volumes: for the studies of `shown_studies`: (HU, int16, (slice, row, column); spacing in mm, same order).
      history: the lines of the run's metrics.jsonl.
      curves: the picture of the run's learning curves, shown in the report where the file exists.
    """
    pictures = {
        "roc.png": plots.roc(predictions, threshold),
        "precision_recall.png": plots.precision_recall(predictions),
        "confusion_matrix.png": plots.confusion_matrix(result),
        "reliability.png": plots.reliability(result["calibration"]),
        "montage.png": montage.draw(predictions, volumes, threshold),
    }
    if result["decision_curve"]:
        pictures["decision_curve.png"] = plots.decision_curve(result["decision_curve"])
    files = {name: plots.to_png(figure) for name, figure in pictures.items()}
    shown = dict(files)
    if curves is not None and epath.Path(curves).exists():
        shown["curves.png"] = epath.Path(curves).read_bytes()
    page = html.render_html(result, context, shown, predictions=predictions, volumes=volumes, history=history)
    written = {
        "predictions.csv": predictions.to_csv(threshold).encode(),
        **files,
        "report.html": page.encode(),
        "model_card.md": html.render_model_card(result, context).encode(),
        "checklist.md": render_checklist(result, context).encode(),
        "metrics.json": (json.dumps({**result, "context": dict(context)}, indent=2, allow_nan=False) + "\n").encode(),
    }
    folder = epath.Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in written.items():
        storage.write_whole(folder / name, data)
