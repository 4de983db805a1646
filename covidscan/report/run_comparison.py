"""Page, pictures and text of a comparison of runs."""

import base64
import collections
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from etils import epath
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from covidscan.metrics import metrics_json
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import Calibration, Metric
from covidscan.metrics.run_comparison import ComparedRun, Pair, RunComparison
from covidscan.report import html, plots, wording
from covidscan.report.charts import ChartData, Curve, curves
from covidscan.report.console import text_table
from tfds_mosmed import storage
from tfds_mosmed.errors import UserError, one_line
from tfds_mosmed.progress import fitted

PAGE, FILE = "compare.html", "compare.json"
ALPHA = 0.05  # of the tests, after the correction
CAPTIONS = {
    "roc": (
        "ROC: sensitivity against the share of negatives predicted positive; of up to "
        f"{plots.MOST_BANDS} runs shaded with pointwise 95 % bands. Whether runs differ, the paired tests say."
    ),
    "precision_recall": "Precision against recall; broken lines: always answering yes.",
    "calibration": (
        "Reliability after temperature scaling: observed share against predicted probability in bins. On the broken "
        "line they are equal. Intervals are in the report of each run."
    ),
    "learning_loss": "Loss on the validation part against passes over the training studies.",
    "learning_mae": (
        "Mean absolute error on the validation part, which chose the checkpoint. Curves of different validation parts "
        "cannot be compared."
    ),
    "learning_auroc": (
        "AUROC on the validation part, which chose the checkpoint. Curves of different validation parts cannot be "
        "compared."
    ),
}
ARRANGEMENTS = {"single": "one", "ensemble": "the mean of several", "out_of_fold": "one for each fold"}
_SHARES = (
    "auroc",
    "macro_auroc",
    "auprc",
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "exact_match",
)
_SHOWN = (*_SHARES, "mae", "rmse", "r2", "pearson")


@dataclass(frozen=True)
class DrawnRun:
    """A run, as it is drawn.

    Attributes:
      name: of the run.
      predictions: for its ROC and precision-recall curves.
      calibration: for its reliability diagram; None where it was not examined.
      learning: "loss", "auroc" or "mae" -> split -> values by passes over the training studies.
    """

    name: str
    predictions: Predictions
    calibration: Calibration | None
    learning: dict[str, dict[str, Curve]]


def write_comparison(directory: epath.PathLike, comparison: RunComparison, drawn: Sequence[DrawnRun]) -> None:
    """Write compare.html, the pictures and, last, compare.json, each whole or not at all.

    Args:
      directory: made where it does not exist; files of an earlier comparison are replaced.
      comparison: the runs.
      drawn: what is drawn of each.

    Raises:
      UserError: the folder is that of an evaluation.
    """
    folder = epath.Path(directory)
    if (folder / metrics_json.FILE).exists():
        raise UserError(f"--output_dir={folder} holds an evaluation, whose files would be replaced: give another one")
    figures = draw(drawn)
    drawings = {epath.Path(name).with_suffix(".svg").name: plots.to_svg(figure) for name, figure in figures.items()}
    files = {
        **{name: plots.to_png(figure) for name, figure in figures.items()},
        **drawings,
        PAGE: render(comparison, drawings).encode(),
        FILE: (json.dumps(asdict(comparison), indent=2, allow_nan=False) + "\n").encode(),
    }
    storage.make_folder(folder)
    for name, data in files.items():
        storage.write_whole(folder / name, data)


def render(comparison: RunComparison, drawings: Mapping[str, bytes]) -> str:
    """Render the page, which fetches nothing and needs no scripts.

    Args:
      comparison: the runs.
      drawings: file name -> SVG, see `draw`.
    """
    comparison = metrics_json.map_texts(comparison, one_line)
    template = html.environment(autoescape=True).get_template("compare.html")
    return template.render(
        comparison=comparison,
        runs=comparison.runs,
        rows=_rows(comparison.runs),
        bars=[name for name in _SHARES if name in comparison.runs[0].metrics],
        verdicts=verdicts(comparison),
        is_phantom=any(run.dataset.startswith("ct_phantom/") for run in comparison.runs),
        flags={f"--{name}": list(map(flag_text, values)) for name, values in comparison.flags.items()},
        facts=_facts(comparison.runs, comparison.task),
        pictures={
            name: f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}" for name, svg in drawings.items()
        },
        style=html.asset("report.css"),
        captions=CAPTIONS,
    )


