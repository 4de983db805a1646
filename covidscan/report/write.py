"""Files of an evaluation: metrics, predictions, pictures, the page, the model card and the checklists."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from etils import epath
from matplotlib.figure import Figure

from covidscan.metrics import metrics_json
from covidscan.metrics.detectability import read as read_detectability
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.provenance import Provenance
from covidscan.metrics.results import Evaluation
from covidscan.metrics.thresholds import Threshold
from covidscan.report import agreement, forest, html, montage, plots
from covidscan.report.charts import ChartData, chart_data
from covidscan.report.checklist import render_checklist
from covidscan.report.montage import ShownStudy
from tfds_mosmed import storage
from tfds_mosmed.facts import has_public_ids

FIGURES = "figures"  # folder of the drawings as SVG
PICTURES = (  # also as PNG
    "roc",
    "precision_recall",
    "confusion_matrix",
    "montage",
    "reliability",
    "decision_curve",
    "scatter",
    "bland_altman",
    "residuals",
)


def shown_studies(predictions: Predictions, threshold: Threshold, evaluation: Evaluation) -> list[str]:
    """Choose the studies whose volumes `write_evaluation` shows: those of the montage, and the worst failures."""
    chosen = [study_id for _, members in montage.choose(predictions, threshold) for study_id in members]
    return list(dict.fromkeys([*chosen, *(failure.study_id for failure in evaluation.failures)]))


def write_evaluation(
    directory: epath.PathLike,
    predictions: Predictions,
    threshold: Threshold,
    evaluation: Evaluation,
    provenance: Provenance,
    volumes: Mapping[str, ShownStudy],
    *,
    history: Sequence[Mapping[str, Any]] = (),
    steps_per_epoch: float | None = None,
    detectability: epath.PathLike | None = None,
    owner: str | None = None,
) -> None:
    """Write the evaluation's files, each whole or not at all, `metrics.json` last.

    Only predictions.csv and metrics.json name the studies of a data set whose ids are names of a user's files, which
    may identify patients; the others, which are passed on, number them as the rows of predictions.csv.

    Args:
      directory: made where it does not exist; files of an earlier evaluation are replaced.
      predictions: of a model.
      threshold: see `thresholds.decide`.
      evaluation: of the predictions.
      provenance: of the evaluation.
      volumes: study id -> study, for those of `shown_studies`.
      history: the lines of the run's metrics.jsonl.
      steps_per_epoch: of the run.
      detectability: folder of the run's sensitivity to inserted lesions, shown where it is that of this checkpoint at
        this operating point.
      owner: id of the run.
    """
    table = predictions.to_csv(threshold)
    complete = evaluation, provenance  # with the names of the studies
    warnings = [
        each if has_public_ids(each.dataset) else replace(each, studies=[]) for each in provenance.data_warnings
    ]
    provenance = replace(provenance, data_warnings=warnings)
    if not has_public_ids(provenance.dataset):
        predictions, evaluation, provenance, volumes = _numbered(predictions, evaluation, provenance, volumes)
    charts = chart_data(predictions, threshold, history, steps_per_epoch)
    figures = _figures(predictions, threshold, evaluation, charts, volumes)
    pictures = {f"{name}.png": plots.to_png(figures[name]) for name in PICTURES if name in figures}
    drawings = {f"{name}.svg": plots.to_svg(figure) for name, figure in figures.items()}
    shown = drawings | {"montage.png": pictures["montage.png"]}
    del shown["montage.svg"]  # of slices, larger
    measured = None
    if detectability is not None:
        measured = read_detectability(detectability, owner)
        point = evaluation.operating_point  # with --prevalence the threshold is another, with --tta the network too
        if measured is not None and (
            (measured.checkpoint, measured.threshold, "") != (provenance.checkpoint, point.threshold, point.tta)
        ):
            measured = None
        names = "detectability.png", "detectability.svg", "examples.png"  # the drawing, where there is one
        kept = [] if measured is None else [name for name in names if name in (measured.pictures or names)]
        more = [epath.Path(detectability) / name for name in kept]  # others are of an earlier measurement
        shown |= {path.name: path.read_bytes() for path in more if path.exists()}
    files = {
        "predictions.csv": table.encode(),
        **pictures,
        **{f"{FIGURES}/{name}": svg for name, svg in drawings.items()},
        "report.html": html.render_html(evaluation, provenance, charts, shown, volumes, measured).encode(),
        "model_card.md": html.render_model_card(evaluation, provenance).encode(),
        "checklist.md": render_checklist(evaluation, provenance).encode(),
    }
    files[metrics_json.FILE] = metrics_json.to_text(*complete, files, owner).encode()
    folder = epath.Path(directory)
    storage.make_folder(folder / FIGURES)
    for name, data in files.items():
        storage.write_whole(folder / name, data)


def _figures(
    predictions: Predictions,
    threshold: Threshold,
    evaluation: Evaluation,
    charts: ChartData,
    volumes: Mapping[str, ShownStudy],
) -> dict[str, Figure]:
    """Draw the figures of an evaluation, by name."""
    if evaluation.regression:
        figures = {
            "scatter": agreement.scatter(predictions),
            "bland_altman": agreement.bland_altman(predictions, evaluation.regression),
            "residuals": agreement.residuals(predictions),
        }
    else:
        figures = {
            "roc": plots.roc(charts, evaluation.threshold),
            "precision_recall": plots.precision_recall(charts),
        }
    if evaluation.confusion_matrix:
        figures["confusion_matrix"] = plots.confusion_matrix(evaluation.confusion_matrix, evaluation.label_names)
    figures["montage"] = montage.draw(predictions, volumes, threshold)
    if evaluation.disease:
        explorer = charts.explorer
        dot = explorer.frozen_point if explorer else None
        disease = replace(charts, curves=charts.curves[:1], operating_dot=dot)
        figures |= {
            "roc_disease": plots.roc(disease, explorer.threshold if explorer else None),
            "precision_recall_disease": plots.precision_recall(disease),
        }
    if evaluation.calibration:
        figures["reliability"] = plots.reliability(evaluation.calibration)
    if evaluation.decision_curve:
        figures["decision_curve"] = plots.decision_curve(evaluation.decision_curve, charts.explorer)
    if charts.explorer:
        figures["scores"] = plots.scores(charts.explorer)
    if evaluation.subgroups:
        figures["subgroups"] = forest.plot(evaluation)
    if charts.learning:
        figures["learning_curves"] = plots.learning_curves(charts.learning, charts.steps_per_epoch)
    return figures


def _numbered(
    predictions: Predictions,
    evaluation: Evaluation,
    provenance: Provenance,
    volumes: Mapping[str, ShownStudy],
) -> tuple[Predictions, Evaluation, Provenance, dict[str, ShownStudy]]:
    """Return the same with numbers for the studies' names."""
    numbers = {study_id: f"study {row}" for row, study_id in enumerate(predictions.study_id, 1)}
    failures = [replace(failure, study_id=numbers[failure.study_id]) for failure in evaluation.failures]
    left_out = [(f"left-out study {row}", reason) for row, (_, reason) in enumerate(provenance.skipped, 1)]
    return (
        replace(predictions, study_id=list(numbers.values())),
        replace(evaluation, failures=failures),
        replace(provenance, skipped=left_out),
        {numbers[study_id]: volume for study_id, volume in volumes.items()},
    )
