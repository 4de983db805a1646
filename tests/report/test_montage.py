"""The montage, and the sheets of slices of the page's viewer."""

import base64
import dataclasses
import io
import re

import numpy as np
from PIL import Image

from covidscan.report import montage, plots, slices
from tests.support import full_evaluations
from tests.support.evaluations import SEVERITY, THIRTEEN, binary, chest
from tests.support.loaded import load


def test_the_montage_shows_the_worst_mistakes_first():
    kinds = dict(montage.choose(THIRTEEN))
    assert kinds["False negative"] == ["study_0008", "study_0007"]
    assert kinds["False positive"] == ["study_0009", "study_0010"]
    assert set(kinds["True negative"]) <= {"study_0011", "study_0012", "study_0013"}
    assert list(dict(montage.choose(binary((0.9,), (0.1,))))) == ["True positive", "True negative"]
    assert dict(montage.choose(SEVERITY))["Wrong"] == ["study_0002", "study_0004"]


def test_the_montage_shows_slices_as_a_radiologist_sees_them():
    study = chest((6, 11, 17))
    study.volume[11, 0, 0] = 1000  # front, patient's right: top left
    axes = montage.draw(binary((0.9,), ()), {"study_0001": study}).axes[0]
    picture = axes.images[0]
    assert picture.origin == "upper"
    strip = np.asarray(picture.get_array())
    np.testing.assert_array_equal(strip[:, 49:97], study.volume[11])
    assert picture.get_clim() == (-1350, 150)
    assert "study_0001" in axes.get_title(loc="right")
    assert "CT-1 (positive)" in axes.get_title(loc="right")
    assert "0.90" in axes.get_title(loc="right")
    assert axes.get_title(loc="left") == "True positive"


def test_lung_slices_are_those_with_dense_lung():
    assert montage.lung_slices(*chest((6, 11, 17))[:2]) == [6, 11, 17]
    assert montage.lung_slices(*chest((4, 9, 20))[:2]) == [4, 9, 20]
    assert montage.lung_slices(*chest((7, 8, 9, 17))[:2]) == [7, 9, 17]  # 8 shows much the same as 7


def test_lung_slices_without_lungs_are_spread_out():
    assert montage.lung_slices(np.full((9, 16, 16), 40, np.int16), (8, 1, 1)) == [2, 4, 6]
    assert montage.lung_slices(np.full((9, 16, 16), -1000, np.int16), (8, 1, 1)) == [2, 4, 6]


def test_the_sheet_holds_every_slice_at_the_lung_window():
    volume = chest((6, 11, 17)).volume
    volume[5] = np.linspace(-1500, 300, 48 * 48).reshape(48, 48)
    sheet = slices.sheet(montage.ShownStudy(volume, (8.0, 3.0, 6.0)))
    assert sheet.outlines is None
    assert (sheet.columns, sheet.rows, sheet.count, sheet.aspect) == (5, 5, 24, 2.0)
    assert sheet.first in (6, 11, 17)
    data = base64.b64decode(sheet.source.removeprefix("data:image/webp;base64,"))
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("L"), float)
    for number in (0, 5, 12, 23):
        row, column = divmod(number, 5)
        shown = picture[48 * row : 48 * (row + 1), 48 * column : 48 * (column + 1)]
        grey = np.clip((volume[number] + 1350.0) / 1500, 0, 1) * 255
        assert np.abs(shown - grey).mean() < 6


