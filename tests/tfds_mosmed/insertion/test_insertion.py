"""Inserted lesions have the volume, density, noise and place that they should, and change nothing else."""

import numpy as np
import pytest
from scipy import ndimage

from tests.support import real_ct
from tests.support.chest import SPACING_MM, chest
from tfds_mosmed.insertion.image_quality import ImageQuality, measure_image_quality
from tfds_mosmed.insertion.lesion import Lesion, insert_lesion, lung_surroundings
from tfds_mosmed.insertion.places import choose_places
from tfds_mosmed.preprocessing.lungs import segment_lungs
from tfds_mosmed.scans.read import read_scan

THIN = (2.0, 1.0, 1.0)
NOISE_HU, BLUR_MM = 15.0, 0.6


@pytest.fixture(scope="module")
def thin():
    """The synthetic chest with voxels of 2 x 1 x 1 mm, with vessels along the body, and what was found in it."""
    factor = [round(old / new) for old, new in zip(SPACING_MM, THIN, strict=True)]
    smooth = ndimage.median_filter(chest().astype(np.float32), 3)
    hu = np.repeat(np.repeat(np.repeat(smooth, factor[0], 0), factor[1], 1), factor[2], 2)
    vessels = np.zeros(hu.shape[1:], bool)
    vessels[6::24, 6::24] = vessels[7::24, 6::24] = True
    hu[:, vessels] = np.where(hu[:, vessels] < -500, 30, hu[:, vessels])
    vessel = np.broadcast_to(vessels, hu.shape) & (hu == 30)
    hu += np.random.default_rng(1).normal(0, NOISE_HU, hu.shape).astype(np.float32)
    hu = np.rint(hu).astype(np.int16)
    found = segment_lungs(hu, THIN)
    return hu, vessel, found, choose_places(found, THIN, 4, np.random.default_rng(0))


def _insert(thin, place, lesion, slice_mm=2.0):
    hu, _, found, places = thin
    quality = ImageQuality(NOISE_HU, BLUR_MM, slice_mm)
    return insert_lesion(hu, THIN, lung_surroundings(found), quality, places[place], lesion)


@pytest.mark.parametrize("diameter", [8.0, 15.0, 30.0])
@pytest.mark.parametrize("density", [-650.0, -500.0, -20.0])
def test_volume_and_density_are_those_asked_for(thin, diameter, density):
    hu, vessel, _, places = thin
    for place in range(len(places)):
        done = _insert(thin, place, Lesion(diameter, density, seed=place))
        volume = done.cover[~vessel[done.box]].sum() * np.prod(THIN)
        assert volume == pytest.approx(np.pi / 6 * diameter**3, rel=0.3 if diameter < 10 else 0.2)
        core = (done.cover > 0.9) & ~vessel[done.box] & (hu[done.box] < -700)
        assert done.hu[core].mean() == pytest.approx(density, abs=40)
        assert done.hu.dtype == np.int16


def test_only_the_lung_changes_and_the_scan_itself_does_not(thin):
    hu, _, _, places = thin
    before = hu.copy()
    lungs = ndimage.binary_closing(hu < -500, np.ones((1, 7, 7), bool))
    outside = ~ndimage.binary_dilation(lungs, np.ones((1, 5, 5), bool))
    for place in range(len(places)):
        done = _insert(thin, place, Lesion(30, -20, place))
        changed = done.hu != before[done.box]
        assert changed.any()
        assert not changed[outside[done.box]].any()
        assert (changed <= (done.cover > 0)).all()
        soft = before[done.box] > -100  # the chest wall beside the lesion, and vessels
        assert np.abs(done.hu.astype(int) - before[done.box])[soft].mean() < 10
    assert (hu == before).all()


def test_vessels_stay_visible_in_ground_glass_and_vanish_in_consolidation(thin):
    _, vessel, _, places = thin
    contrasts = {}
    for density in (-550, -20):
        differences = []
        for place in range(len(places)):
            done = _insert(thin, place, Lesion(30, density, place))
            core = done.cover > 0.9
            inside = vessel[done.box] & core
            if inside.any():
                differences.append(done.hu[inside].mean() - done.hu[core & ~vessel[done.box]].mean())
        contrasts[density] = np.mean(differences)
    assert contrasts[-550] > 400
    assert contrasts[-20] < 120


@pytest.mark.parametrize("diameter", [20.0, 30.0])
def test_a_reversed_halo_is_ground_glass_in_a_denser_ring_of_the_same_volume(thin, diameter):
    hu, vessel, _, places = thin
    for place in range(len(places)):
        done = _insert(thin, place, Lesion(diameter, -600, place, "reversed_halo"))
        volume = done.cover[~vessel[done.box]].sum() * np.prod(THIN)
        assert volume == pytest.approx(np.pi / 6 * diameter**3, rel=0.2)
        lung = ~vessel[done.box] & (hu[done.box] < -700)
        # Where the lesion meets the chest wall, there is no ring.
        depth = ndimage.distance_transform_edt(~(lung & (done.cover < 0.5)), sampling=THIN)
        inside, ring = (
            done.hu[lung & (done.cover > 0.9) & (low < depth) & (depth < high)] for low, high in ((6, 15), (1.5, 2.5))
        )
        assert inside.mean() == pytest.approx(-600, abs=60)
        assert ring.mean() > -350


