"""The page and the model card: one self-contained HTML file and one short Markdown file."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, NotRequired, TypedDict

import jinja2
import numpy as np
from markupsafe import Markup

from covidscan.metrics import classification
from covidscan.metrics.predictions import Predictions
from covidscan.report import charts, flow, plots, slices, wording


class Context(TypedDict):
    """What a report must know besides the predictions.

    Attributes:
      config: the run's resolved flags; "dataset" is the one it was trained on.
      workdir: the run.
      dataset: the data set judged, NAME/CONFIG.
      fingerprint: of its records.
      split_hash: of its parts.
      trained_split_hash: of the parts of the data set trained on.
      part: "train", "validation" or "test"; "out_of_fold": all studies, each judged by the network of its fold.
      external: whether the studies come from another data set than the one trained on.
      is_phantom: whether studies that trained or are judged are synthetic.
      counts: part -> label -> studies, of the data set judged.
      skipped: (study, reason) of studies left out of the records.
      checkpoint: step of the checkpoint.
      checkpoint_choice: how it was chosen: "best", "latest" or the step.
      num_parameters: numbers in the network.
      versions: package -> version, the code's own among them.
      seconds: what took time -> how long.
      date: ISO 8601.
      commands: what to type to get these figures again.
      test_openings: every time a test part was opened, this one included: "date", "dataset", "checkpoint", "command",
        and where known "fold" and "verify" (True: what stood was computed again, nothing new was seen).
      leak_check: what was compared with what.
      flow: "found" and "skipped" studies, "parts" (part -> studies), "protocol".
      arrangement: of the networks: "single" is one; "ensemble" are several whose probabilities are averaged;
        "out_of_fold" are those of a cross-validation, each study judged by the one that never saw it.
      num_members: networks, 1 of "single".
    """

    config: dict[str, Any]
    workdir: str
    dataset: str
    fingerprint: str
    split_hash: str
    trained_split_hash: str
    part: str
    external: bool
    is_phantom: bool
    counts: dict[str, dict[str, int]]
    skipped: Sequence[tuple[str, str]]
    checkpoint: int
    checkpoint_choice: str
    num_parameters: int
    versions: dict[str, str]
    seconds: dict[str, float]
    date: str
    commands: Sequence[str]
    arrangement: str
    num_members: int
    test_openings: NotRequired[Sequence[Mapping[str, Any]]]
    leak_check: NotRequired[str]
    flow: NotRequired[Mapping[str, Any]]


CAPTIONS = {
    "montage.png": (
        "Studies at the lung window (level −600, width 1500 HU): three axial slices each, from feet to head, "
        "the patient's right on the left. Mistakes are the most confident ones; right answers are of median "
        "confidence."
    ),
    "curves.png": "Learning curves of the run.",
}
ASSETS = ("report.css", "operating.js", "plots.js", "viewer.js", "report.js")


def _environment(autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("covidscan.report", package_path="templates"),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": wording.number,
        "signed": wording.signed,
        "brief": wording.brief,
        "duration": wording.duration,
        "title_of": wording.title_of,
    }
    environment.globals |= {"titles": classification.TITLES, "captions": CAPTIONS}
    return environment


def _shared(result: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "result": result,
        "context": context,
        "phantom": wording.phantom_banner(context),
        "origin": wording.origin(context),
        "accesses": wording.count_accesses(context),
        "single": context["arrangement"] == "single",
        "pooled": context["arrangement"] == "out_of_fold",
    }


def _sections(result: Mapping[str, Any], shown: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the (anchor, title) of the sections that have something to say, in reading order."""
    found = [
        ("figures", "Figures", True),
        ("baselines", "Baselines and probes", result.get("baselines")),
        ("data", "Data", True),
        ("threshold", "Threshold and curves", True),
        ("calibration", "Calibration", result.get("calibration")),
        ("subgroups", "Subgroups", result.get("subgroups")),
        ("failures", "Failures", result.get("failures") or "montage.png" in shown["pictures"]),
        ("comparison", "Comparison with another run", result.get("comparison")),
        ("repeats", "Seeds and folds", result.get("repeats")),
        ("learning", "Learning curves", shown["learning"] or "curves.png" in shown["pictures"]),
        ("reproduce", "How to reproduce", True),
        ("limits", "Limits", True),
    ]
    return [(anchor, title) for anchor, title, present in found if present]


def _assets() -> dict[str, Markup]:
    """Read the style sheet and the scripts that the page carries."""
    folder = resources.files("covidscan.report") / "templates"
    return {name: Markup(folder.joinpath(name).read_text(encoding="utf-8")) for name in ASSETS}


def _script_json(value: Any) -> Markup:
    """Write JSON that may stand in a script element."""
    return Markup(json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def _learning_rows(history: Iterable[Mapping[str, Any]], most: int = 40) -> list[tuple[int, Any, Any]]:
    """List (step, loss, AUROC) of the validation part, `most` rows at most, evenly spread, the last one among them."""
    rows = [
        (step, entry.get("loss"), entry.get("auroc"))
        for step, entry in plots.by_split(history).get("validation", {}).items()
    ]
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))
    return [rows[place] for place in chosen]


def render_html(
    result: Mapping[str, Any],
    context: Mapping[str, Any],
    pictures: Mapping[str, bytes],
    *,
    predictions: Predictions,
    volumes: Mapping[str, tuple[np.ndarray, Sequence[float]]],
    history: Sequence[Mapping[str, Any]],
) -> str:
    """Write the report.

    Args:
      result: what `judge.judge` gave; what is absent or None is left out.
      context: see `Context`.
      pictures: file name -> PNG; the montage is shown, the others stand in for the plots where scripts do not run.
      predictions: those judged.
      volumes: study id -> (HU, int16, (slice, row, column); spacing in mm, same order), for the slice viewer: failures
        without a volume are in the table alone.
      history: the lines of `metrics.jsonl`; may be empty.

    Returns:
      An HTML page that fetches nothing.
    """
    explored = charts.explorer(predictions, result["threshold"])
    curves, learning = charts.curves(predictions), charts.learning(history)
    data = charts.page_data(result, explored, curves, learning) | {"checkpoint": context["checkpoint"]}
    rows = result.get("baselines") or []
    embedded = {name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in pictures.items()}
    if "montage.png" in pictures:
        montage = base64.b64encode(slices.to_webp(pictures["montage.png"])).decode()
        embedded["montage.png"] = f"data:image/webp;base64,{montage}"
    shown = {
        "pictures": embedded,
        "explored": explored,
        "curves": curves,
        "learning": learning,
        "learning_rows": _learning_rows(history),
        "sheets": slices.of_failures(result.get("failures") or [], volumes),
        "baseline_figures": [name for name in classification.TITLES if any(name in row["figures"] for row in rows)],
        "flow": flow.draw(context) if context.get("flow") else None,
        "flow_words": flow.describe(context) if context.get("flow") else None,
        "assets": _assets(),
        "data": _script_json(data),
        "plotly": Markup(charts.plotly_gzip()),
    }
    template = _environment(autoescape=True).get_template("report.html")
    return template.render(**_shared(result, context), **shown, sections=_sections(result, shown))


def render_model_card(result: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    """Write the model card (Mitchell et al., FAT* 2019), in Markdown."""
    return _environment(autoescape=False).get_template("model_card.md").render(**_shared(result, context))
