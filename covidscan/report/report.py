"""The page and the model card: one self-contained HTML file and one short Markdown file."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import jinja2

from covidscan import metrics


class Context(TypedDict):
    """What a report must know besides the predictions.

    Attributes:
      config: the run's resolved flags; "dataset" is the one it was trained on.
      workdir: the run.
      dataset: the data set judged, NAME/CONFIG.
      fingerprint: of its records.
      split_hash: of its parts.
      part: "train", "validation" or "test".
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
    """

    config: dict[str, Any]
    workdir: str
    dataset: str
    fingerprint: str
    split_hash: str
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


CAPTIONS = {
    "roc.png": "ROC curve: sensitivity against the share of negatives called positive.",
    "precision_recall.png": "Precision-recall curve; broken line: answering always positive.",
    "confusion_matrix.png": "Confusion matrix: studies, and their share of each reference label.",
    "montage.png": (
        "Studies at the lung window (level −600, width 1500 HU): three axial slices each, from feet to head, "
        "the patient's right on the left. Mistakes are the most confident ones; right answers are of median "
        "confidence."
    ),
    "curves.png": "Learning curves of the run.",
}


def number(value: float | None) -> str:
    """Write a figure with three decimals, or say that it is not defined."""
    return "not defined" if value is None else f"{value:.3f}"


def duration(seconds: float) -> str:
    """Write seconds as a reader says them: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def phantom_banner(context: Mapping[str, Any]) -> str | None:
    """Say that figures come from synthetic chests, or None where they do not."""
    if not context["is_phantom"]:
        return None
    trained, judged = (name.startswith("ct_phantom") for name in (context["config"]["dataset"], context["dataset"]))
    how = "trained and judged" if trained and judged else "trained" if trained else "judged"
    return (
        f"The network was {how} on synthetic chests. These figures show that the software works; they say "
        "nothing of how well it finds disease in patients."
    )


def origin(context: Mapping[str, Any]) -> str:
    """Say in a sentence or two how far the studies are from those that trained the network."""
    if context["external"]:
        return (
            f"External test: trained on {context['config']['dataset']}, judged on {context['dataset']}. "
            "Whether the two share patients or scanners was not checked."
        )
    also = {
        "train": "They trained the network: the figures say how well it remembers. ",
        "validation": "They chose the checkpoint: the figures are better than new studies would give. ",
    }.get(context["part"], "")
    return f"No external test: the studies come from the source of the training studies. {also}".strip()


def _environment(autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("covidscan.report", package_path=""),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "duration": duration}
    environment.globals |= {"titles": metrics.TITLES, "captions": CAPTIONS}
    return environment


def _shared(result: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "result": result,
        "context": context,
        "phantom": phantom_banner(context),
        "origin": origin(context),
    }


def render_html(result: Mapping[str, Any], context: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """Write the report.

    Args:
      result: what `judge.judge` gave.
      context: see `Context`.
      pictures: file name -> PNG, embedded; those known to `CAPTIONS` are shown.

    Returns:
      An HTML page that fetches nothing.
    """
    sources = {name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in pictures.items()}
    template = _environment(autoescape=True).get_template("report.html")
    return template.render(**_shared(result, context), pictures=sources)


def render_model_card(result: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    """Write the model card (Mitchell et al., FAT* 2019), in Markdown."""
    return _environment(autoescape=False).get_template("model_card.md").render(**_shared(result, context))