def test_the_noise_of_the_scan_remains(thin):
    """Not a smaller one, as it would be if the lesion were blended with the scan."""
    hu, _, found, places = thin
    grain = np.rint(np.random.default_rng(2).normal(0, NOISE_HU, hu.shape)).astype(np.int16)
    args = (THIN, lung_surroundings(found), ImageQuality(NOISE_HU, BLUR_MM, 2.0), places[0], Lesion(30, -400))
    less, more = insert_lesion(hu, *args), insert_lesion(hu + grain, *args)
    core = (less.cover > 0.9) & (hu[less.box] < -700)
    assert core.sum() > 1000
    assert (more.hu - less.hu)[core].std() == pytest.approx(grain[less.box][core].std(), rel=0.15)


def test_edges_are_as_blurred_as_the_scan_and_thick_slices_are_means(thin):
    hu, _, found, places = thin
    args = (hu, THIN, lung_surroundings(found))
    sharp, blurred = (
        insert_lesion(*args, ImageQuality(NOISE_HU, blur, 2.0), places[0], Lesion(15, -20)).cover for blur in (0.3, 3)
    )

    def steepest(cover):
        return max(np.abs(np.diff(cover, axis=axis)).max() for axis in (1, 2))

    assert steepest(blurred) < 0.6 * steepest(sharp)
    thin_slices, thick = (_insert(thin, 0, Lesion(8, -20), slice_mm).cover for slice_mm in (0.5, 8.0))
    reached = [(cover.max(axis=(1, 2)) > 0.05).sum() for cover in (thin_slices, thick)]
    assert reached[1] > reached[0]
    assert thick.sum() == pytest.approx(thin_slices.sum(), rel=0.15)


def test_lesions_lie_against_the_pleura_and_mostly_low_and_behind(thin):
    hu, _, found, _ = thin
    places = choose_places(found, THIN, 20, np.random.default_rng(0))
    depth = ndimage.distance_transform_edt(hu[::2, ::2, ::2] < -500, sampling=2 * np.array(THIN))
    at = np.array([each.surface_mm for each in places])
    inner = np.rint((at + 8 * np.array([each.inward for each in places])) / THIN / 2).astype(int)
    assert (depth[tuple(inner.T)] > 2).all()
    assert (depth[tuple(inner.T)] < 14).all()
    lung = np.argwhere(hu < -500)[::1000] * THIN
    assert np.mean(at[:4, 1]) > lung[:, 1].mean()
    apart = np.linalg.norm(at[:, None] - at[None], axis=2) + 1e9 * np.eye(len(at))
    assert apart.min() > 45
    again = choose_places(found, THIN, 4, np.random.default_rng(0))
    assert again == choose_places(found, THIN, 4, np.random.default_rng(0))


def test_existing_opacities_are_avoided(thin):
    hu = thin[0].copy()
    sick = hu[:, :, :110]  # of the right lung, up to 175
    sick[sick < -700] += 300
    found = segment_lungs(hu, THIN)
    places = choose_places(found, THIN, 6, np.random.default_rng(0))
    assert places
    assert all(place.surface_mm[2] > 105 for place in places)


def test_what_does_not_fit_is_not_inserted(thin):
    assert _insert(thin, 0, Lesion(10, -800)) is None  # no denser than the lung
    assert choose_places(segment_lungs(np.full((20, 40, 40), -1000, np.int16), (5, 5, 5)), (5, 5, 5), 2, None) == []
    with pytest.raises(ValueError, match="lungs"):
        lung_surroundings(segment_lungs(np.full((20, 40, 40), -1000, np.int16), (5, 5, 5)))


@real_ct.needed
@pytest.mark.parametrize(
    ("name", "slice_mm"),
    [("nifti/normal/normal001", 2.0), ("nifti/covid/P001", 2.0), ("more/other/lidc_0004", 1.25)],
)
def test_noise_blur_and_thickness_of_real_scans(name, slice_mm):
    """Slices are 7.5 to 8 mm apart; their thickness is known from the collections, and is found in the images."""
    scan = read_scan(real_ct.FOLDER / f"{name}.nii.gz")
    middle = scan.hu[8:-6, 64:-64, 64:-64]
    found = measure_image_quality(middle, scan.spacing_mm)
    assert 10 < found.noise_hu < 35
    assert 0.4 < found.blur_mm < 0.8
    assert found.slice_mm == pytest.approx(slice_mm, abs=1.0)
    softer = ndimage.gaussian_filter(middle.astype(np.float32), (0, *(1 / np.array(scan.spacing_mm[1:]))))
    blurred = measure_image_quality(softer, scan.spacing_mm)
    assert blurred.blur_mm == pytest.approx(np.hypot(found.blur_mm, 1), abs=0.25)
    assert blurred.noise_hu < 0.6 * found.noise_hu
