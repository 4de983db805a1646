import hashlib
import platform

import numpy as np
import pytest

from tests.support import real_ct
from tests.support.chest import LUNG_RADII_MM, LUNGS_MM, SPACING_MM, chest
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.lung_region import find_lung_box
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import Scan

GRID = Grid(32, 40, 16)
FULL = Grid(32, 40, 16, "full")
FIXED = Grid(64, 80, 32, "fixed")


def scan_of(hu, spacing=SPACING_MM, warnings=()):
    return Scan(hu, spacing, np.diag([*spacing, 1.0]), warnings)


def lungs_in_voxels(part):
    """Compute first and last voxel of a lung along each axis, from the parameters it was drawn with."""
    return [
        ((centre - radius) / step, (centre + radius) / step)
        for centre, radius, step in zip(LUNGS_MM[part], LUNG_RADII_MM, SPACING_MM, strict=True)
    ]


def assert_holds_both_lungs(box):
    for part in LUNGS_MM:
        for (first, last), side in zip(lungs_in_voxels(part), box, strict=True):
            assert side.start <= first
            assert side.stop >= last


def test_grid_names_are_parsed_and_written():
    assert Grid.parse("128x160x32") == Grid(128, 160, 32, "lungs")
    assert Grid.parse("64x64x32_full") == Grid(64, 64, 32, "full")
    for name in ("128x160x32", "64x64x32_full", "64x64x32_fixed"):
        assert str(Grid.parse(name)) == name
    assert Grid.parse("128x160x32").shape == (32, 128, 160)


@pytest.mark.parametrize("name", ["128", "128x128", "axbxc", "0x8x8", "128x128x32_", "128x128x32_lungs", "8x8x8fixed"])
def test_refuses_names_that_are_not_grids(name):
    with pytest.raises(UserError, match="grid"):
        Grid.parse(name)


def test_crops_to_both_lungs_and_returns_the_spacing():
    prepared = prepare(scan_of(chest()), GRID)
    assert prepared.lungs_found
    assert prepared.warnings == ()
    assert prepared.volume.shape == (16, 32, 40)
    assert prepared.volume.dtype == np.int16
    assert_holds_both_lungs(prepared.box)
    covered = [(side.stop - side.start) * step for side, step in zip(prepared.box, SPACING_MM, strict=True)]
    # No more than the lungs, the margins, a slice or voxel of rounding, and what makes both sides equally wide.
    assert covered[0] <= 170 + 8 + 16 + 2 * 8
    assert covered[1] <= 150 + 12 + 20 + 16
    assert covered[2] <= 135 + 100 + 24 + 24
    np.testing.assert_allclose(prepared.spacing_mm, np.array(covered) / (16, 32, 40))


def test_keeps_the_whole_field_of_view_when_asked():
    prepared = prepare(scan_of(chest(), warnings=("unusual",)), FULL)
    assert prepared.box == (slice(0, 28), slice(0, 80), slice(0, 96))
    np.testing.assert_allclose(prepared.spacing_mm, (28 * 8 / 16, 80 * 4 / 32, 96 * 4 / 40))
    assert not prepared.lungs_found
    assert prepared.warnings == ("unusual",)
    assert [finding.code for finding in prepare(scan_of(chest()[8:]), FULL).lung_findings] == ["lungs_cut_off"]


@pytest.mark.parametrize("zoom", [0.8, 1.0, 1.2])
def test_a_fixed_field_has_voxels_of_one_size_and_air_where_the_scan_ends(zoom):
    spacing = tuple(zoom * step for step in SPACING_MM)
    hu, mask = chest(), np.zeros((28, 80, 96), bool)
    mask[12:16, 30:42, 40:52] = True  # 32 x 48 x 48 mm at zoom 1
    hu[mask] = 900
    prepared = prepare(scan_of(hu, spacing), FIXED, mask)
    assert prepared.spacing_mm == pytest.approx((10, 6, 4.8))
    assert prepared.warnings == ()
    # The marker's size and place in mm from the middle of the field, which is that of the lungs' box.
    box = find_lung_box(hu, spacing).box
    for axis, (part, step) in enumerate(zip(box, prepared.spacing_mm, strict=True)):
        inside = np.moveaxis(prepared.volume, axis, 0).reshape(FIXED.shape[axis], -1)
        middle = np.average(np.arange(FIXED.shape[axis]) + 0.5, weights=(inside > 500).sum(axis=1))
        want = (14, 36, 46)[axis] - (part.start + part.stop) / 2
        assert (middle - FIXED.shape[axis] / 2) * step == pytest.approx(want * spacing[axis], abs=0.6 * step)
        assert prepared.to_scan(axis, middle) == pytest.approx((14, 36, 46)[axis], abs=0.6 * step / spacing[axis])
    marked = prepared.lesion_mask
    assert marked is not None
    assert marked.sum() * np.prod(prepared.spacing_mm) == pytest.approx(mask.sum() * np.prod(spacing), rel=0.25)
    outside = [
        [not 0 <= prepared.to_scan(axis, index + 0.5) <= size for index in range(FIXED.shape[axis])]
        for axis, size in enumerate(hu.shape)
    ]
    assert any(map(any, outside))
    for axis, beyond in enumerate(outside):
        assert (np.moveaxis(prepared.volume, axis, 0)[beyond] == -1024).all()
    inside = prepared.volume[np.ix_(*(~np.array(beyond) for beyond in outside))]
    assert (inside > -1000).any(axis=(0, 1)).all()


