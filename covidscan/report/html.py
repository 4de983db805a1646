"""The page and the model card: one self-contained HTML file and one short Markdown file."""

import base64
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from covidscan.config import Config
from covidscan.metrics import classification, metrics_json, roc_band, sample_size
from covidscan.metrics.detectability import Detectability
from covidscan.metrics.interval_methods import wilson
from covidscan.metrics.provenance import Provenance
from covidscan.metrics.results import Evaluation
from covidscan.report import charts, cohort, plots, slices, wording
from covidscan.report import detectability as report_detectability
from covidscan.report.montage import ShownStudy
from tfds_mosmed.errors import one_line
from tfds_mosmed.facts import has_public_ids
from tfds_mosmed.progress import duration

CAPTIONS = {
    "montage": (
        "Studies at the lung window (level −600, width 1500 HU): three axial slices each, from feet to head, "
        "the patient's right on the left. Mistakes are the most confident ones; correct predictions are of median "
        "confidence. Where lesions are marked, the slices with most lesion are shown, with yellow outlines."
    ),
    "montage_of_values": (
        "Studies at the lung window (level −600, width 1500 HU): three axial slices each, from feet to head, "
        "the patient's right on the left. Those with the largest errors, and those with a median error. Where lesions "
        "are marked, the slices with most lesion are shown, with yellow outlines."
    ),
    "detectability": (
        "Share of inserted lesions that are detected at the frozen threshold, and the change in log-odds that they "
        "make, against their diameter; bars are 95 % intervals over scans."
    ),
    "examples": (
        "Lesions inserted into one scan, at the lung window (level −600, width 1500 HU); on the left the slice without."
    ),
}
ASSETS = ("report.css", "operating.js", "plots.js", "viewer.js", "report.js")
MOST_LEARNING_ROWS = 40


