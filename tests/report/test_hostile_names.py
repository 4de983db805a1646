"""Names of studies and labels, and texts of files, are only text in every file of an evaluation."""

import csv
import dataclasses
import io
import re
import unicodedata
import warnings
from html.parser import HTMLParser

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.text import Text
from PIL import Image

from covidscan.config import Config
from covidscan.evaluation import multilabel, regression
from covidscan.evaluation.subgroups import evaluate_subgroups
from covidscan.metrics import csv_cells, metrics_json, thresholds
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import OperatingPoint
from covidscan.report import charts, console, html, plots, wording, write
from covidscan.report.checklist import render_checklist
from tests.support import full_evaluations
from tests.support.evaluations import THIRTEEN, chest, context, evaluation_json, provenance
from tests.support.loaded import load
from tfds_mosmed.errors import one_line, visible

FRAGMENTS = (
    *("\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\u202e", "\u2066", "\u200f", "\ufeff", "\r", "\n", "\t", "\udce9"),
    *("$x$", "$$", "`", "```", "*", "**", "_", "__", "~~", "|", "\\", "[a](https://b)", "![a](b)", "<b>", "</script>"),
    *("<!--", "&lt;", "&", '"', "'", "# ", "> ", "- ", "+ ", "1. ", "2) ", "===", "---", "[x]: y", "https://b.c"),
    *("=HYPERLINK(1)", "=1+1", "+1", "-1", "@SUM(1)", "＝1", "{{ 7 * 7 }}", "{% raw %}", "CT-1", "12.5", "a b"),
)
names = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=3)), min_size=1, max_size=6).map("".join)
HOSTILE = "".join(FRAGMENTS)
# Format characters that are no part of a word, and control characters but tab and line feed.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])


@hypothesis.given(names)
def test_a_line_for_the_terminal_or_the_log_controls_nothing(name):
    assert not CONTROL.search(visible(name))
    assert not CONTROL.search(one_line(name))
    assert len(one_line(name).splitlines()) <= 1


@hypothesis.given(names)
def test_a_cell_is_no_formula_and_reads_back_as_the_text(name):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([csv_cells.escape(name), "next"])
    ((cell, _),) = csv.reader(io.StringIO(text.getvalue()))
    assert csv_cells.unescape(cell) == name
    assert not CONTROL.search(cell)
    bare = unicodedata.normalize("NFKC", cell).lstrip()
    assert not bare.startswith(("=", "@", "+", "-")) or re.fullmatch(r"[+-]\d[\d.e+-]*", bare)


@hypothesis.given(names)
def test_markdown_shows_the_name_and_nothing_else(name):
    escaped = wording.markdown(name)
    assert not CONTROL.search(escaped)
    shown = one_line(name).encode(errors="replace").decode()
    for before, after in (("", ""), ("- ", ""), ("| ", " |\n|---|\n| a |")):
        tokens = [token for token in markdown.parse(f"{before}{escaped}{after}") if token.type == "inline"]
        hypothesis.assume(shown)
        kinds = {child.type for child in tokens[0].children}
        assert kinds <= {"text", "text_special"}, kinds
        assert "".join(child.content for child in tokens[0].children) == shown.strip()


def _of_other_labels(kind, suffix):
    """An evaluation of sets of labels or of numbers with a suffix to every text that is a name, likewise."""
    suffix = suffix.replace("|", "")  # it parts the names of a set
    rng, sets = np.random.default_rng(0), kind == "multilabel"
    ids, label_names = [f"s{number}{suffix}" for number in range(30)], [f"a{suffix}", f"b{suffix}"]
    label = rng.integers(0, 2, (30, 2)) if sets else rng.uniform(0, 60, 30)
    value = rng.random((30, 2)) if sets else label[:, None] + rng.normal(0, 5, (30, 1))
    predictions = Predictions(ids, [suffix] * 30, label, value, tuple(label_names) if sets else ("value",), kind)
    chosen = f"Each label has its own: {label_names[0]} 0.4, {label_names[1]} 0.5." if sets else "There is none."
    point = OperatingPoint("youden", chosen, None, 1.0, 30, 7, grade_thresholds=[0.4, 0.5] if sets else [])
    threshold = thresholds.frozen(None, point.grade_thresholds)
    evaluation = (
        multilabel.summarize(predictions, threshold, point) if sets else regression.summarize(predictions, point, 29.0)
    )
    groups = {f"site{suffix}": [f"one{suffix}", f"two{suffix}"] * 15}
    evaluation = dataclasses.replace(evaluation, subgroups=evaluate_subgroups(predictions, threshold, groups))
    flags = {"task": kind, "dataset": "ct_table/64x64x32"}
    about = provenance(config=Config(**flags).to_json(), counts={"train": dict.fromkeys(predictions.label_names, 9)})
    return evaluation, about, predictions, charts.chart_data(predictions, threshold, [])


def _renamed(kind, suffix):
    """The most complete evaluation of a task with a suffix to every text that is a name, its provenance, its charts."""
    if kind in ("multilabel", "regression"):
        return _of_other_labels(kind, suffix)
    result, about, predictions, _, history = getattr(full_evaluations, kind)()
    evaluation, provenance = load(result, about)
    names = {*predictions.study_id, *predictions.label_names, *predictions.category, *evaluation.category_counts}
    names |= {group.name for subgroup in evaluation.subgroups for group in subgroup.groups}
    names |= {subgroup.by for subgroup in evaluation.subgroups} | {name for name, _ in provenance.skipped}

    def change(text):
        return text + suffix if text in names else text

    changed = [metrics_json.map_texts(each, change) for each in (evaluation, provenance, predictions)]
    return *changed, charts.chart_data(changed[2], result["threshold"], history)