def _rows(runs: Sequence[ComparedRun]) -> dict[str, list[Metric]]:
    """Return the metrics, and those of the calibration, by name: one of each run."""
    tables = [run.metrics | run.calibration for run in runs]
    return {
        name: [table.get(name, Metric(None)) for table in tables]
        for name in dict.fromkeys(n for t in tables for n in t)
    }


def flag_text(value: Any) -> str:
    """Return a flag's value as it is typed."""
    if value is None:
        return "default"
    if isinstance(value, list):
        return ",".join(
            ":".join(f"{each:g}" for each in part) if isinstance(part, list) else str(part) for part in value
        )
    return str(value).lower() if isinstance(value, bool) else str(value)


def _facts(runs: Sequence[ComparedRun], task: str) -> dict[str, list[str]]:
    """Return what each run was evaluated on, by what is said of it."""

    def rate(value: float | None) -> str:
        return "not known" if value is None else f"{value:.3g} volumes/s"

    return {
        "Folder": [run.workdir for run in runs],
        "Evaluated on": [f"{run.dataset}, {run.part}{' (external)' * run.external}" for run in runs],
        "Studies": [
            f"{run.num_studies}: {', '.join(f'{count} {label}' for label, count in run.counts.items())}"
            if task != "regression"
            else f"{run.num_studies}"
            for run in runs
        ],
        "Records (SHA-256)": [run.fingerprint[:16] for run in runs],
        "Split (SHA-256)": [run.split_hash[:16] for run in runs],
        "Split of the training": [run.trained_split_hash[:16] for run in runs],
        "Checkpoint": [
            f"step {run.checkpoint:,}" + (f" of {run.num_steps:,}" if run.num_steps else "") for run in runs
        ],
        "Threshold": [
            "each fold’s own"
            if run.threshold is None and run.arrangement == "out_of_fold"
            else "one for each label"
            if run.threshold is None and "exact_match" in run.metrics
            else "none"
            if run.threshold is None
            else wording.brief(run.threshold)
            for run in runs
        ],
        "Networks": [ARRANGEMENTS[run.arrangement] for run in runs],
        "Parameters": [f"{run.num_parameters:,}" for run in runs],
        "Training": [rate(run.training_rate) for run in runs],
        "Evaluation": [f"{rate(run.inference_rate)} on {run.device}" for run in runs],
        "CovidScan": [run.code_version for run in runs],
        "Evaluated": [wording.utc(run.date) for run in runs],
    }


def verdicts(comparison: RunComparison) -> list[str]:
    """Write a sentence for each metric that was tested, and one where some pairs could not be."""
    found, tests = [], collections.defaultdict(list)
    for pair in comparison.pairs:
        for name in pair.differences:
            tests[wording.without_label(name)].append((pair, name))
    for metric, tested in tests.items():
        shown = [_difference_text(pair, name) for pair, name in tested if pair.corrected[name] < ALPHA]
        several, of_labels = len(tested) > 1, tested[0][1] != metric
        title = f"{wording.title_of(metric)}{' of a label' * of_labels}"
        how, what = " after Holm's correction" if several else "", "tests" if of_labels else "pairs"
        if shown:
            of = f" in {len(shown)} of {len(tested)} {what}" if several else ""
            found.append(f"{title} differs at 5 %{how}{of}: {'; '.join(shown)}.")
        else:
            of = f" in {len(tested)} {what}" if several else ""
            found.append(f"{title}: no difference is shown at 5 %{how}{of}, which does not mean that there is none.")
    untested = sum(any(pair.num_alone) for pair in comparison.pairs)
    if untested:
        found.append(
            f"{untested} of {len(comparison.pairs)} pairs were evaluated on different studies and are not tested: "
            "their metrics stand side by side, and differ by the studies too."
        )
    return found


def _difference_text(pair: Pair, name: str) -> str:
    each = pair.differences[name]
    label = name.partition(":")[2]
    text = f"{label and f'{label}: '}{pair.first} {wording.signed(each.difference)} against {pair.second}"
    return f"{text}, though its 95 % interval holds 0" if each.interval[0] <= 0 <= each.interval[1] else text