def environment(autoescape: bool) -> jinja2.Environment:
    """Return the environment of the report's templates, with the filters of `wording`."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("covidscan.report", package_path="templates"),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in ("number", "signed", "brief", "p_value", "title_of", "about", "utc"):
        made.filters[name] = getattr(wording, name)
    made.filters["duration"] = duration
    made.globals["key_title"] = wording.key_title
    made.globals["captions"] = CAPTIONS
    made.globals["wilson"] = wilson
    made.globals["words"] = cohort
    return made


def shared_variables(evaluation: Evaluation, provenance: Provenance) -> dict[str, Any]:
    """Return the variables that the templates of page, model card and checklists share."""
    return {
        "evaluation": evaluation,
        "too_few": sample_size.is_few(evaluation.task, evaluation.counts, evaluation.num_studies),
        "vague_slope": sample_size.is_vague(evaluation.calibration),
        "not_beaten": wording.not_beaten(evaluation),
        "key_metrics": wording.key_metrics(evaluation),
        "key_metric": wording.key_metric(evaluation),
        "output": wording.output(evaluation),
        "decision": wording.decision(evaluation),
        "provenance": provenance,
        "config": Config().to_json() | provenance.config,  # runs of earlier versions lack some fields
        "architecture": wording.architecture(provenance),
        "parameters": wording.parameters(provenance),
        "phantom": wording.phantom_banner(provenance),
        "origin": wording.origin(provenance),
        "accesses": wording.count_accesses(provenance),
        "single": provenance.arrangement == "single",
        "pooled": provenance.arrangement == "out_of_fold",
    }


def _sections(
    evaluation: Evaluation, pictures: Mapping[str, Any], has_learning: bool, detectability: Detectability | None
) -> list[tuple[str, str]]:
    """List the (anchor, title) of the sections that have content, in reading order."""
    pooled = evaluation.repeats is not None and evaluation.repeats.kind == "folds"
    repeats = ("repeats", "Seeds and folds", evaluation.repeats)
    found = [
        *([repeats] if pooled else []),
        ("metrics", "Metrics of all folds pooled" if pooled else "Metrics", True),
        ("baselines", "Baselines and probes", evaluation.baselines),
        ("data", "Data", True),
        ("labels", "Labels", evaluation.labels),
        ("agreement", "Agreement with the reference standard", evaluation.regression),
        ("threshold", "Threshold and curves", not evaluation.regression),
        ("calibration", "Calibration", evaluation.calibration),
        ("subgroups", "Subgroups", evaluation.subgroups),
        ("failures", "Failures", evaluation.failures or "montage.png" in pictures),
        ("detectability", "Sensitivity to inserted lesions", detectability),
        ("comparison", "Comparison with another run", evaluation.comparison),
        *([] if pooled else [repeats]),
        ("learning", "Learning curves", has_learning),
        ("reproduce", "How to reproduce", True),
        ("limits", "Limits", True),
    ]
    return [(anchor, title) for anchor, title, present in found if present]


def asset(name: str) -> Markup:
    """Read a style sheet or script of the pages."""
    return Markup((resources.files("covidscan.report") / "templates" / name).read_text(encoding="utf-8"))


def _script_json(value: Any) -> Markup:
    """Format JSON so that it cannot end a script element."""
    return Markup(json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def _embed(pictures: Mapping[str, bytes]) -> dict[str, str]:
    """Turn pictures into data URIs by name without suffix; the montage, of photographs, into WebP."""
    embedded = {}
    for name, data in pictures.items():
        stem, _, kind = name.partition(".")
        content = slices.to_webp(data) if stem == "montage" else data
        kind = "webp" if stem == "montage" else kind.replace("svg", "svg+xml")
        embedded[stem] = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return embedded


def _learning_rows(learning: Mapping[str, Mapping[str, charts.Curve]]) -> list[tuple[int, Any, Any]]:
    """List (step, loss, AUROC or MAE) of the validation part, evenly thinned, the last step included."""
    loss, score = (
        dict(zip(*map(np.ndarray.tolist, learning[name]["validation"]), strict=True))
        if "validation" in learning.get(name, {})
        else {}
        for name in ("loss", "mae" if "mae" in learning else "auroc")
    )
    steps = sorted(loss | score)
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(MOST_LEARNING_ROWS, len(steps))).round().astype(int))
    return [(steps[index], loss.get(steps[index]), score.get(steps[index])) for index in chosen]


def render_html(
    evaluation: Evaluation,
    provenance: Provenance,
    data: charts.ChartData,
    pictures: Mapping[str, bytes],
    volumes: Mapping[str, ShownStudy],
    detectability: Detectability | None = None,
) -> str:
    """Render the page.

    Args:
      evaluation: sections of what is None or empty are left out.
      provenance: of the evaluation.
      data: of the curves.
      pictures: file name -> PNG or SVG; those of plots are shown until a script draws the plot, or where none runs.
      volumes: study id -> study, for the slice viewer: failures that are not in it are in the table alone.
      detectability: the run's sensitivity to inserted lesions, if it was measured.

    Returns:
      An HTML page that fetches nothing.
    """
    viewed = slices.viewed(evaluation.failures, volumes)
    sheets = [(metrics_json.map_texts(each, one_line), slices.sheet(volumes[each.study_id])) for each in viewed]
    evaluation, provenance, data = (metrics_json.map_texts(each, one_line) for each in (evaluation, provenance, data))
    embedded = _embed(pictures)
    shown = {
        "pictures": embedded,
        "explorer": data.explorer,
        "curves": data.curves,
        "learning": data.learning,
        "learning_rows": _learning_rows(data.learning),
        "epoch": data.steps_per_epoch,
        "training_loss": wording.training_loss(provenance.config),
        "band": roc_band.METHOD,
        "most_bands": plots.MOST_BANDS,
        "sheets": sheets,
        "baseline_metrics": [
            name for name in classification.TITLES if any(name in row.metrics for row in evaluation.baselines)
        ],
        "beside": wording.metrics_beside_baselines(evaluation),
        "has_means": wording.has_means_beside_baselines(evaluation),
        "public_ids": has_public_ids(provenance.dataset),
        "skip_reasons": wording.skip_reasons(provenance.skipped),
        "assets": {name: asset(name) for name in ASSETS},
        "data": _script_json(data.to_json(evaluation) | {"checkpoint": provenance.checkpoint}),
        "plotly": Markup(charts.plotly_gzip()),
        "sections": _sections(evaluation, pictures, bool(data.learning), detectability),
        "detectability": detectability,
        "detectability_text": report_detectability,
    }
    template = environment(autoescape=True).get_template("report.html")
    return template.render(**shared_variables(evaluation, provenance), **shown)


def render_model_card(evaluation: Evaluation, provenance: Provenance) -> str:
    """Render the model card (Mitchell et al., FAT* 2019), in Markdown; names in it are neither Markdown nor HTML."""
    evaluation, provenance = (metrics_json.map_texts(each, wording.markdown) for each in (evaluation, provenance))
    template = environment(autoescape=False).get_template("model_card.md")
    return template.render(**shared_variables(evaluation, provenance))
