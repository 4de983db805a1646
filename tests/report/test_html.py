"""The page, the model card and the files of an evaluation as a reader gets them."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from covidscan.config import Config
from covidscan.metrics import metrics_json, roc
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.provenance import DataWarning
from covidscan.report import charts, detectability, explorer, html, wording
from covidscan.report.write import shown_studies, write_evaluation
from tests.support import full_evaluations
from tests.support.evaluations import SEVERITY, THIRTEEN, binary, chest, context, evaluation_json
from tests.support.loaded import load
from tfds_mosmed.building.cohort import CohortSummary, Count, NumberProperty, TextProperty
from tfds_mosmed.building.shortcuts import Shortcut

PLOTS = ("roc", "precision_recall", "reliability", "decision_curve", "scores")
FULL = {name: getattr(full_evaluations, name)() for name in ("binary", "severity", "classes")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluation")
    evaluation, provenance = load(evaluation_json(THIRTEEN), context())
    volumes = {study_id: chest() for study_id in shown_studies(THIRTEEN, 0.5, evaluation)}
    write_evaluation(path, THIRTEEN, 0.5, evaluation, provenance, volumes)
    return path


def _html(predictions=THIRTEEN, **changes):
    data = charts.chart_data(predictions, 0.5)
    return html.render_html(*load(evaluation_json(predictions), context(**changes)), data, {}, {})


def _full(name, volumes=None, **changes):
    """Render one of the full evaluations, some of its results changed; without volumes, which take time."""
    result, about, predictions, _, history = FULL[name]
    data = charts.chart_data(predictions, result["threshold"], history)
    return html.render_html(*load(result | changes, about), data, {}, volumes or {})


def test_the_report_fetches_nothing(folder):
    page = (folder / "report.html").read_text()
    sources = re.findall(r"""(?:src|href|data|action|poster)\s*=\s*["']([^"']*)""", page)
    assert len(sources) >= 4
    assert all(source.startswith(("data:image/", "data:,", "#")) for source in sources)
    assert not re.search(r"https?://|url\(|@import|<iframe|<link(?! rel=.icon)", page)
    assert "default-src 'none'" in page


def test_every_picture_has_words_for_those_who_cannot_see_it(folder):
    images = re.findall(r"<img[^>]*>", (folder / "report.html").read_text())
    assert len(images) == 10  # five plots, the montage, four studies with mistakes
    assert all(re.search(r'alt="[^"]{20,}"', image) for image in images)


@pytest.mark.parametrize("predictions", [THIRTEEN, SEVERITY, binary((0.9,), ())])
@pytest.mark.parametrize("external", [False, True])
def test_words_of_the_field(predictions, external):
    result = evaluation_json(predictions)
    changed = context(external=external, is_phantom=external)
    for text in (
        _html(predictions, external=external, is_phantom=external),
        html.render_model_card(*load(result, changed)),
    ):
        assert "validated" not in text.lower()
        assert "ground truth" not in text.lower()
        assert "reference standard" in text.lower()
        assert "Research only, not for diagnosis" in text


def test_the_report_has_what_a_reader_needs():
    page = _html()
    for words in (
        "Baseline: always positive",
        "5a" * 32,
        "f1" * 32,
        "&lt;study&gt;.nii.gz: truncated",
        "python -m covidscan.evaluate --workdir=runs/first",
        "1,234,567",
        "2 h 3 min",
        "lung_resnet",
        "step 1,200 (best)",
    ):
        assert words in page
    assert page.index("No external test") < page.index("Metrics</h2>")


def test_banners_state_where_the_metrics_come_from():
    phantom = {"is_phantom": True, "config": {**context()["config"], "dataset": "ct_phantom/demo"}}
    assert "Phantom data" not in _html()
    assert "trained and evaluated on synthetic chests" in _html(**phantom, dataset="ct_phantom/demo")
    external = _html(**phantom, external=True)
    assert "The network was trained on synthetic chests" in external
    assert "No external test" not in external
    assert "External test: trained on ct_phantom/demo, evaluated on mosmed/64x64x32" in external
    assert "They chose the checkpoint" in _html(part="validation")
    assert "They trained the network" in _html(part="train")


def test_the_model_card_is_a_table_with_the_baseline(folder):
    card = (folder / "model_card.md").read_text()
    assert "| Specificity | 0.600 | 0.231 to 0.882 | 0.000 |" in card
    assert "> **No external test:" in card
    assert "13 studies (5 negative, 8 positive)" in card


def test_pictures_of_the_report_are_the_files_beside_it(folder):
    page = (folder / "report.html").read_text()
    embedded = [base64.b64decode(data) for data in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)]
    assert set(embedded) == {(folder / "figures" / f"{name}.svg").read_bytes() for name in PLOTS}
    in_page = [
        Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"image/webp;base64,([^\"]+)", page)
    ]
    beside = Image.open(folder / "montage.png")
    (shown,) = (image for image in in_page if image.size == beside.size)  # the others hold the slices of mistakes
    assert np.abs(np.asarray(shown.convert("RGB"), float) - np.asarray(beside.convert("RGB"))).mean() < 4