@pytest.mark.parametrize("zoom", [(2, 1, 1), (1, 2.6, 1), (1, 1, 1.7)], ids=["high", "deep", "wide"])
def test_lungs_that_a_fixed_field_cuts_are_a_finding(zoom):
    spacing = tuple(factor * step for factor, step in zip(zoom, SPACING_MM, strict=True))
    prepared = prepare(scan_of(chest(), spacing), FIXED)
    assert "lungs_cut_off" in [finding.code for finding in prepared.lung_findings]
    message = "the lungs are larger than the 320 x 384 x 384 mm of the grid 64x80x32_fixed"
    assert message in prepared.warnings
    assert message not in prepare(scan_of(chest(), spacing), GRID).warnings


@pytest.mark.parametrize("dense", ["base of the right lung", "whole left lung"])
def test_the_box_holds_lung_that_is_all_consolidated(dense):
    hu = chest()
    z, y, x = (np.arange(size).reshape([-1 if a == p else 1 for p in range(3)]) for a, size in enumerate(hu.shape))
    if dense == "whole left lung":
        hu[(x > 48) & (hu < -600) & (x < 85) & (y > 10) & (y < 64) & (z >= 0)] = 30
    else:
        hu[(x < 46) & (x > 12) & (hu < -600) & (y > 46) & (y < 60) & (z < 14)] = 30
    result = find_lung_box(hu, SPACING_MM)
    assert result.found
    assert_holds_both_lungs(result.box)


def test_falls_back_to_the_body_without_lungs_and_warns():
    no_lungs = chest()
    no_lungs[(no_lungs > -920) & (no_lungs < -700)] = 40
    prepared = prepare(scan_of(no_lungs), GRID)
    assert not prepared.lungs_found
    assert prepared.warnings == ("no lungs found: cropped to the body",)
    rows = np.flatnonzero((no_lungs > -300).any(axis=(0, 2)))
    assert prepared.box[1].start == pytest.approx(rows[0], abs=2)
    assert prepared.box[1].stop == pytest.approx(rows[-1] + 1, abs=2)


def test_a_wide_field_around_a_small_body_changes_nothing():
    plain = find_lung_box(chest(), SPACING_MM)
    wide = find_lung_box(np.pad(chest(), ((0, 0), (60, 60), (60, 60)), constant_values=-1000), SPACING_MM)
    assert wide.found
    moved = [(side.start + shift, side.stop + shift) for side, shift in zip(plain.box, (0, 60, 60), strict=True)]
    for (first, last), side in zip(moved, wide.box, strict=True):
        assert abs(side.start - first) <= 2
        assert abs(side.stop - last) <= 2


def test_gas_in_the_bowel_is_not_lung():
    hu = chest()
    hu[(hu > -920) & (hu < -700)] = 40
    hu[8:16, 26:44, 31:59] = -850  # half a litre
    prepared = prepare(scan_of(hu), GRID)
    assert not prepared.lungs_found


def test_falls_back_to_the_field_of_view_without_a_body():
    hu = np.full((20, 64, 64), -1000, np.int16)
    hu[10, 30, 30] = 500
    prepared = prepare(scan_of(hu), GRID)
    assert prepared.box == (slice(0, 20), slice(0, 64), slice(0, 64))
    assert prepared.warnings == ("no lungs found: cropped to the whole field of view",)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (np.s_[8:], ["the first slice, at the feet, has 74% of their largest area"]),
        (np.s_[5:], ["the first slice, at the feet, has 36% of their largest area"]),
        (np.s_[4:], []),  # many scans end in the recess below the domes of the diaphragm
        (np.s_[:24], ["the last slice, at the head, has 20% of their largest area"]),
        (np.s_[:25], []),
        (np.s_[8:20], ["the first slice, at the feet", "the last slice, at the head"]),
    ],
)
def test_warns_of_lungs_that_are_cut_off(part, words):
    cut = find_lung_box(chest()[part], SPACING_MM)
    assert cut.found
    assert [finding.code for finding in cut.findings] == ["lungs_cut_off"] * len(words)
    assert all(word in finding.message for word, finding in zip(words, cut.findings, strict=True))


def test_warns_of_lungs_that_are_cut_off_at_the_side():
    side = find_lung_box(chest()[:, :, 22:], SPACING_MM)
    assert side.found
    assert side.findings == (("lungs_cut_off", "the lungs reach the edge of the field of view"),)


