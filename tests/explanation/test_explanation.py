"""Files of an explanation: their content, and the page in a real browser."""

import dataclasses
import io
import os
import re

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import sync_playwright

from covidscan.data.domain_shift import Flag
from covidscan.explanation.evidence import find_evidence
from covidscan.explanation.picture import overlay_png
from covidscan.explanation.saliency import Maps
from covidscan.explanation.write import write_explanation
from covidscan.prediction import index_page
from covidscan.prediction.prediction import Prediction
from covidscan.prediction.rows import RowsInFolder
from covidscan.trained_models.model_info import ModelInfo
from tests.support.chromium import ARGUMENTS, CHROMIUM, leaves
from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.read import read_mask, read_scan

CAPTION = "study: P(positive) = 0.93, positive (threshold 0.64)"
SOFTWARE_WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """A phantom whose saliency maps are its lesions: anything elsewhere is misplaced."""
    folder = tmp_path_factory.mktemp("explained")
    phantom = generator.make_phantom(5, "CT-2", 128)
    generator.write_study(phantom, folder / "study.nii.gz", folder / "mask.nii.gz")
    scan = read_scan(folder / "study.nii.gz")
    prepared = prepare(scan, Grid(64, 64, 32), read_mask(folder / "mask.nii.gz", scan))
    lesions = prepared.lesion_mask.astype(np.float32)
    area = lesions.sum((1, 2), keepdims=True)  # the peak is in the fullest slice
    maps = Maps(lesions * (0.8 + 0.2 * area / area.max()), 0.001 * lesions, 1, 2.6, -2.4)
    names = write_explanation(folder, "study", scan, prepared, maps, 1.0, CAPTION)
    return folder, names, phantom, prepared, maps


def test_the_files_have_their_names_space_and_units(explained):
    folder, names, _, _, maps = explained
    assert names == [f"study_{kind}.nii.gz" for kind in ("grad_cam", "integrated_gradients")] + [
        "study.png",
        "study.pdf",
        "study_thumbnail.png",
        "study.html",
    ]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, "study.nii.gz", "mask.nii.gz"])
    study, mask = nib.load(folder / "study.nii.gz"), nib.load(folder / "mask.nii.gz").get_fdata() > 0
    for name in names[:2]:
        written = nib.load(folder / name)
        assert written.shape == study.shape
        np.testing.assert_allclose(written.affine, study.affine, atol=1e-4)
        values = written.get_fdata()
        assert mask[values > 0.6 * values.max()].mean() > 0.9
        assert values[mask].sum() > 0.8 * values.sum()
    # log-odds per ml: the sum over the study's voxels is the sum over the grid's voxels
    voxel_ml = np.abs(np.linalg.det(study.affine[:3, :3])) / 1000
    assert values.sum() * voxel_ml == pytest.approx(float(maps.integrated_gradients.sum()), rel=0.05)


def test_the_picture_shows_the_map_in_colour_on_grey(explained):
    folder, _, _, prepared, maps = explained
    files = [(folder / name).read_bytes() for name in ("study.png", "study_thumbnail.png")]
    fullest = int(maps.grad_cam.sum((1, 2)).argmax())
    for content in (*files, overlay_png(prepared, maps.grad_cam, fullest, 1.0)):
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), int)
        coloured = np.ptp(pixels, axis=-1) > 40
        assert 0.005 < coloured.mean() < 0.5
    assert matplotlib.image.imread(io.BytesIO(content)).shape[1] < 400


def test_an_empty_map_can_be_drawn(explained, tmp_path):
    folder, _, _, prepared, maps = explained
    empty = maps._replace(grad_cam=0 * maps.grad_cam, integrated_gradients=0 * maps.integrated_gradients)
    write_explanation(tmp_path, "empty", read_scan(folder / "study.nii.gz"), prepared, empty, 1.0, CAPTION)
    assert not nib.load(tmp_path / "empty_grad_cam.nii.gz").get_fdata().any()
    assert overlay_png(prepared, empty.grad_cam, 3, 1.0).startswith(b"\x89PNG")
    assert "No evidence" in (tmp_path / "empty.html").read_text()