def comparison_text(comparison: RunComparison) -> str:
    """Format a comparison for the console: the metrics side by side, and the tests."""
    comparison = metrics_json.map_texts(comparison, one_line)
    names = [name for name in _SHOWN if name in comparison.runs[0].metrics]
    rows: list[Sequence[str]] = [("", "studies", *map(wording.title_of, names))]
    rows += [
        (run.name, str(run.num_studies), *(_with_interval(run.metrics.get(name, Metric(None))) for name in names))
        for run in comparison.runs
    ]
    blocks = [text_table(list(zip(*rows, strict=True)))]
    tests: list[Sequence[str]] = [("", "difference", "95 % interval", "p", "p (Holm)", "test")]
    for pair in comparison.pairs:
        for name, each in pair.differences.items():
            interval = "{:+.3f} to {:+.3f}".format(*each.interval)
            values = wording.p_value(each.p_value), wording.p_value(pair.corrected[name])
            label = f"{pair.first} − {pair.second}: {wording.title_of(name)}"
            tests.append((label, f"{each.difference:+.3f}", interval, *values, each.method))
    if len(tests) > 1:
        blocks.append(text_table(tests))
    warnings = [f"{run.name}: {text}" for run in comparison.runs for text in run.warnings]
    return "\n\n".join([*blocks, fitted("\n".join([*verdicts(comparison), *warnings]))])


def _with_interval(metric: Metric) -> str:
    value = wording.number(metric.value)
    return f"{value} ({metric.interval[0]:.2f} to {metric.interval[1]:.2f})" if metric.interval else value


def draw(runs: Sequence[DrawnRun]) -> dict[str, Figure]:
    """Draw the runs over each other: file name -> figure; what no run has is left out."""
    figures = {}
    is_of_numbers = runs[0].predictions.task == "regression"
    found = [{each.name: replace(each, name=run.name) for each in curves(run.predictions)} for run in runs]
    questions = dict.fromkeys(question for each in found for question in each)
    for number, question in enumerate(questions):
        data = ChartData([each[question] for each in found if question in each], None, None, {})
        which = f"_{number + 1}" if len(questions) > 1 else ""
        for name, figure in (("roc", plots.roc(data, None)), ("precision_recall", plots.precision_recall(data))):
            if which:
                figure.axes[0].set_title(question, loc="left", fontsize=9, color=plots.INK)
            figures[f"{name}{which}.png"] = figure
    if any(run.calibration for run in runs):
        figures["calibration.png"] = _draw_calibration(runs)
    titles = {
        "loss": f"Validation loss{'' if is_of_numbers else ' (nats)'}",
        "auroc": "Validation AUROC",
        "mae": "Validation mean absolute error",
    }
    for name, title in titles.items():
        drawn = [run for run in runs if "validation" in run.learning.get(name, {})]
        if drawn:
            figures[f"learning_{name}.png"] = _draw_learning(runs, name, title)
    return figures


def _styles(runs: Sequence[DrawnRun]) -> Iterator[tuple[DrawnRun, dict[str, Any]]]:
    """Yield each run with the colour and the line that it has in the other plots."""
    for run, style in zip(runs, plots.styles(), strict=False):
        yield run, style | {"linewidth": 1.5}


def _draw_calibration(runs: Sequence[DrawnRun]) -> Figure:
    """Draw the reliability diagram of each run after temperature scaling."""
    figure, axes = plots.unit_square("Predicted probability", "Observed share")
    axes.plot([0, 1], [0, 1], color=plots.FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    for run, style in _styles(runs):
        bins = run.calibration.after.bins if run.calibration else []
        points = [each.mean_probability for each in bins], [each.observed for each in bins]
        axes.plot(*points, **style, marker="o", markersize=4, label=plots.legend_name(run.name))
    plots.legend(axes, loc="upper left")
    return figure


def _draw_learning(runs: Sequence[DrawnRun], name: str, title: str) -> Figure:
    """Draw a metric of the validation part against passes over the training studies."""
    figure = Figure(figsize=(3.4, 3.4))
    axes = figure.add_subplot()
    for run, style in _styles(runs):
        if curve := run.learning.get(name, {}).get("validation"):
            mark = "o" if len(curve.x) < 40 else ""
            axes.plot(*curve, **style, marker=mark, markersize=3, label=plots.legend_name(run.name))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Epochs", fontsize=9)
    axes.set_ylabel(title, fontsize=9)
    plots.finish_axes(axes)
    plots.legend(axes)
    return figure