def test_the_sheet_opens_at_the_slice_with_most_lesion_and_outlines_it():
    study = chest((6, 11, 17))  # dense, and not marked
    mask = np.zeros(study.volume.shape, np.uint8)
    mask[9, 12:36, 8:21], mask[14, 30, 30] = 1, 1
    sheet = slices.sheet(study._replace(lesion_mask=mask))
    assert (sheet.first, sheet.has_most, sheet.columns) == (9, "most lesion", 5)
    picture = Image.open(io.BytesIO(base64.b64decode(sheet.outlines.removeprefix("data:image/png;base64,"))))
    shown = np.asarray(picture.convert("RGBA"))
    side = shown.shape[1] // 5
    assert shown.shape[:2] == (5 * side, 5 * side)
    for number in range(24):
        row, column = divmod(number, 5)
        line = shown[row * side : (row + 1) * side, column * side : (column + 1) * side]
        assert (line[..., 3] > 0).any() == (number in (9, 14))
        assert (line[line[..., 3] > 0] == (255, 212, 0, 255)).all()
        if number == 9:
            rows, columns = np.nonzero(line[..., 3])
            edges = (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)
            np.testing.assert_allclose(np.array(edges) * 48 / side, (12, 36, 8, 21), atol=0.6)
            assert not line[side // 2, side * 14 // 48, 3]  # the lesion itself is seen
    empty = study._replace(lesion_mask=np.zeros_like(mask))
    assert slices.sheet(empty).outlines is None
    sheet = slices.sheet(empty)
    assert (sheet.first in (6, 11, 17), sheet.has_most) == (True, "most dense lung")


def test_the_sheet_of_an_unmarked_study_opens_at_the_highest_evidence():
    evidence = np.linspace(0, 1, 24)[np.r_[12:24, 0:12]]  # highest in slice 11
    study = chest((6, 17))._replace(evidence=evidence)
    assert study.opening() == (11, "the network’s highest evidence")
    assert study._replace(evidence=0 * evidence).opening()[1] == "most dense lung"
    mask = np.zeros(study.volume.shape, np.uint8)
    mask[14, 12:36, 8:21] = 1
    assert study._replace(lesion_mask=mask).opening() == (14, "most lesion")


def test_the_montage_shows_and_outlines_lesions():
    study = chest((6, 11, 17))
    mask = np.zeros(study.volume.shape, np.uint8)
    mask[9, 12:36, 8:21] = 1
    axes = montage.draw(binary((0.9,), ()), {"study_0001": study._replace(lesion_mask=mask)}).axes[0]
    strip = np.asarray(axes.images[0].get_array())
    np.testing.assert_array_equal(strip[:, :48], study.volume[9])
    assert np.isnan(strip[:, 49:]).all()
    (contour,) = axes.collections
    low, high = contour.get_paths()[0].vertices.min(0), contour.get_paths()[0].vertices.max(0)
    np.testing.assert_allclose([*low, *high], (7.5, 11.5, 20.5, 35.5))


def test_slices_in_vector_files_keep_their_own_pixels():
    figure = montage.draw(binary((0.9,), ()), {"study_0001": chest((6, 11, 17))})
    drawn = plots.to_svg(figure)
    (shown,) = re.findall(r"base64,\s*([^\"]+)", drawn.decode())
    assert Image.open(io.BytesIO(base64.b64decode(shown))).size == (3 * 48 + 2, 48)
    assert b"pixelated" not in drawn
    assert b"study_0001" in drawn
    assert figure.axes[0].images[0].get_interpolation() == "bicubic"
    assert plots.to_svg(figure) == drawn
    page = slices.to_pdf(plots.to_png(figure, dpi=90), 90)
    width, height = map(float, re.search(rb"MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", page).groups())
    size = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn).groups()
    np.testing.assert_allclose((width, height), tuple(map(float, size)), atol=1)
    assert slices.to_pdf(plots.to_png(figure, dpi=90), 90) == page


def test_failures_of_both_kinds_are_viewed_and_those_without_volumes_are_not():
    full = full_evaluations.binary()
    failures = load(full.result, full.context)[0].failures
    volumes = {failure.study_id: chest() for failure in failures[1:]}
    many = [
        dataclasses.replace(failure, study_id=f"{failure.study_id}/{k}") for failure in failures[1:] for k in range(4)
    ]
    volumes |= {failure.study_id: chest() for failure in many}
    shown = slices.viewed(many, volumes)
    assert [failure.kind for failure in shown] == ["False negative"] * 6 + ["False positive"] * 6
    assert [failure.study_id for failure in shown[:6]] == [failure.study_id for failure in many[:6]]
    assert failures[0].study_id not in [failure.study_id for failure in slices.viewed(failures, volumes)]


def test_picked_slices_have_most_and_do_not_touch():
    amount = np.zeros(30)
    amount[[3, 4, 20, 27]] = [5, 9, 7, 1]
    assert montage.pick_slices(amount, 3) == [4, 20, 27]
    assert montage.pick_slices(amount, 9, apart=29) == [4]