def test_free_gas_and_a_table_do_not_widen_the_box():
    hu = chest()
    hu[0:7, 30:44, 56:70] = -1000  # stomach that reaches into the left lung's base
    hu[:, 69:79, 5:90] = 200  # table with foam
    hu[:, 71:77, 8:87] = -930
    plain, with_gas = find_lung_box(chest(), SPACING_MM), find_lung_box(hu, SPACING_MM)
    assert with_gas.found
    assert with_gas.box[0].start >= plain.box[0].start
    for side, other in zip(plain.box, with_gas.box, strict=True):
        assert abs(side.start - other.start) <= 2
        assert abs(side.stop - other.stop) <= 2


def test_padding_counts_as_air():
    hu = chest()
    corner = hu.copy()
    hu[:, :6, :6] = -3024
    corner[:, :6, :6] = -1024
    np.testing.assert_array_equal(prepare(scan_of(hu), FULL).volume, prepare(scan_of(corner), FULL).volume)
    assert prepare(scan_of(hu), FULL).volume.min() >= -1024
    bright = chest()
    bright[5:13, 20:40, 20:40] = 3000
    assert prepare(scan_of(bright), FULL).volume.max() == 1500


def test_the_mask_is_resampled_like_the_volume():
    """A lesion drawn into volume and mask lies on the same voxels of the grid."""
    hu = np.full(chest().shape, -1000, np.int16)
    mask = np.zeros(hu.shape, bool)
    mask[9:18, 21:47, 33:60] = True
    hu[mask] = 0
    for grid in (FULL, Grid(80, 96, 28, "full"), Grid(13, 17, 9, "full")):
        prepared = prepare(scan_of(hu), grid, mask)
        assert prepared.lesion_mask.dtype == np.uint8
        np.testing.assert_array_equal(prepared.lesion_mask == 1, prepared.volume >= -500)
        share = prepared.lesion_mask.mean()
        assert share == pytest.approx(mask.mean(), rel=0.25)
    assert prepare(scan_of(hu), FULL).lesion_mask is None


@pytest.mark.parametrize("field", ["lungs", "full", "fixed"])
def test_a_lesion_smaller_than_a_voxel_of_the_grid_is_marked_in_one(field):
    """Otherwise a study whose lesions are all small would have the mask of a study without any."""
    hu, grid = chest(), Grid(16, 16, 8, field)
    large, small = np.zeros(hu.shape, bool), np.zeros(hu.shape, bool)
    large[4:10, 24:46, 24:36] = True
    small[19:22, 39:42, 61:64] = True
    of_both, of_large = (prepare(scan_of(hu), grid, mask).lesion_mask for mask in (large | small, large))
    assert of_large.sum() > 1
    assert (of_both - of_large).sum() == 1
    assert prepare(scan_of(hu), grid, small).lesion_mask.sum() == 1
    assert prepare(scan_of(hu), grid, np.zeros(hu.shape, bool)).lesion_mask.sum() == 0


def test_the_mask_lies_where_the_lesion_lies_in_the_crop():
    hu, mask = chest(), np.zeros(chest().shape, bool)
    mask[8:16, 34:46, 24:36] = True
    hu[mask] = -100
    prepared = prepare(scan_of(hu), GRID, mask)
    assert prepared.lungs_found
    for axis, (side, step, source) in enumerate(zip(prepared.box, prepared.spacing_mm, SPACING_MM, strict=True)):
        on_grid = np.nonzero(prepared.lesion_mask)[axis].mean() + 0.5
        in_scan = np.nonzero(mask)[axis].mean() + 0.5
        assert side.start * source + on_grid * step == pytest.approx(in_scan * source, abs=step / 2)


def test_is_the_same_every_time_and_for_every_layout_in_memory():
    hu = chest()
    reference = prepare(scan_of(hu), GRID)
    for other in (np.asfortranarray(hu), hu[::-1].copy()[::-1], hu[:, ::-1].copy()[:, ::-1]):
        prepared = prepare(scan_of(other), GRID)
        np.testing.assert_array_equal(prepared.volume, reference.volume)
        assert prepared.box == reference.box


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other machines fuse multiplication and addition")
def test_volumes_of_this_version_do_not_change():
    """Records of one version must not differ; a change here is a new VERSION of the data sets."""
    volume = prepare(scan_of(chest()), GRID).volume
    assert hashlib.sha256(volume.tobytes()).hexdigest()[:16] == "76abdfaa05c122a4"


@real_ct.needed
@pytest.mark.parametrize("name", ["covid/P001", "cap/cap001", "normal/normal001"])
def test_finds_the_lungs_of_real_studies(name):
    scan = read_scan(real_ct.FOLDER / "nifti" / f"{name}.nii.gz")
    prepared = prepare(scan, Grid.parse("128x128x32"))
    assert prepared.lungs_found
    assert prepared.warnings == ()
    # Aerated lung, between -950 and -500 HU, is much of the crop and reaches both of its sides, but not its rim.
    lung = (prepared.volume > -950) & (prepared.volume < -500)
    assert 0.1 < lung[4:-4].mean() < 0.5
    assert lung[8:24, 32:96, 16:60].mean() > 0.15
    assert lung[8:24, 32:96, 68:112].mean() > 0.15
    heights = scan.spacing_mm[0] * (prepared.box[0].stop - prepared.box[0].start)
    assert 180 < heights < 340
