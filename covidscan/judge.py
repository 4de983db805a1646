"""From predictions to everything a reader needs to judge them: figures, pictures, a report, a model card."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from covidscan import metrics, plots
from covidscan.predictions import Predictions
from covidscan.report import montage as montages
from covidscan.report import report
from tfds_mosmed import storage

__all__ = ["Predictions", "judge", "montage_studies", "print_table", "write_evaluation"]


def _table(task: str, label: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, Any]:
    """Put a model's figures beside the baseline's: "baseline", "figures", "confusion_matrix" of `judge`."""
    baseline_name, constant = metrics.constant_probability(task, label, probability.shape[1])
    model = metrics.figures(task, label, probability, threshold)
    baseline = metrics.figures(task, label, constant, 0.5)
    counts = metrics.confusion(label, metrics.predict(task, probability, threshold), probability.shape[1])
    intervals = metrics.wilson_intervals(counts)
    return {
        "baseline": baseline_name,
        "figures": {
            name: {"value": value, "interval": intervals.get(name), "baseline": baseline[name]}
            for name, value in model.items()
        },
        "confusion_matrix": counts.tolist(),
    }


def judge(predictions: Predictions, threshold: float = 0.5) -> dict[str, Any]:
    """Judge predictions beside the baseline that never looks at a scan, on the same studies.

    Args:
      predictions: of a model.
      threshold: operating point of the tasks "binary" and "severity"; never to be chosen on these studies.

    Returns:
      What `metrics.json` holds: "task", "num_studies", "label_names", "counts" (label -> studies),
      "category_counts", "threshold", "baseline" (its name), "figures" (name -> {"value", "interval",
      "baseline"}), "confusion_matrix" (a row a reference label), "sensitivities" (label -> share found),
      "notes"; for severity also "disease": baseline, figures and confusion matrix of the first grade against
      the others. `interval` is the 95 % Wilson interval of a proportion, otherwise None; a value that is not
      defined is None.
    """
    task, label, probability, names = (
        predictions.task,
        predictions.label,
        predictions.probability,
        predictions.label_names,
    )
    table = _table(task, label, probability, threshold)
    if task != "binary":
        table["baseline"] = f"always {names[metrics.constant_probability(task, label, len(names))[1][0].argmax()]}"
    values = {name: figure["value"] for name, figure in table["figures"].items()}
    chosen = metrics.predict(task, probability, threshold)
    result = {
        "task": task,
        "num_studies": len(predictions.study_id),
        "label_names": list(names),
        "counts": {name: int(np.sum(label == k)) for k, name in enumerate(names)},
        "category_counts": dict(sorted(Counter(predictions.category).items())),
        "threshold": None if task == "classes" else threshold,
        **table,
        "sensitivities": dict(zip(names, metrics.recalls(label, chosen, len(names)), strict=True)),
        "notes": metrics.undefined_notes(values, label, names),
    }
    if task == "severity":
        diseased, score = metrics.dichotomies(task, label, probability)[0]
        result["disease"] = _table("binary", diseased.astype(int), np.stack([1 - score, score], axis=1), threshold)
    return result


def print_table(result: Mapping[str, Any]) -> str:
    """Lay out what `judge` gave as plain text: scans of each label, then each figure beside the baseline."""
    lines = [f"CT scans with reference standard {name}: {count}" for name, count in result["counts"].items()]
    tables = [("", result)]
    if "disease" in result:
        tables.append((f"{result['label_names'][0]} against the other grades", result["disease"]))
    for title, table in tables:
        rows = [(title, "this model", "95 % interval", table["baseline"])]
        for name, figure in table["figures"].items():
            low_high = figure["interval"]
            interval = f"{low_high[0]:.3f} to {low_high[1]:.3f}" if low_high else ""
            rows.append(
                (
                    metrics.TITLES[name],
                    report.number(figure["value"]),
                    interval,
                    report.number(figure["baseline"]),
                )
            )
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines.append("")
        lines += [
            "  ".join(
                [
                    row[0].ljust(widths[0]),
                    *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
                ]
            )
            for row in rows
        ]
    lines += ["", *result["notes"]] if result["notes"] else []
    return "\n".join(line.rstrip() for line in lines)


def montage_studies(predictions: Predictions, threshold: float = 0.5) -> list[str]:
    """Choose the few studies whose volumes `write_evaluation` shows."""
    return [study_id for _, members in montages.choose(predictions, threshold) for study_id in members]


def write_evaluation(
    directory: epath.PathLike,
    predictions: Predictions,
    context: Mapping[str, Any],
    volumes: Mapping[str, tuple[np.ndarray, Sequence[float]]],
    *,
    threshold: float = 0.5,
    curves: epath.PathLike | None = None,
) -> dict[str, Any]:
    """Judge predictions and write the evaluation's files, each whole or not at all, `metrics.json` last.

    Args:
      directory: made where it is not; files of an earlier evaluation are replaced.
      predictions: of a model.
      context: see `report.Context`.
      volumes: for the studies of `montage_studies`: (HU, int16, (slice, row, column); spacing in mm, same
        order).
      threshold: operating point, see `judge`.
      curves: the picture of the run's learning curves, shown in the report where the file exists.

    Returns:
      What `metrics.json` holds: `judge`'s figures, and the context under "context".
    """
    result = judge(predictions, threshold)
    pictures = {
        "roc.png": plots.roc(predictions, threshold),
        "precision_recall.png": plots.precision_recall(predictions),
        "confusion_matrix.png": plots.confusion_matrix(result),
        "montage.png": montages.draw(predictions, volumes, threshold),
    }
    files = {name: plots.to_png(figure) for name, figure in pictures.items()}
    shown = dict(files)
    if curves is not None and epath.Path(curves).exists():
        shown["curves.png"] = epath.Path(curves).read_bytes()
    stored = {**result, "context": dict(context)}
    written = {
        "predictions.csv": predictions.to_csv(threshold).encode(),
        **files,
        "report.html": report.render_html(
            result, context, shown, predictions=predictions, volumes=volumes, history=[]
        ).encode(),
        "model_card.md": report.render_model_card(result, context).encode(),
        "metrics.json": (json.dumps(stored, indent=2, allow_nan=False) + "\n").encode(),
    }
    folder = epath.Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in written.items():
        storage.write_whole(folder / name, data)
    return stored