@pytest.mark.parametrize("name", FULL)
def test_words_of_the_field_in_a_full_report(name):
    page = _full(name)
    assert not re.search("validated|ground truth", re.sub(r'<script type="text/plain".*?</script>', "", page), re.I)


@pytest.mark.parametrize(
    ("part", "empty", "title"),
    [
        ("baselines", [], "Baselines and probes"),
        ("calibration", None, "Calibration"),
        ("subgroups", [], "Subgroups"),
        ("failures", [], "Failures"),
        ("comparison", None, "Comparison with another run"),
        ("repeats", None, "Seeds and folds"),
    ],
)
def test_sections_without_content_are_left_out(part, empty, title):
    heading = f">{title}</h2>"
    assert heading in _full("binary")
    assert heading not in _full("binary", **{part: empty})


def test_a_shortcut_is_shown_at_the_top_and_beside_the_baselines():
    page, suspicion = _full("binary"), FULL["binary"].result["shortcuts"][0]
    assert len(re.findall(f"Shortcut.</strong> {re.escape(suspicion)}", page)) == 2
    assert page.index("Shortcut.</strong>") < page.index("<h2")
    assert "Shortcut.</strong>" not in _full("binary", shortcuts=[])


def test_a_full_report_answers_a_reviewers_questions():
    page = _full("binary")
    for words in (
        "The test studies of mosmed/128x128x32 were evaluated 2 times.</strong> This evaluation is included.",
        "none is on both sides",
        "to explore, not to choose",
        "The threshold with the largest Youden&#39;s J among 78 validation studies.",
        "It was chosen on 78 validation studies at step 1,200 and frozen, with temperature 1.620.",
        "0.047 in AUROC, 0.058 in accuracy",
        "+0.004 to +0.058",
        "DeLong",
        "Logistic regression on slice count and spacing.",
        "890 studies",
        "2 × truncated",
        "negative 76, positive 255",
    ):
        assert words in page


def test_a_report_of_331_studies_is_small():
    assert len(_full("binary", volumes=FULL["binary"].volumes)) < 4e6


