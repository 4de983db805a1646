"""Lungs and thorax found in healthy and diseased volumes."""

import numpy as np
import pytest

from tests.support import real_ct
from tests.support.chest import LUNG_RADII_MM, LUNGS_MM, SHAPE, SPACING_MM, chest
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.lung_region import lung_region
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import Scan


def depth_in_lungs():
    """Compute the depth of each voxel in the lungs, 0 in front and 1 behind, and the mask of the lungs as drawn."""
    z, y, x = (
        (np.arange(size) + 0.5).reshape([-1 if axis == index else 1 for index in range(3)]) * step
        for axis, (size, step) in enumerate(zip(SHAPE, SPACING_MM, strict=True))
    )
    inside = np.zeros(SHAPE, bool)
    for centre in LUNGS_MM.values():
        far = sum(((at - m) / r) ** 2 for at, m, r in zip((z, y, x), centre, LUNG_RADII_MM, strict=True))
        inside |= far < 1
    depth = (y - (LUNGS_MM["left"][1] - LUNG_RADII_MM[1])) / (2 * LUNG_RADII_MM[1])
    return np.broadcast_to(depth, SHAPE), inside


DEPTH, INSIDE = depth_in_lungs()


def with_ribs(hu):
    """Add spots of bone around both lungs, 8 mm outside of them at their widest, in every third slice."""
    hu = hu.copy()
    for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):
        row = (150 + 90 * np.sin(angle)) / SPACING_MM[1]
        column = (192.5 + 130 * np.cos(angle)) / SPACING_MM[2]
        hu[::3, int(row) : int(row) + 2, int(column) : int(column) + 2] = 500
    return hu


@pytest.mark.parametrize("grid", ["whole scan", "32x40x16", "32x40x16_full"])
def test_finds_lungs_and_thorax_in_scans_and_in_records(grid):
    hu, spacing, inside = chest(), SPACING_MM, INSIDE
    if grid != "whole scan":
        prepared = prepare(Scan(hu, spacing, np.eye(4), ()), Grid.parse(grid), INSIDE)
        hu, spacing, inside = prepared.volume, prepared.spacing_mm, prepared.lesion_mask == 1
    region = lung_region(hu, spacing)
    assert region is not None
    assert region.lungs.shape == hu.shape
    assert region.thorax.shape == hu.shape[1:]
    overlap = (region.lungs & inside).sum() * 2 / (region.lungs.sum() + inside.sum())
    assert overlap > 0.9  # Dice
    assert region.thorax[inside.any(axis=0)].all()
    # No more than the ellipse around both lungs, 185 mm by 117.5 mm in half, with the margin of 10 mm and a voxel.
    covered = region.thorax.sum() * np.prod(spacing[1:])
    assert covered < np.pi * (117.5 + 20) * (75 + 20) * 1.1


@pytest.mark.parametrize("white", ["whole left lung", "behind, on both sides", "at the base"])
def test_the_thorax_hardly_moves_when_lung_turns_white(white):
    healthy = with_ribs(chest())
    diseased = healthy.copy()
    left = np.arange(SHAPE[2]) * SPACING_MM[2] > 192
    base = (np.arange(SHAPE[0]) * SPACING_MM[0] < 90)[:, None, None]
    part = {"whole left lung": left, "behind, on both sides": DEPTH > 0.8, "at the base": base}[white]
    diseased[INSIDE & part] = 30
    before, after = lung_region(healthy, SPACING_MM), lung_region(diseased, SPACING_MM)
    assert before is not None
    assert after is not None
    assert after.lungs.sum() < 0.92 * before.lungs.sum()  # the disease is large
    assert after.thorax[INSIDE.any(axis=0)].all()
    assert (before.thorax ^ after.thorax).sum() < 0.05 * before.thorax.sum()


def test_vessels_and_small_consolidations_count_as_lung():
    hu = chest()
    hu[10:18, 36:39, 28:31] = 40  # 12 mm wide, in the middle of the right lung
    region = lung_region(hu, SPACING_MM)
    assert region is not None
    assert region.lungs[10:18, 36:39, 28:31].all()


def test_a_table_is_not_a_rib():
    hu = chest()
    hu[:, 72:74, 5:90] = 700
    plain, on_table = lung_region(chest(), SPACING_MM), lung_region(hu, SPACING_MM)
    assert plain is not None
    assert on_table is not None
    assert not on_table.thorax[72:].any()


def test_the_gap_between_the_plates_of_a_table_is_no_lung():
    hu = chest()
    hu[:, 70:79, 5:90] = 0
    hu[:, 72:76, 6:89] = -930
    plain, on_table = lung_region(chest(), SPACING_MM), lung_region(hu, SPACING_MM)
    assert plain is not None
    assert on_table is not None
    assert not on_table.lungs[:, 70:].any()
    assert on_table.lungs.sum() == pytest.approx(plain.lungs.sum(), rel=0.01)


def test_returns_none_without_lungs():
    assert lung_region(np.where(INSIDE, 40, chest()).astype(np.int16), SPACING_MM) is None


@real_ct.needed
@pytest.mark.parametrize("grid", ["128x128x32", "64x64x32_full"])
@pytest.mark.parametrize("name", ["covid/P001", "cap/cap001", "normal/normal001"])
def test_finds_the_lungs_in_records_of_real_studies(name, grid):
    """One is a thin patient on foam: a record's box holds little of the body's wall."""
    scan = read_scan(real_ct.FOLDER / "nifti" / f"{name}.nii.gz")
    prepared = prepare(scan, Grid.parse(grid))
    region = lung_region(prepared.volume, prepared.spacing_mm)
    assert region is not None
    assert 2.0 < region.lungs.sum() * np.prod(prepared.spacing_mm) / 1e6 < 7.5  # litres
    assert region.thorax[region.lungs.any(axis=0)].all()
    assert region.thorax.mean() < 0.9


@real_ct.needed
def test_the_lungs_of_a_planning_scan_end_before_its_table():
    scan = read_scan(real_ct.FOLDER / "more" / "tumour" / "LUNG1-003.nii.gz")
    region = lung_region(scan.hu, scan.spacing_mm)
    assert region is not None
    assert not region.lungs[:, 355:].any()
    assert 3.0 < region.lungs.sum() * np.prod(scan.spacing_mm) / 1e6 < 3.8  # litres