def test_maps_of_studies_like_those_without_the_label_have_no_colour(explained, tmp_path):
    folder, _, _, prepared, maps = explained
    write_explanation(tmp_path, "normal", read_scan(folder / "study.nii.gz"), prepared, maps, 0.0, CAPTION)
    assert "No evidence" in (tmp_path / "normal.html").read_text()
    content = (tmp_path / "normal_thumbnail.png").read_bytes()
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), int)
    assert np.ptp(pixels, axis=-1).max() < 10


def test_weak_evidence_has_colour_where_the_words_say_that_it_lies(explained):
    _, _, _, prepared, maps = explained
    fullest = int(maps.grad_cam.sum((1, 2)).argmax())
    spread = [
        np.ptp(np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), int), axis=-1)
        for content in (overlay_png(prepared, maps.grad_cam, fullest, strength) for strength in (0.1, 0.25, 1.0))
    ]
    where = spread[2] > 60
    means = [of[where].mean() for of in spread]
    assert 5 < means[0] < 0.5 * means[1] < 0.4 * means[2]
    assert "Evidence 25 % as strong" in find_evidence(prepared, maps.grad_cam, 0.25).describe()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("no chromium: apt-get install chromium")
    arguments = [flag for flag in ARGUMENTS if flag != "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*arguments, *SOFTWARE_WEBGL])
        yield browser
        browser.close()


def _open(browser, path, script=None):
    page, problems = browser.new_page(viewport={"width": 800, "height": 700}), []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if leaves(request.url) else None)
    if script:
        page.add_init_script(script)
    page.goto(f"file://{path}")
    page.wait_for_selector("html[data-drawn]", timeout=120_000)
    return page, problems


def _viewer(page):
    """Return the viewer's pixels, without the colour scale over it."""
    page.add_style_tag(content="#scale { visibility: hidden; }")
    picture = Image.open(io.BytesIO(page.locator("#viewer").screenshot(timeout=120_000))).convert("RGB")
    return np.asarray(picture, int)


