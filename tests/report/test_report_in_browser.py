"""The report in a real browser: the slider updates every number; nothing leaves the page; it is accessible."""

import itertools
import os
import re
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright
from scipy import stats
from sklearn import metrics as sk

from covidscan.metrics import metrics_json
from covidscan.metrics.detectability import Detectability, Inserted, ScanUsed, summarize
from covidscan.report import charts, detectability, html, plots
from tests.support import full_evaluations
from tests.support.chromium import ARGUMENTS, CHROMIUM, leaves
from tests.support.loaded import load
from tests.support.pooled_evaluations import pooled
from tfds_mosmed.insertion.lesion import Lesion

KINDS = ("sensitivity", "specificity", "ppv", "npv", "tp", "fp", "fn", "tn")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="no chromium: apt-get install chromium"
)


@pytest.fixture(scope="module")
def evaluations():
    found = {name: getattr(full_evaluations, name)() for name in ("binary", "severity", "classes")}
    return found | {"pooled": pooled(found["severity"])}


@pytest.fixture(scope="module")
def files(evaluations, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    for name, evaluation in evaluations.items():
        result, context, predictions, volumes, history = evaluation
        data = charts.chart_data(predictions, result["threshold"], history)
        pictures = {"roc.svg": plots.to_svg(plots.roc(data, result["threshold"]))}
        measured = None
        if name == "binary":
            insertions = [Inserted("a", 1, 0, 0, 0, "ground_glass", -550, size, 0.2, 0.9, True) for size in (10, 20)]
            lesions = [Lesion(size, -550) for size in (10, 20)]
            scans = [ScanUsed("a", 0.2, False, 1, 0, 10, 0.5, 2, [])]
            measured = Detectability(1200, 0.6137, "2026", "1", scans, summarize(insertions, scans, lesions), [])
            pictures["detectability.svg"] = plots.to_svg(detectability.plot(measured.detections))
        page = html.render_html(*load(result, context), data, pictures, volumes, measured)
        (folder / f"{name}.html").write_text(page)
    return {name: f"file://{folder}/{name}.html" for name in evaluations}


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opener(browser, files):
    """Open reports, each once; what goes wrong in them, or is asked of any other place, is in the list given."""
    pages, wrong = {}, []

    def opener(name="binary", **options):
        key = (name, *sorted(options))
        if key not in pages:
            pages[key] = page = browser.new_context(**options).new_page()
            page.on("console", lambda message: wrong.append(message.text) if message.type != "log" else None)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("request", lambda request: wrong.append(request.url) if leaves(request.url) else None)
            page.route(leaves, lambda route: route.abort())
            page.goto(files[name])
            if options.get("java_script_enabled", True):
                page.wait_for_selector("html[data-drawn=yes]")
        elif pages[key].locator("#reset").is_visible():
            pages[key].click("#reset")
        return pages[key]

    return opener, wrong


@pytest.fixture
def opened(opener):
    """Open a report, its slider at the frozen point; at the end nothing may have gone wrong."""
    yield opener[0]
    assert opener[1] == []


def _shown(page):
    """Read the numbers beside the slider as a reader sees them; wait until the plots have followed."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return {kind: page.inner_text(f"[data-live={kind}]") for kind in KINDS}


def _expected(yes, score, threshold, prevalence):
    """Compute the metrics at a threshold with scikit-learn and Bayes' rule."""
    called = score >= threshold
    sensitivity, specificity = sk.recall_score(yes, called), sk.recall_score(yes, called, pos_label=False)
    tn, fp, fn, tp = sk.confusion_matrix(yes, called).ravel()
    sick, well = prevalence, 1 - prevalence
    ppv = sensitivity * sick / (sensitivity * sick + (1 - specificity) * well)
    npv = specificity * well / (specificity * well + (1 - sensitivity) * sick)
    shares = {"sensitivity": sensitivity, "specificity": specificity, "ppv": ppv, "npv": npv}
    counts = {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
    return {name: f"{value:.3f}" for name, value in shares.items()} | {k: str(n) for k, n in counts.items()}


def _binary(evaluations):
    predictions = evaluations["binary"].predictions
    return predictions.label == 1, predictions.probability[:, 1]


def test_the_slider_moves_every_number_by_keyboard(opened, evaluations):
    yes, score = _binary(evaluations)
    page = opened()
    assert _shown(page) == _expected(yes, score, 0.6137, yes.mean())
    page.focus("#threshold-slider")
    for key, times, threshold in (("ArrowRight", 5, 0.64), ("ArrowLeft", 12, 0.58)):
        for _ in range(times):
            page.keyboard.press(key)
        assert float(page.input_value("#threshold-slider")) == float(page.input_value("#threshold-exact")) == threshold
        assert _shown(page) == _expected(yes, score, threshold, yes.mean())
    called = score >= threshold
    low, high = stats.binomtest(int((called & yes).sum()), int(yes.sum())).proportion_ci(method="wilson")
    assert page.inner_text("[data-live=sensitivity-interval]") == f"{low:.3f} to {high:.3f}"
    announced = page.locator("#announced")
    announced.get_by_text("At a threshold of 0.58").wait_for()
    assert announced.get_attribute("aria-live") == "polite"
    tied = float(np.median(score))  # a score equal to the threshold is positive
    page.fill("#threshold-exact", repr(tied))
    assert _shown(page) == _expected(yes, score, tied, yes.mean())
    page.focus("#threshold-slider")
    page.keyboard.press("Home")
    assert _shown(page)["npv"] == "not defined"


def test_the_dots_of_the_curves_follow_the_slider(opened, evaluations):
    yes, score = _binary(evaluations)
    page = opened()
    page.fill("#threshold-exact", "0.25")
    _shown(page)
    called = score >= 0.25
    dots = page.evaluate(
        "() => [['roc', 2], ['precision-recall', 2], ['decision', 3]].map(([id, at]) => {"
        "const trace = document.getElementById(id).data[at]; return [trace.x[0], trace.y[0]]; })"
    )
    sensitivity = sk.recall_score(yes, called)
    benefit = (called & yes).mean() - (called & ~yes).mean() * 0.25 / 0.75
    expected = [
        (called[~yes].mean(), sensitivity),
        (sensitivity, sk.precision_score(yes, called)),
        (0.25, benefit),
    ]
    np.testing.assert_allclose(dots, expected)
    assert page.evaluate("() => document.getElementById('scores').layout.shapes[0].x0") == 0.25
    assert page.locator("#roc .scatterlayer .point").count() == 1


def test_the_precision_recall_curve_holds_the_average_precision(opened, evaluations):
    yes, score = _binary(evaluations)
    curve = opened().evaluate(
        "() => { const { x, y, line } = document.getElementById('precision-recall').data[1];"
        " return [x, y, line.shape]; }"
    )
    assert curve[2] == "hv"  # from high recall to low: each precision is held until the next recall
    area = -np.sum(np.diff(curve[0]) * curve[1][:-1])
    np.testing.assert_allclose(area, sk.average_precision_score(yes, score), atol=1e-4)


def test_predictive_values_are_those_of_the_chosen_prevalence(opened, evaluations):
    yes, score = _binary(evaluations)
    page = opened()
    before = _shown(page)
    page.fill("#prevalence", "5")
    after = _shown(page)
    assert after == _expected(yes, score, 0.6137, 0.05)
    assert {kind for kind in KINDS if before[kind] != after[kind]} == {"ppv", "npv"}


def test_predictive_values_and_net_benefit_worked_by_hand(opened):
    """At a sensitivity of 0.75, a specificity of 0.6 and a prevalence of 0.1 the PPV is 0.075 / (0.075 + 0.36)."""
    page = opened()
    found = page.evaluate("() => operating.predictiveValues({ sensitivity: 0.75, specificity: 0.6 }, 0.1)")
    assert found["ppv"] == pytest.approx(0.075 / 0.435)
    assert found["npv"] == pytest.approx(0.54 / 0.565)
    benefit = "(threshold) => operating.netBenefit({ tp: 6, fp: 2, fn: 2, tn: 3 }, threshold)"
    assert page.evaluate(benefit, 0.5) == pytest.approx((6 - 2) / 13)
    assert page.evaluate(benefit, 1) is None


def test_invalid_numbers_change_nothing_and_are_marked(opened):
    page = opened()
    before = _shown(page)
    for field, text in (("#prevalence", "140"), ("#threshold-exact", "")):
        page.fill(field, text)
        assert page.get_attribute(field, "aria-invalid") == "true"
    assert _shown(page) == before


def test_reset_brings_back_the_frozen_point(opened):
    page = opened()
    before = _shown(page)
    page.fill("#threshold-exact", "0.11")
    page.fill("#prevalence", "1")
    assert _shown(page)["tp"] != before["tp"]
    page.click("#reset")
    assert _shown(page) == before
    assert page.input_value("#threshold-exact") == "0.6137"


def test_severity_is_explored_as_graver_than_the_first_grade(opened, evaluations):
    predictions = evaluations["severity"].predictions
    yes, score = predictions.label > 0, 1 - predictions.probability[:, 0]
    page = opened("severity")
    page.fill("#threshold-exact", "0.8")
    assert _shown(page) == _expected(yes, score, 0.8, yes.mean())
    assert (
        page.evaluate("() => document.getElementById('every-roc').data.length") == 4
    )  # no bands: three hide each other


def test_classes_have_curves_and_no_slider(opened):
    page = opened("classes")
    assert page.locator("#threshold-slider").count() == 0
    names = page.evaluate("() => document.getElementById('every-precision-recall').data.map((trace) => trace.name)")
    assert names == ["cap", "covid", "normal"]


def test_tags_in_names_are_text_in_the_plots_too(browser, evaluations, tmp_path):
    hostile = '<a href="https://b.c">covid</a> &lt;b> <b>$x$</b>'
    result, context, predictions, _, _ = evaluations["classes"]
    changed = [
        metrics_json.map_texts(each, lambda text: hostile if text == "covid" else text)
        for each in (*load(result, context), predictions)
    ]
    path = tmp_path / "report.html"
    path.write_text(html.render_html(*changed[:2], charts.chart_data(changed[2], None), {}, {}))
    page = browser.new_page()
    page.goto(f"file://{path}")
    page.wait_for_selector("html[data-drawn=yes]")
    assert page.locator("#every-roc .legendtext").all_text_contents() == ["cap", hostile, "normal"]
    assert page.locator("#every-roc a").count() == 0


def test_a_cross_validation_is_drawn_without_a_threshold_to_move(opened, evaluations):
    page = opened("pooled")
    assert page.locator("#threshold-slider").count() == 0
    drawn = page.evaluate(
        "() => ['roc', 'precision-recall', 'decision', 'scores', 'every-roc'].map((id) => "
        "document.getElementById(id).data.length)"
    )
    assert drawn == [4, 3, 4, 2, 4]
    assert page.locator("#roc .scatterlayer .point").count() == 0
    assert page.evaluate("() => document.getElementById('scores').layout.shapes") == []
    matrix = page.locator("table.matrix", has_text="by its own fold’s threshold").locator("td").all_inner_texts()
    expected = np.ravel(evaluations["pooled"].result["disease"]["confusion_matrix"])
    assert matrix == [str(number) for number in expected]
    assert Axe().run(page).violations_count == 0


def test_arrow_keys_go_through_the_slices(opened):
    page = opened()
    viewer = page.locator(".viewer").first
    slider, window, sheet = (viewer.locator(part).first for part in ("input", ".window", "img"))
    slider.fill("1")
    slider.focus()
    for number in range(1, 9):
        column, row = (number - 1) % 6, (number - 1) // 6  # 32 slices, six a row
        assert viewer.locator(".place").inner_text() == f"{number}/32"
        assert slider.get_attribute("aria-valuetext") == f"slice {number} of 32"
        frame, picture = window.bounding_box(), sheet.bounding_box()
        assert abs(frame["x"] - picture["x"] - column * frame["width"]) < 1
        assert abs(frame["y"] - picture["y"] - row * frame["height"]) < 1
        page.keyboard.press("ArrowRight")


def test_a_phone_needs_no_sideways_scrolling_and_keeps_the_numbers_in_sight(opened):
    page = opened(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    page.locator(".chart").last.scroll_into_view_if_needed()
    page.locator("#decision").scroll_into_view_if_needed()
    assert page.locator(".controls").bounding_box()["y"] == 0
    assert page.locator(".controls").bounding_box()["height"] < 220
    found = Axe().run(page, options={"runOnly": ["scrollable-region-focusable"]})
    assert found.violations_count == 0, found.generate_report()


def test_failures_open_at_the_lesion_large_enough_to_see_it(opened):
    page = opened()
    for viewer in page.locator(".viewer").all():
        assert viewer.locator(".window").bounding_box()["width"] >= 300
        slices, outlines = viewer.locator("img").all()
        assert slices.bounding_box() == outlines.bounding_box()
    assert outlines.is_visible()
    page.uncheck("#outlines")
    assert not outlines.is_visible()
    page.check("#outlines")


def test_drawings_stay_where_a_script_fails_and_can_be_saved_where_it_runs(opened, browser, files, tmp_path):
    page = opened()
    link = page.locator("#roc ~ .save")
    assert link.get_attribute("download") == "roc.svg"
    assert link.get_attribute("href") == page.locator("#roc ~ .drawing").get_attribute("src")
    assert not page.locator("#roc ~ .drawing").is_visible()
    text = Path(files["binary"].removeprefix("file://")).read_text()
    (tmp_path / "report.html").write_text(text.replace('id="plotly-gzip">', 'id="plotly-gzip">AAAA'))
    broken = browser.new_page()
    broken.goto(f"file://{tmp_path}/report.html")
    broken.wait_for_selector("a.save[href]")
    assert broken.locator("#roc ~ .drawing").is_visible()
    assert not broken.locator("#roc").is_visible()


def test_bins_of_the_reliability_diagram_are_what_they_look_like(opened, evaluations):
    data = opened().evaluate("() => document.getElementById('reliability').data.filter((trace) => trace.name)")
    for when, points, bars in (("before", *data[:2]), ("after", *data[2:])):
        bins = evaluations["binary"].result["calibration"][when]["bins"]
        assert points["x"] == [each["mean_probability"] for each in bins]
        assert points["mode"] == "markers"
        ends = np.add.outer([-0.5, 0.5], np.zeros(len(bins))) * bars["width"] + bars["x"]
        np.testing.assert_allclose(ends.T, [(each["low"], each["high"]) for each in bins])
        assert bars["y"] == [each["count"] for each in bins]
        reach = np.stack(
            [np.subtract(points["y"], points["error_y"]["arrayminus"]), np.add(points["y"], points["error_y"]["array"])]
        )
        np.testing.assert_allclose(reach.T, [each["interval"] for each in bins], atol=1e-12)


@pytest.mark.parametrize(
    "name", ["binary", *(pytest.param(n, marks=pytest.mark.sampled) for n in ("severity", "classes"))]
)
def test_axe_finds_no_accessibility_violations(opened, name):
    page = opened(name)
    page.evaluate("() => document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.emulate_media(color_scheme="dark")
    found = Axe().run(page, options={"runOnly": ["color-contrast"]})
    page.emulate_media(color_scheme="light")
    assert found.violations_count == 0, found.generate_report()


def test_the_curves_are_seen_in_the_dark_and_on_paper(opened):
    """Text of the plots takes the page's colour; on paper they fit their column and folded parts are open."""
    page = opened()
    page.emulate_media(color_scheme="dark")
    color = "() => getComputedStyle(document.querySelector('#roc .xtitle')).fill"
    dark = page.evaluate(color)
    page.emulate_media(media="print")
    assert (dark, page.evaluate(color)) == ("rgb(232, 234, 236)", "rgb(0, 0, 0)")
    for chart in page.locator(".chart").all():
        assert abs(chart.locator(".main-svg").first.bounding_box()["width"] - chart.bounding_box()["width"]) < 1
    assert page.locator("#explorer-form").is_hidden()
    size = "(cell) => parseFloat(getComputedStyle(cell).fontSize)"
    for small in page.locator("td small").all():
        assert small.evaluate(size) < small.locator("..").evaluate(size)
    heights = [table.bounding_box()["height"] for table in page.locator("details table").all()]
    page.emulate_media(media="screen", color_scheme="light")
    assert min(heights) > 50


def test_without_scripts_every_number_is_there(opened, evaluations):
    page = opened(java_script_enabled=False)
    result = evaluations["binary"].result
    text = page.inner_text("main")
    for figure in result["figures"].values():
        assert f"{figure['value']:.3f}" in text
        assert f"{figure['interval'][0]:.3f} to {figure['interval'][1]:.3f}" in text
    assert page.locator("#explorer-form").is_hidden()
    assert page.locator("#roc ~ .drawing").is_visible()
    frozen = _expected(*_binary(evaluations), 0.6137, np.mean(evaluations["binary"].predictions.label))
    assert {kind: page.inner_text(f"[data-live={kind}]") for kind in KINDS} == frozen


def test_headings_are_in_order_and_every_table_has_a_caption(opened):
    page = opened()
    levels = page.evaluate("() => [...document.querySelectorAll('h1,h2,h3,h4')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert levels.count(1) == 1
    for table in page.locator("table").all():
        assert re.search(r"\w{4}", table.locator("caption").text_content() or "")
        assert table.locator("th:not([scope])").count() == 0
