"""From predictions to everything a reader needs to judge them: figures, pictures, a report, a model card."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from covidscan.evaluation.comparison import comparison_text, repeats_text
from covidscan.evaluation.subgroups import failures
from covidscan.metrics import calibration, classification, tempering, thresholds
from covidscan.metrics import intervals as uncertainty
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.thresholds import Threshold
from covidscan.report import html, plots
from covidscan.report import montage as montages
from covidscan.report.checklist import render_checklist
from tfds_mosmed import storage

__all__ = ["Predictions", "judge", "print_table", "shown_studies", "write_evaluation"]


def _table(task: str, label: np.ndarray, probability: np.ndarray, threshold: Threshold) -> dict[str, Any]:
    """Put a model's figures beside the baseline's: "baseline", "figures", "confusion_matrix" of `judge`."""
    baseline_name, constant = classification.constant_probability(task, label, probability.shape[1])
    model = classification.figures(task, label, probability, threshold)
    baseline = classification.figures(task, label, constant, 0.5)
    counts = classification.confusion(label, thresholds.decide(task, probability, threshold), probability.shape[1])
    intervals = uncertainty.intervals(task, label, probability, threshold)

    def figure(name: str, value: float | None) -> dict[str, Any]:
        low, high, method = intervals.get(name, (None, None, None))
        interval = None if method is None else [low, high]
        return {"value": value, "interval": interval, "method": method, "baseline": baseline[name]}

    return {
        "baseline": baseline_name,
        "figures": {name: figure(name, value) for name, value in model.items()},
        "confusion_matrix": counts.tolist(),
    }


def _calibration(predictions: Predictions) -> dict[str, Any]:
    """Judge probabilities as probabilities, before and after temperature scaling: "calibration", "decision_curve"."""
    task, label = predictions.task, predictions.label
    positive, after, question = tempering.confidence(task, label, predictions.probability)
    positive_before, before, _ = tempering.confidence(task, label, predictions.uncalibrated)
    both = 0 < np.sum(positive) < len(label)
    return {
        "calibration": {
            "question": question,
            "before": calibration.calibration(positive_before, before),
            "after": calibration.calibration(positive, after),
        },
        "decision_curve": calibration.decision_curve(positive, after) if both and task != "classes" else None,
    }


def _smallest_difference(predictions: Predictions) -> dict[str, Any] | None:
    if predictions.task == "classes":
        return None
    positive, score, _ = tempering.confidence(predictions.task, predictions.label, predictions.probability)
    return uncertainty.smallest_difference(positive, score)._asdict()


def judge(
    predictions: Predictions, threshold: Threshold, operating_point: Mapping[str, Any], **beside: Any
) -> dict[str, Any]:
    """Judge predictions beside the baseline that never looks at a scan, on the same studies.

    Args:
      predictions: of a model.
      threshold: see `decisions.decide`; never to be chosen on these studies.
      operating_point: how threshold and temperature were chosen, for the reader: "criterion", "described",
        "threshold", "temperature", "num_studies", "step".
      **beside: what else is to be told: "baselines", "shortcuts", "subgroups", "comparison", "repeats", and
        "notes" beside its own.

    Returns:
      What `metrics.json` holds: "task", "num_studies", "label_names", "counts" (label -> studies), "category_counts",
      "threshold" (None where studies have thresholds of their own, or there is none), "operating_point", "baseline"
      (its name), "figures" (name -> {"value", "interval", "method", "baseline"}), "confusion_matrix" (a row a reference
      label), "sensitivities" (label -> share found), "notes"; for severity also "disease": baseline, figures and
      confusion matrix of the first grade against the others; "calibration", "decision_curve", "smallest_difference",
      "failures"; and what is given beside. Intervals are of 95 %; a value that is not defined is None.
    """
    task, label, probability, names = (
        predictions.task,
        predictions.label,
        predictions.probability,
        predictions.label_names,
    )
    table = _table(task, label, probability, threshold)
    if task != "binary":
        table["baseline"] = (
            f"always {names[classification.constant_probability(task, label, len(names))[1][0].argmax()]}"
        )
    values = {name: figure["value"] for name, figure in table["figures"].items()}
    chosen = thresholds.decide(task, probability, threshold)
    result = {
        "task": task,
        "num_studies": len(predictions.study_id),
        "label_names": list(names),
        "counts": {name: int(np.sum(label == k)) for k, name in enumerate(names)},
        "category_counts": dict(sorted(Counter(predictions.category).items())),
        "threshold": operating_point["threshold"],
        "operating_point": dict(operating_point),
        **table,
        "sensitivities": dict(zip(names, classification.recalls(label, chosen, len(names)), strict=True)),
        "notes": [*classification.undefined_notes(values, label, names), *beside.pop("notes", [])],
        **_calibration(predictions),
        "smallest_difference": _smallest_difference(predictions),
        "failures": failures(task, label, probability, threshold, predictions.study_id, predictions.category, names),
        "baselines": [],
        "shortcuts": [],
        "subgroups": [],
        "comparison": None,
        "repeats": None,
        **beside,
    }
    if task == "severity":
        diseased, score = thresholds.dichotomies(task, label, probability)[0]
        result["disease"] = _table("binary", diseased.astype(int), np.stack([1 - score, score], axis=1), threshold)
    return result


def print_table(result: Mapping[str, Any]) -> str:
    """Lay out what `judge` gave as plain text: scans of each label, figures beside the baseline, what else to know."""
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
                    classification.TITLES[name],
                    html.number(figure["value"]),
                    interval,
                    html.number(figure["baseline"]),
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
    for part, text in ((result["comparison"], comparison_text), (result["repeats"], repeats_text)):
        lines += ["", *text(part).splitlines()] if part else []
    warnings = [f"Warning, shortcut: {shortcut}" for shortcut in result["shortcuts"]]
    told = [*result["notes"], result["operating_point"]["described"], *warnings]
    lines += ["", *told]
    return "\n".join(line.rstrip() for line in lines)


def shown_studies(predictions: Predictions, threshold: Threshold, result: Mapping[str, Any]) -> list[str]:
    """Choose the studies whose volumes `write_evaluation` shows: of the montage, and the worst failures."""
    montage = [study_id for _, members in montages.choose(predictions, threshold) for study_id in members]
    return list(dict.fromkeys([*montage, *(failure["study_id"] for failure in result["failures"])]))


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
      directory: made where it is not; files of an earlier evaluation are replaced.
      predictions: of a model.
      threshold: see `decisions.decide`.
      result: what `judge` gave.
      context: see `report.Context`.
      volumes: for the studies of `shown_studies`: (HU, int16, (slice, row, column); spacing in mm, same order).
      history: the lines of the run's metrics.jsonl.
      curves: the picture of the run's learning curves, shown in the report where the file exists.
    """
    pictures = {
        "roc.png": plots.roc(predictions, threshold),
        "precision_recall.png": plots.precision_recall(predictions),
        "confusion_matrix.png": plots.confusion_matrix(result),
        "reliability.png": plots.reliability(result["calibration"]),
        "montage.png": montages.draw(predictions, volumes, threshold),
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
