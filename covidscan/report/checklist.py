"""Reporting checklists CLAIM 2024 and TRIPOD+AI in Markdown, each item answered from the run or NOT REPORTED.

Items and answers are in checklists/*.toml, the sentences that several answers share in templates/sentences.txt.
"""

import importlib.resources
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import jinja2

from covidscan.metrics import metrics_json
from covidscan.metrics.provenance import Provenance
from covidscan.metrics.results import Evaluation
from covidscan.report import html, wording
from tfds_mosmed.errors import one_line
from tfds_mosmed.facts import load_facts
from tfds_mosmed.preprocessing.grid import FIXED_MM
from tfds_mosmed.preprocessing.prepare import HIGHEST_HU, LOWEST_HU

CHECKLISTS = ("claim_2024.toml", "tripod_ai.toml")
NOT_REPORTED = "NOT REPORTED"
_IMPORT = '{% import "sentences.txt" as say with context %}'


def read_checklist(name: str) -> dict[str, Any]:
    """Read a checklist's items.

    Args:
      name: one of `CHECKLISTS`.

    Returns:
      "name", "about", "citation", "doi", "total" (number of items) and "section", a list of {"name", "item"}; an item
      has "number", "text", and optionally "answer" (a Jinja template) and "author" (what is left to the author).
    """
    folder = importlib.resources.files("covidscan.report") / "checklists"
    return tomllib.loads(folder.joinpath(name).read_text(encoding="utf-8"))


def render_checklist(evaluation: Evaluation, provenance: Provenance) -> str:
    """Render both checklists.

    Args:
      evaluation: of the predictions.
      provenance: of the evaluation.

    Returns:
      Markdown: the warnings, the number of items answered, and a table a section.
    """
    evaluation, provenance = (metrics_json.map_texts(each, wording.markdown) for each in (evaluation, provenance))
    environment = html.environment(autoescape=False)
    environment.globals |= _variables(evaluation, provenance)
    checklists = [(checklist, _answers(checklist, environment)) for checklist in map(read_checklist, CHECKLISTS)]
    template = environment.get_template("checklist.md")
    return template.render(checklists=checklists, not_reported=NOT_REPORTED)


def _answers(checklist: Mapping[str, Any], environment: jinja2.Environment) -> dict[str, str]:
    """Render the answers by the numbers of their items; an empty one is not reported."""
    answering = environment.overlay(trim_blocks=False)  # a line break is a space between sentences
    items = [item for section in checklist["section"] for item in section["item"]]
    templates = {item["number"]: _IMPORT + item.get("answer", "") for item in items}
    return {number: one_line(answering.from_string(template).render()) for number, template in templates.items()}


def _variables(evaluation: Evaluation, provenance: Provenance) -> dict[str, Any]:
    """Return what the answers need."""
    grid = re.search(r"\d+x\d+x\d+", provenance.dataset)
    correct = sum(row[label] for label, row in enumerate(evaluation.confusion_matrix))
    if evaluation.labels:
        correct = round((evaluation.metrics["exact_match"].value or 0.0) * evaluation.num_studies)
    shares = {
        part: ", ".join(f"{count / total:.1%} {label}" for label, count in labels.items())
        for part, labels in provenance.counts.items()
        if (total := sum(labels.values())) and not (evaluation.regression or evaluation.labels)
    }
    return html.shared_variables(evaluation, provenance) | {
        "facts": _facts((provenance.config["dataset"], provenance.dataset)),
        "fixed_mm": [FIXED_MM[axis] for axis in (1, 2, 0)],
        "grid": grid and grid[0],
        "hu_range": (LOWEST_HU, HIGHEST_HU),
        "label_shares": shares,
        "num_wrong": evaluation.num_studies - correct,
    }


def _facts(datasets: Iterable[str]) -> Mapping[str, str]:
    """Load the facts of the data sets; empty where one of them lacks it."""
    families = dict.fromkeys(name.partition("/")[0] for name in datasets)
    facts = [load_facts(family) for family in families]
    known = defaultdict(str)
    for fact in set.intersection(*(set(each) for each in facts)):
        texts = [each[fact] if len(facts) == 1 else f"{each['name']}: {each[fact]}" for each in facts]
        known[fact] = " ".join(texts)
    return known
