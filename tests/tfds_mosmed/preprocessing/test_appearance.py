"""Scan statistics of chests of which they are known."""

import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tests.support.chest import LUNG_RADII_MM, SHAPE, SPACING_MM, chest
from tfds_mosmed.preprocessing.appearance import ROUNDING_HU, scan_statistics
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.scan import Scan

HEART = np.s_[6:22, 24:38, 44:52]  # 32 mm of what lies between the lungs, in front


def test_statistics_computed_by_hand():
    """Lungs at -850 HU in a body of 40 HU and air of -1000, noise of 15 HU."""
    statistics = scan_statistics(chest(), SPACING_MM, (8.0, 0.7, 0.8))
    assert (statistics.slice_gap_mm, statistics.pixel_mm) == (8.0, 0.8)
    assert statistics.air_hu == pytest.approx(-1024, abs=30)
    assert statistics.lung_hu == pytest.approx(-850, abs=3)
    assert 40 < statistics.blood_hu < 40 + 15  # noise among it
    assert statistics.noise_hu == pytest.approx(15, rel=0.1)
    litres = 2 * 4 / 3 * np.pi * np.prod(LUNG_RADII_MM) / 1e6
    assert statistics.lung_litres == pytest.approx(litres, rel=0.07)
    assert statistics.end_share == 0


@hypothesis.settings(max_examples=15)
@hypothesis.given(contrast=st.floats(0, 300), noise=st.floats(0, 60), shift=st.integers(-60, 60))
def test_each_statistic_changes_with_its_cause_alone(contrast, noise, shift):
    plain = chest()
    noisy = plain + np.random.default_rng(1).normal(0, noise, SHAPE)
    noisy[HEART] += contrast
    statistics = scan_statistics(np.rint(noisy + shift).astype(np.int16), SPACING_MM, SPACING_MM)
    assert statistics.lung_hu == pytest.approx(-850 + shift, abs=10)
    assert statistics.noise_hu == pytest.approx(math.hypot(15, noise), rel=0.1)
    assert 40 + shift + contrast - 8 <= statistics.blood_hu <= 40 + shift + contrast + math.hypot(15, noise) * 1.1
    assert statistics.lung_litres == pytest.approx(scan_statistics(plain, SPACING_MM, SPACING_MM).lung_litres, rel=0.05)


def test_end_share_is_large_if_lungs_continue_beyond_the_last_slice():
    assert scan_statistics(chest()[:18], SPACING_MM, SPACING_MM).end_share > 0.8


@pytest.mark.parametrize("grid", ["64x80x24", "64x80x24_full"])
def test_a_record_and_a_new_study_have_the_same_statistics(grid):
    """A record keeps the voxels as they are and the spacing as float32."""
    prepared = prepare(Scan(chest(), SPACING_MM, np.eye(4)), Grid.parse(grid))
    new = scan_statistics(prepared.volume, prepared.spacing_mm, SPACING_MM)
    record = scan_statistics(
        prepared.volume, np.asarray(prepared.spacing_mm, np.float32), np.asarray(SPACING_MM, np.float32)
    )
    np.testing.assert_allclose(record, new, rtol=1e-5)
    assert new.lung_hu == pytest.approx(-850, abs=5)
    assert 40 < new.blood_hu < 55


def test_without_lungs_only_the_first_five_are_measured():
    empty = scan_statistics(np.full((32, 64, 64), -1000, np.int16), (8.0, 2.0, 2.0), (8.0, 0.7, 0.7))
    assert empty[:5] == (8.0, 0.7, 8.0, 2.0, -1000.0)
    assert all(math.isnan(number) for number in empty[5:])


def test_the_least_noise_is_that_of_rounding():
    smooth = chest()
    smooth[(smooth > -900) & (smooth < -700)] = -850
    smooth[(smooth > -100) & (smooth < 200)] = 40
    assert scan_statistics(smooth, SPACING_MM, SPACING_MM).noise_hu == ROUNDING_HU