def _data(page):
    return json.loads(re.search(r'id="report-data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_carries_the_answers_and_scores_to_the_last_bit():
    predictions, carried = FULL["binary"].predictions, _data(_full("binary"))["explorer"]
    assert carried["score"] == predictions.probability[:, 1].tolist()
    assert carried["positive"] == "".join(map(str, predictions.label))
    assert _data(_full("classes"))["explorer"] is None


def test_names_cannot_break_out_of_the_page():
    names = ("</script><i>", "<!--")
    predictions = Predictions("ab", "ab", np.asarray([0, 1]), np.asarray([[0.7, 0.3], [0.2, 0.8]]), names, "binary")
    page = _html(predictions)
    assert "<i>" not in page
    assert page.count("<!--") == 0
    assert _data(page)["explorer"]["names"] == list(names)


def test_operating_points_worked_by_hand():
    """Of 8 positive studies 6 are found, of 5 negative ones 3 are left alone."""
    table = explorer.OperatingTable(THIRTEEN.label == 1, THIRTEEN.probability[:, 1])
    found = table.at(0.5)
    assert (found.tp, found.fp, found.fn, found.tn) == (6, 2, 2, 3)
    assert (found.sensitivity.value, found.specificity.value) == (0.75, 0.6)
    assert (found.ppv, found.npv) == (6 / 8, 3 / 5)
    assert found.net_benefit(0.5) == pytest.approx((6 - 2) / 13)
    assert found.treat_all_benefit(0.5) == pytest.approx((8 - 5) / 13)
    tied = table.at(0.55)  # a study that has the threshold's very score is called positive
    assert (tied.tp, tied.fp) == (6, 2)
    assert (table.at(0.5500001).tp, table.at(1.0).tp, table.at(0.0).tn) == (5, 0, 0)
    assert table.at(1.0).ppv is None


def test_one_label_alone_has_no_predictive_values():
    row = explorer.OperatingTable(np.array([True, True]), np.array([0.2, 0.9])).at(0.5)
    assert (row.tp, row.sensitivity.value, row.specificity.value, row.ppv, row.npv) == (1, 0.5, None, None, None)


def _flow(**changes):
    result, about, predictions, _, _ = FULL["binary"]
    page = html.render_html(*load(result, about | changes), charts.chart_data(predictions, 0.5), {}, {})
    return re.findall(r"([^<>]+)</(?:strong|li)>", page.split("<h3>Participant flow</h3>")[1].split("</figure>")[0])


def test_the_participant_flow_has_what_was_found_left_out_and_split():
    texts = _flow()
    assert texts[0] == "890 studies found"
    assert texts[1:4] == ["3 left out", "2 × truncated", "1 × no lung in sight"]
    assert "887 studies in the records" in texts
    assert "test (evaluated here): 331 studies" in texts
    several = _flow(skipped=[(f"s{k}", f"reason {k % 7}: {k}") for k in range(20)])
    assert "8 × other reasons" in several
    assert "0 left out" in _flow(skipped=[], flow=FULL["binary"].context["flow"] | {"skipped": 0})


def test_warnings_about_the_data_and_files_left_out_are_in_the_data_section():
    result, about, predictions, _, _ = FULL["binary"]
    warnings = [
        DataWarning(about["dataset"], "no lungs <were> found", ["a", "b", "c"], {"train": 4, "test": 1}),
        DataWarning("ct_folder/other", "2 series: used the one of 36 slices", ["d"], {"train": 1}),
    ]
    changes = {"data_warnings": metrics_json.dump(warnings), "left_out": {".zip": 2, ".nrrd": 1}}
    shown = []
    for more in (changes, {}):
        evaluation, provenance = load(result, about | more)
        page = html.render_html(evaluation, provenance, charts.chart_data(predictions, 0.5), {}, {})
        assert metrics_json.to_json(evaluation, provenance)["context"].get("left_out", {}) == more.get("left_out", {})
        shown.append(page.split("<h3>Participant flow</h3>")[1])
    assert "4 train, 1 test: no lungs &lt;were&gt; found (a, b, c and 2 more)" in shown[0]
    assert "ct_folder/other, 1 train: 2 series: used the one of 36 slices (d)" in shown[0]
    assert "Files that were not read, although they may hold studies: 2 .zip, 1 .nrrd." in shown[0]
    assert "No study in the records has a warning." in shown[1]
    assert "may hold studies" not in shown[1]


def test_the_acquisition_of_the_studies_is_in_the_data_section():
    shortcut = Shortcut("scanner", "Cramér's V", 0.93, 0.0002, 40, "“<A>” is that of 18 of 20 studies of covid")
    counts = {"A <b>": {"CT-0": 3}, "B": {"CT-0": 1, "CT-1": 2}}
    summary = CohortSummary(
        num_studies=6,
        classes={"CT-0": 4, "CT-1": 2},
        num_patients=5,
        num_sites=None,
        texts=[TextProperty("scanner", counts), TextProperty("kernel", {"not stated": {"CT-0": 4, "CT-1": 2}})],
        numbers=[NumberProperty("slices", {"CT-0": (30.0, 41.0, 72.0), "CT-1": (31.0, 40.5, 50.0)})],
        unusable=[Count("lacks slices", 1)],
        shortcuts=[shortcut],
    )
    result, about, predictions, _, _ = FULL["binary"]
    evaluation, provenance = load(result, about | {"cohort": metrics_json.dump(summary)})
    assert provenance.cohort == summary
    page = html.render_html(evaluation, provenance, charts.chart_data(predictions, 0.5), {}, {})
    section = page.split("Acquisition of all studies in the records")[1].split("</section>")[0]
    assert "They are of 5 patients." in section
    assert re.findall(r"<td>(.*?)</td><td class=.n.>(.*?)</td><td class=.n.>(.*?)</td>", section) == [
        ("A &lt;b&gt;", "3", "0"),
        ("B", "1", "2"),
    ]
    assert "Not stated in any file: kernel." in section
    assert "40.5<small>31 to 50</small>" in section
    assert "scanner: “&lt;A&gt;” is that of 18 of 20" in page.split("<main")[0]


def test_numbers_are_written_with_a_true_minus():
    assert [wording.signed(value) for value in (0.0312, -0.009, 0.0, -0.00001)] == [
        "+0.031",
        "−0.009",
        "0.000",
        "0.000",
    ]
    assert wording.number(-0.08) == "−0.080"
    changes = [detectability.change(value) for value in (-0.004, 0.004, -1.5, 0.25, None)]
    assert changes == ["0.00", "0.00", "−1.50", "+0.25", ""]
    assert detectability.change_interval((-0.001, 0.3)) == "0.00 to +0.30"


@pytest.mark.parametrize(
    ("changes", "present", "absent"),
    [
        ({}, ("augmented scans, dropout and smoothed labels", "(EMA)"), ("mixup",)),
        ({"dropout": 0.0, "ema_decay": 0.0, "mixup": 0.2}, ("augmented scans, mixup and",), ("dropout", "EMA")),
        (
            dict.fromkeys(("flip", "scale", "shift", "rotation", "blur", "intensity", "noise", "label_smoothing"), 0)
            | {"dropout": 0.0, "class_balance": "none"},
            ("is computed over the steps since the point before",),
            ("augmented", "labels"),
        ),
    ],
)
def test_why_the_validation_loss_may_be_lower_is_what_the_run_did(changes, present, absent):
    text = wording.training_loss(Config(dataset="mosmed/64x64x32", class_balance="none").to_json() | changes)
    assert all(words in text for words in present)
    assert not any(words in text for words in absent)


def test_the_learning_section_says_why_the_validation_loss_may_be_lower():
    page = _full("binary")
    assert "So it may lie below the training loss." in page.split('id="learning"')[1]


def test_questions_and_wrong_predictions_of_a_severity_are_named_in_full():
    """Names in heads are not broken at their hyphens; curves without bands have intervals in their table."""
    evaluation = FULL["severity"]
    first = evaluation.result["failures"][0]["study_id"]
    page = _full("severity", {first: evaluation.volumes[first]})
    assert "Wrong predictions</h3>" in page
    assert "predicted CT\u20110</th>" in page  # the hyphen that breaks no line
    assert "predicted graver than CT\u20110</th>" in page
    areas = page.partition("<caption>Areas under the curves.</caption>")[2].partition("</table>")[0]
    predictions = evaluation.predictions
    for grade in (1, 2, 3):
        found = roc.delong(predictions.label >= grade, predictions.probability[:, grade:].sum(1))
        assert "{:.3f}<small>{:.3f} to {:.3f}</small>".format(found.auroc, *found.interval) in areas