class _Tags(HTMLParser):
    """The tags of a page with the names of their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, tuple(name for name, _ in attrs)))


@pytest.fixture(scope="module", params=["binary", "classes", "multilabel", "regression"])
def benign_and_hostile(request):
    return _renamed(request.param, ""), _renamed(request.param, HOSTILE)


def test_the_page_has_the_same_tags_whatever_the_names(benign_and_hostile):
    drawn = dict.fromkeys(("scatter.svg", "bland_altman.svg", "residuals.svg"), b"<svg></svg>")
    drawn = drawn if benign_and_hostile[0][0].regression else {}
    pages = [html.render_html(evaluation, about, data, drawn, {}) for evaluation, about, _, data in benign_and_hostile]
    assert _Tags(pages[0]).found == _Tags(pages[1]).found
    assert not CONTROL.search(pages[1].partition('id="plotly-gzip"')[0])
    assert "&lt;b&gt;" in pages[1]


@pytest.mark.parametrize("render", [html.render_model_card, render_checklist])
def test_markdown_has_the_same_structure_whatever_the_names(render, benign_and_hostile):
    texts = [render(evaluation, about) for evaluation, about, *_ in benign_and_hostile]
    assert not CONTROL.search(texts[1])
    shapes = []
    for text in texts:
        tokens = [child for token in markdown.parse(text) for child in (token, *(token.children or ()))]
        # Escaped characters are tokens of their own, between which text may be split.
        shapes.append([token.type for token in tokens if token.type not in ("text", "text_special")])
    assert shapes[0] == shapes[1]
    assert "{{ 7" in texts[1]


def test_the_console_shows_names_in_one_line_each(benign_and_hostile):
    texts = [console.evaluation_text(evaluation) for evaluation, *_ in benign_and_hostile]
    assert len(texts[0].splitlines()) == len(texts[1].splitlines())
    assert not CONTROL.search(texts[1])


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_figures_can_be_drawn_whatever_the_names(kind):
    # What is no character is a code in records already.
    evaluation, _, predictions, data = _renamed(kind, "肺炎" + HOSTILE.replace("\udce9", ""))
    warnings.filterwarnings("error", "Glyph")  # it would be printed
    at = {"binary": 0.5, "multilabel": np.array([[0.4, 0.5]])}.get(predictions.task)
    volumes = {name: chest() for name in write.shown_studies(predictions, at, evaluation)}
    for name, figure in write._figures(predictions, at, evaluation, data, volumes).items():
        assert plots.to_svg(figure), name


def test_predictions_csv_reads_back(benign_and_hostile):
    _, (_, _, predictions, _) = benign_and_hostile
    at = {"binary": 0.5, "multilabel": np.array([[0.4, 0.5]])}.get(predictions.task)
    text = predictions.to_csv(at)
    again = type(predictions).from_csv(text, predictions.task)
    assert again.study_id == predictions.study_id
    np.testing.assert_array_equal(again.label, predictions.label)
    assert not CONTROL.search(text)


def test_files_that_are_passed_on_do_not_name_the_studies_of_a_users_folder(tmp_path, monkeypatch):
    ids = [f"normal/Plantedname{place:02d}" for place in range(len(THIRTEEN.study_id))]
    predictions = dataclasses.replace(THIRTEEN, study_id=ids)
    skipped = [("normal/Plantedleft", "is empty; copy or download it again")]
    drawn, pixel = [], io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, "PNG")

    def to_png(figure):
        drawn.extend(text.get_text() for text in figure.findobj(Text))
        return pixel.getvalue()

    monkeypatch.setattr(plots, "to_png", to_png)
    for dataset, is_named in (("ct_folder/64x64x32", False), ("another/64x64x32", False), ("mosmed/64x64x32", True)):
        drawn.clear()
        folder = tmp_path / dataset
        warnings = [
            {
                "dataset": dataset,
                "text": "29 slices came twice",
                "studies": ["normal/Plantedwarned"],
                "counts": {"train": 3},
            }
        ]
        about = context(dataset=dataset, skipped=skipped, data_warnings=warnings)
        evaluation, about = load(evaluation_json(predictions), about)
        volumes = {name: chest() for name in write.shown_studies(predictions, 0.5, evaluation)}
        write.write_evaluation(folder, predictions, 0.5, evaluation, about, volumes)
        texts = {path.name: path.read_text() for path in folder.iterdir() if path.suffix in (".html", ".md")}
        assert texts.keys() == {"report.html", "model_card.md", "checklist.md"}
        texts["pictures"] = "\n".join(drawn)
        found = {name for name, text in texts.items() if "Planted" in text}
        assert found == ({"report.html", "checklist.md", "pictures"} if is_named else set())
        # The studies are found in the table by their numbers.
        rows = list(csv.DictReader(io.StringIO((folder / "predictions.csv").read_text())))
        assert [row["study_id"] for row in rows] == ids
        if not is_named:
            for number in re.findall(r'<th scope="row">study (\d+)</th>', texts["report.html"]):
                row = rows[int(number) - 1]
                assert row["prediction"] != row["label"]
            assert "study 8" in texts["report.html"]
            assert "study 8" in texts["pictures"]
            assert "left-out study 1: is empty" in texts["report.html"]
            assert "3 train: 29 slices came twice" in texts["report.html"]
