"""The montage, and the sheets of slices of the page's viewer."""

import base64
import dataclasses
import io

import numpy as np
from PIL import Image

from covidscan.report import montage, slices
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
    volume, _ = chest((6, 11, 17))
    volume[11, 0, 0] = 1000  # front, patient's right: top left
    axes = montage.draw(binary((0.9,), ()), {"study_0001": (volume, (8.0, 6.0, 6.0))}).axes[0]
    picture = axes.images[0]
    assert picture.origin == "upper"
    strip = np.asarray(picture.get_array())
    np.testing.assert_array_equal(strip[:, 49:97], volume[11])
    assert picture.get_clim() == (-1350, 150)
    assert "study_0001" in axes.get_title(loc="right")
    assert "CT-1 (positive)" in axes.get_title(loc="right")
    assert "0.90" in axes.get_title(loc="right")
    assert axes.get_title(loc="left") == "True positive"


def test_lung_slices_are_those_with_dense_lung():
    assert montage.lung_slices(*chest((6, 11, 17))) == [6, 11, 17]
    assert montage.lung_slices(*chest((4, 9, 20))) == [4, 9, 20]
    assert montage.lung_slices(*chest((7, 8, 9, 17))) == [7, 9, 17]  # 8 shows much the same as 7


def test_lung_slices_without_lungs_are_spread_out():
    assert montage.lung_slices(np.full((9, 16, 16), 40, np.int16), (8, 1, 1)) == [2, 4, 6]
    assert montage.lung_slices(np.full((9, 16, 16), -1000, np.int16), (8, 1, 1)) == [2, 4, 6]


def test_the_sheet_holds_every_slice_at_the_lung_window():
    volume, _ = chest((6, 11, 17))
    volume[5] = np.linspace(-1500, 300, 48 * 48).reshape(48, 48)
    sheet = slices.sheet(volume, (8.0, 3.0, 6.0))
    assert (sheet.columns, sheet.rows, sheet.count, sheet.aspect) == (5, 5, 24, 2.0)
    assert sheet.first in (6, 11, 17)
    data = base64.b64decode(sheet.source.removeprefix("data:image/webp;base64,"))
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("L"), float)
    for number in (0, 5, 12, 23):
        row, column = divmod(number, 5)
        shown = picture[48 * row : 48 * (row + 1), 48 * column : 48 * (column + 1)]
        grey = np.clip((volume[number] + 1350.0) / 1500, 0, 1) * 255
        assert np.abs(shown - grey).mean() < 6


def test_failures_of_both_kinds_are_viewed_and_those_without_volumes_are_not():
    full = full_evaluations.binary()
    failures = load(full.result, full.context)[0].failures
    volumes = {failure.study_id: chest() for failure in failures[1:]}
    many = [
        dataclasses.replace(failure, study_id=f"{failure.study_id}/{k}") for failure in failures[1:] for k in range(4)
    ]
    volumes |= {failure.study_id: chest() for failure in many}
    shown = [failure for failure, _ in slices.of_failures(many, volumes)]
    assert [failure.kind for failure in shown] == ["False negative"] * 6 + ["False positive"] * 6
    assert [failure.study_id for failure in shown[:6]] == [failure.study_id for failure in many[:6]]
    assert failures[0].study_id not in [failure.study_id for failure, _ in slices.of_failures(failures, volumes)]


def test_picked_slices_have_most_and_do_not_touch():
    amount = np.zeros(30)
    amount[[3, 4, 20, 27]] = [5, 9, 7, 1]
    assert montage.pick_slices(amount, 3) == [4, 20, 27]
    assert montage.pick_slices(amount, 9, apart=29) == [4]