def _count_pixels(page):
    """Count grey and coloured pixels of the viewer, without black ones."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    pixels = _viewer(page)
    spread, bright = np.ptp(pixels, axis=-1), pixels.max(-1)
    return int(((spread < 12) & (bright > 30)).sum()), int((spread > 60).sum())


def test_the_page_shows_the_study_and_the_map_over_it(browser, explained):
    folder = explained[0]
    page, problems = _open(browser, folder / "study.html")
    assert page.get_attribute("html", "data-drawn") == "yes"
    grey, coloured = _count_pixels(page)
    assert grey > 20_000
    assert coloured > 500
    page.locator("#opacity").fill("0")
    assert _count_pixels(page)[1] < coloured / 20
    page.locator("#opacity").fill("60")
    assert _count_pixels(page)[1] == pytest.approx(coloured, rel=0.05)
    position = page.inner_text("#position")
    page.locator("#slice").focus()
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#position") != position
    before = page.locator("#viewer").screenshot(timeout=120_000)
    page.get_by_label("Soft tissue").check()
    _count_pixels(page)
    assert page.locator("#viewer").screenshot(timeout=120_000) != before
    page.get_by_label("Map", exact=True).select_option("2")  # no voxel lowers the probability
    page.wait_for_timeout(500)
    assert _count_pixels(page)[1] < coloured / 20
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert problems == []


@pytest.fixture(scope="module")
def index(explained):
    """Page of three studies: one explained, one without a picture, one not predicted."""
    folder, names, *_ = explained
    plain = Prediction("typed", 0.9, "positive", {"negative": 0.1, "positive": 0.9}, (), {}, (), 1.0)
    given = [
        dataclasses.replace(plain, threshold=0.5, number=1, file="/planted/1.nii", files=tuple(names)),
        dataclasses.replace(plain, probability=None, decision=None, error="planted", number=2, file="/planted/2.nii"),
        dataclasses.replace(plain, probability=0.25, flags=(Flag("kernel", "<i>"),), number=3, file="/planted/3.nii"),
    ]
    info = ModelInfo("binary", ("negative", "positive"), 0.5, (1.0,), "64x64x32", (), "ct_phantom/<b>", "", None)
    (folder / "predictions.jsonl").write_text("".join(f"{one.to_json()}\n" for one in given))
    return index_page.write(RowsInFolder(folder, as_json=True), info)


def test_the_index_is_sorted_by_any_column(browser, index):
    page, problems = _open(
        browser,
        index,
        script="document.addEventListener('DOMContentLoaded', () => document.documentElement.dataset.drawn = 'yes')",
    )

    def order():
        return [text.split()[1] for text in page.locator("tbody td:first-child").all_inner_texts()]

    assert order() == ["1", "2", "3"]
    for title, up, down in (
        ("Probability of positive", "312", "132"),
        ("Flags", "312", "312"),
        ("Study", "123", "321"),
    ):
        for expected, direction in ((up, "ascending"), (down, "descending")):
            page.get_by_role("button", name=title).click()
            assert "".join(order()) == expected, title
            assert page.get_by_role("columnheader", name=title).get_attribute("aria-sort") == direction
    assert page.locator("tbody img").evaluate("image => image.complete && image.naturalWidth") > 100
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    text = page.content()
    assert "planted" not in text
    assert "<i>" not in text
    page.get_by_role("link", name="Study 1").click()
    page.wait_for_selector("html[data-drawn]", timeout=120_000)
    assert page.url.endswith("/study.html")
    assert problems == []


def test_the_page_opens_at_the_peak(browser, explained, tmp_path):
    """A lesion on one side of the back is shown on that side of the viewer: no axis is mirrored."""
    folder, _, _, prepared, maps = explained
    spot = np.zeros_like(maps.grad_cam)
    spot[10:13, 44:50, 10:16] = 1  # on the patient's right, at the back
    scan = read_scan(folder / "study.nii.gz")
    write_explanation(tmp_path, "spot", scan, prepared, maps._replace(grad_cam=spot), 1.0, CAPTION)
    page, problems = _open(browser, tmp_path / "spot.html")
    pixels = _viewer(page)
    rows, columns = np.nonzero(np.ptp(pixels, axis=-1) > 60)
    assert rows.mean() > 0.55 * pixels.shape[0]
    assert columns.mean() < 0.45 * pixels.shape[1]
    assert problems == []


def test_without_webgl_one_line_says_so_and_the_picture_is_shown(browser, explained):
    without = "HTMLCanvasElement.prototype.getContext = () => null;"
    page, problems = _open(browser, explained[0] / "study.html", without)
    assert "no WebGL2" in page.inner_text("#unavailable")
    assert page.locator("#stage").is_hidden()
    assert page.locator("#picture img").evaluate("(image) => image.naturalWidth") > 500
    assert problems == []


def test_the_page_is_small_and_does_not_contain_the_path_of_the_study(explained):
    folder = explained[0]
    page = (folder / "study.html").read_bytes()
    assert len(page) < 4e6
    assert str(folder).encode() not in page


@pytest.mark.parametrize(
    ("task", "before"),
    [
        ("classes", {"Probability of the decision": "0.500"}),
        ("severity", {"Probability above covid": "0.500", "Threshold": "0.400"}),
        ("multilabel", {}),
    ],
)
def test_the_index_shows_the_probability_of_each_label(tmp_path, task, before):
    labels = ("covid", "other pneumonia", "normal")
    probability, threshold = (0.5 if before else None), (0.4 if "Threshold" in before else None)
    each = dict(zip(labels, (0.5, 0.125, 0.375), strict=True))
    given = Prediction("typed", probability, "covid", each, (), {}, (), 1.0)
    rows = [
        dataclasses.replace(given, threshold=threshold, number=1, file="1.nii"),
        dataclasses.replace(
            given, probability=None, decision=None, probabilities={}, error="e", number=2, file="2.nii"
        ),
    ]
    info = ModelInfo(task, labels, None, (1.0,), "64x64x32", (), "ct_phantom/tiny", "", None)
    (tmp_path / "predictions.jsonl").write_text("".join(f"{one.to_json()}\n" for one in rows))
    page = index_page.write(RowsInFolder(tmp_path, as_json=True), info).read_text()
    titles = re.findall(r'<button type="button">(.*?)</button>', page)
    assert titles == ["Study", "Decision", *before, *labels, "Flags"]
    numbers = [re.findall(r"<td data-number=\"[^\"]*\">([\d.]*)</td>", row) for row in page.split("<tr>")[2:]]
    assert numbers == [[*before.values(), "0.500", "0.125", "0.375"], [""] * (len(before) + 3)]
