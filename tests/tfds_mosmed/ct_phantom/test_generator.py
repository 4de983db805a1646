"""The synthetic chests: geometry, lesions, density, and that nothing but lesions tells the classes apart."""

import dataclasses
import functools
from collections import Counter

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.support import real_ct
from tfds_mosmed.ct_phantom.acquisition import sample_acquisition
from tfds_mosmed.ct_phantom.anatomy.body import build_chest_wall
from tfds_mosmed.ct_phantom.anatomy.fields import capsule
from tfds_mosmed.ct_phantom.anatomy.organs import build_organs
from tfds_mosmed.ct_phantom.anatomy.subject import sample_subject
from tfds_mosmed.ct_phantom.anatomy.vessels import Tubes, draw, grow, radii
from tfds_mosmed.ct_phantom.disease.mimics import CHANCES, draw_findings, sample_findings
from tfds_mosmed.ct_phantom.disease.site import Site
from tfds_mosmed.ct_phantom.generator import (
    CATEGORIES,
    categories_for,
    draw_person,
    make_phantom,
    write_study,
)
from tfds_mosmed.ct_phantom.hospital import HOSPITALS
from tfds_mosmed.ct_phantom.scanner import MOSMED

BANDS = {"CT-0": (0, 0), "CT-1": (0.005, 0.25), "CT-2": (0.25, 0.50), "CT-3": (0.50, 0.75), "CT-4": (0.75, 1.0)}
make = functools.cache(make_phantom)


def small(seed, category="CT-0"):
    return make(seed + 100, category, 128)


def involved(phantom):
    return phantom.lesion_mask.sum() / phantom.lung_mask.sum()


def test_same_arguments_give_the_same_study():
    first, again = make_phantom(5, "CT-2", 96), make_phantom(5, "CT-2", 96)
    np.testing.assert_array_equal(first.hu, again.hu)
    np.testing.assert_array_equal(first.lesion_mask, again.lesion_mask)
    assert first.findings == again.findings
    assert first.spacing_mm == again.spacing_mm


def test_another_seed_or_category_is_another_person():
    reference = make_phantom(5, "CT-2", 96)
    for other in (make_phantom(6, "CT-2", 96), make_phantom(5, "CT-3", 96)):
        assert other.spacing_mm != reference.spacing_mm


def test_matrix_changes_pixels_and_not_the_person():
    coarse, fine = make_phantom(3, "CT-1", 96), make_phantom(3, "CT-1", 192)
    assert fine.hu.shape == (len(coarse.hu), 192, 192)
    assert fine.spacing_mm[1] == pytest.approx(coarse.spacing_mm[1] / 2)
    halved = fine.lung_mask.reshape(len(coarse.hu), 96, 2, 96, 2).mean((2, 4)) > 0.5
    overlap = 2 * (halved & coarse.lung_mask).sum() / (halved.sum() + coarse.lung_mask.sum())
    assert overlap > 0.97


@pytest.mark.parametrize("seed", range(6))
def test_patient_lies_as_the_axes_say(seed):
    p = small(seed)
    hu, (depth, height, width) = p.hu, p.hu.shape
    per_slice = p.lung_mask.sum((1, 2))
    inside = np.flatnonzero(per_slice)
    top, bottom = inside[-1], inside[0]
    # The apex is near the last slice, and lungs end there in a point; below them there is soft tissue.
    assert per_slice[inside[-2]] < 0.6 * per_slice.max()
    assert top > 0.75 * depth
    assert bottom < 0.65 * depth
    bone = hu > 300
    middle = np.average(np.arange(width), weights=bone.sum((0, 1)))
    # The heart takes its room from the left lung, in the higher columns.
    levels = slice(int(bottom + 0.5 * (top - bottom)), int(bottom + 0.62 * (top - bottom)))
    right, left = p.lung_mask[levels, :, : int(middle)].sum(), p.lung_mask[levels, :, int(middle) + 1 :].sum()
    assert right > left
    # Liver: at the level of the domes' tops soft tissue is on the right, lung on the left or equal.
    low = slice(bottom, bottom + max(2, int(0.2 * (top - bottom))))
    soft = (hu[low] > 25) & (hu[low] < 90)
    assert soft[:, :, : int(middle)].sum() > soft[:, :, int(middle) :].sum()
    # Spine: bone near the midline is behind the lungs' centre.
    rows = np.average(np.arange(height), weights=p.lung_mask.sum((0, 2)))
    stripe = slice(int(middle) - 8, int(middle) + 9)
    assert np.average(np.arange(height), weights=bone[inside][:, :, stripe].sum((0, 2))) > rows


@pytest.mark.parametrize("category", CATEGORIES)
def test_lesions_take_the_share_of_their_category(category):
    low, high = BANDS[category]
    for seed in range(5):
        p = small(seed, category)
        assert low <= involved(p) <= high
        assert not (p.lesion_mask & ~p.lung_mask).any()


def test_mild_disease_spans_from_a_focus_to_a_quarter():
    shares = [involved(small(seed, "CT-1")) for seed in range(14)]
    assert min(shares) < 0.05
    assert max(shares) > 0.12


def test_lesions_are_denser_than_lung_and_mostly_at_the_back():
    behind, denser = [], []
    for seed in range(8):
        p = small(seed, "CT-2")
        healthy = p.lung_mask & ~ndimage.binary_dilation(p.lesion_mask, iterations=2)
        denser.append(np.median(p.hu[p.lesion_mask]) - np.median(p.hu[healthy]))
        rows = np.arange(p.hu.shape[1])
        behind.append(
            np.average(rows, weights=p.lesion_mask.sum((0, 2))) - np.average(rows, weights=p.lung_mask.sum((0, 2)))
        )
    assert min(denser) > 60
    assert np.mean(np.array(behind) > 0) >= 0.75


def test_lung_density_varies_as_in_patients():
    means = [float(p.hu[p.lung_mask].mean()) for p in (small(seed) for seed in range(24))]
    assert -860 < np.mean(means) < -740
    assert np.std(means) > 20
    for seed in range(6):
        p = small(seed)
        lung = ndimage.binary_erosion(p.lung_mask, np.ones((1, 3, 3)))
        assert -920 < np.median(p.hu[lung]) < -720
        assert 0.002 < (p.hu[lung] > -300).mean() < 0.12  # vessels


def test_soft_tissue_fat_bone_and_air_have_their_values():
    p = small(1)
    assert p.hu.dtype == np.int16
    assert p.hu.max() > 350
    body = p.hu[(p.hu > -200) & (p.hu < 200)]
    counts, edges = np.histogram(body, bins=np.arange(-200, 201, 20))
    assert counts[np.searchsorted(edges, 45) - 1] > 0.05 * body.size
    assert counts[np.searchsorted(edges, -100) - 1] > 0.02 * body.size


def test_padding_lies_outside_the_circular_field_of_view():
    seen = Counter()
    for seed in range(12):
        p = small(seed)
        corner = p.hu[:, 0, 0]
        assert len(np.unique(corner)) == 1 or np.ptp(corner) < 400  # padding, or noisy air
        seen[int(corner[0]) if corner[0] < -1024 else -1024] += 1
        centre = p.hu.shape[1] // 2
        assert p.hu[:, centre, centre].min() >= -1024
    assert len(seen) >= 2


def test_written_study_is_las_and_reads_back(tmp_path):
    p = small(2, "CT-1")
    write_study(p, tmp_path / "study.nii.gz", tmp_path / "mask.nii.gz")
    for name, expected in (("study", p.hu), ("mask", p.lesion_mask.astype(np.uint8))):
        image = nib.load(tmp_path / f"{name}.nii.gz")
        assert nib.aff2axcodes(image.affine) == ("L", "A", "S")
        assert image.get_data_dtype() == expected.dtype
        assert image.header.get_zooms() == pytest.approx(p.spacing_mm[::-1])
        patient = nib.as_closest_canonical(image)  # x grows to the right, y to the front, z to the head
        np.testing.assert_array_equal(np.asanyarray(patient.dataobj)[::-1, ::-1].transpose(2, 1, 0), expected)


def test_slices_and_pixels_are_those_of_mosmeddata():
    spacing, slices = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        scan = sample_acquisition(rng, sample_subject(rng), 512)
        spacing.append(scan.pixel)
        slices.append(scan.slices)
    assert min(slices) == MOSMED.slices[0]
    assert max(slices) <= MOSMED.slices[1]
    assert 36 <= np.median(slices) <= 44
    assert min(spacing) >= 0.58
    assert max(spacing) <= 1.15


@pytest.mark.parametrize("hospital", HOSPITALS.values(), ids=HOSPITALS)
def test_person_and_scan_do_not_tell_the_classes_apart(hospital):
    rows, labels = [], []
    for seed in range(400):
        category = CATEGORIES[0] if seed % 2 else CATEGORIES[1 + seed // 2 % 4]
        _, subject, scan = draw_person(seed, category, 64, hospital)
        blood = subject.contrast.left if subject.contrast else subject.blood_hu
        body = dataclasses.replace(subject, contrast=None)
        rows.append([float(v or 0) for v in (*dataclasses.astuple(body), *dataclasses.astuple(scan), blood)])
        labels.append(category != "CT-0")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    score = cross_val_predict(model, np.array(rows), labels, cv=5, method="decision_function")
    assert roc_auc_score(labels, score) < 0.58


def test_noise_and_body_as_drawn_do_not_tell_the_classes_apart():
    studies = [small(seed) for seed in range(24)]
    studies += [small(seed, "CT-1") for seed in range(14)] + [small(seed, "CT-2") for seed in range(10)]
    rows = []
    for p in studies:
        tissue = ~ndimage.binary_dilation(p.lung_mask, iterations=2) & (p.hu > -150) & (p.hu < 150)
        area = p.spacing_mm[1] ** 2
        rows.append(
            [len(p.hu), p.spacing_mm[1], p.hu.min(), p.hu[tissue].mean(), p.hu[tissue].std(), p.hu[:, :6, 60:68].std(),
             p.lung_mask.sum() * area, tissue.sum() * area, p.lung_mask.any((1, 2)).mean()]
        )  # fmt: skip
    labels = [p.category != "CT-0" for p in studies]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    score = cross_val_predict(model, np.array(rows), labels, cv=6, method="decision_function")
    rng = np.random.default_rng(0)
    chance = [roc_auc_score(rng.permutation(labels), score) for _ in range(2000)]
    assert roc_auc_score(labels, score) < np.quantile(chance, 0.999)


def test_findings_are_in_both_classes_save_lobar_pneumonia():
    rng = np.random.default_rng(0)
    seen = {positive: [sample_findings(positive, rng) for _ in range(600)] for positive in (False, True)}
    share = {k: Counter(name for names in v for name in names) for k, v in seen.items()}
    assert set(share[False]) == set(CHANCES)
    assert set(CHANCES) - set(share[True]) == {"lobar_pneumonia"}
    for name in share[True]:
        assert 0.5 < share[True][name] / share[False][name] < 1.5
    assert 0.2 < np.mean([not names for names in seen[False]]) < 0.5  # plainly normal


@pytest.mark.parametrize("name", sorted(set(CHANCES) - {"motion"}))
def test_findings_lie_in_the_lungs_and_change_them(name):
    found = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        subject = sample_subject(rng)
        scan = sample_acquisition(rng, subject, 64)
        wall = build_chest_wall(subject, scan)
        lungs = build_organs(subject, scan, wall, rng).lungs
        opacities = draw_findings([name], Site(lungs, wall, subject, scan, rng, smooth=False))
        found += any(((o.distance < 0) & (lungs < 0)).sum() > 3 for o in opacities)
        assert not any(o.lesion for o in opacities)
        darker = [np.mean(o.hu) < subject.parenchyma_hu for o in opacities]
        if name == "emphysema":
            assert all(darker)
        elif name not in ("bullae", "mosaic"):
            assert not any(darker)
        if name == "lobar_pneumonia":
            x = scan.axes()[2]
            sides = [((o.distance < 0) & (lungs < 0) & (x * side > 8)).sum() for o in opacities for side in (-1, 1)]
            assert min(sides) == 0  # one lung only
    assert found >= 2


def test_lesion_types_all_occur():
    names = {f for seed in range(14) for f in small(seed, "CT-1").findings}
    assert {"ground_glass", "crazy_paving", "consolidation"} <= names


def test_categories_follow_the_shares():
    mosmed = Counter(categories_for(1110, "mosmed", seed=0))
    assert mosmed == {"CT-0": 254, "CT-1": 684, "CT-2": 125, "CT-3": 45, "CT-4": 2}
    balanced = Counter(categories_for(200, "balanced", seed=0))
    assert balanced["CT-0"] == 100
    assert set(balanced) == set(CATEGORIES)
    for shares in ("mosmed", "balanced"):
        for count in (0, 1, 5, 7, 23):
            assert len(categories_for(count, shares, seed=1)) == count
        assert set(categories_for(5, shares, seed=1)) == set(CATEGORIES)
    assert categories_for(50, "balanced", seed=1) == categories_for(50, "balanced", seed=1)
    assert categories_for(50, "balanced", seed=1) != categories_for(50, "balanced", seed=2)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="CT-5"):
        make_phantom(0, "CT-5", 64)
    with pytest.raises(ValueError, match="matrix=8"):
        make_phantom(0, "CT-0", 8)
    with pytest.raises(ValueError, match="uneven"):
        categories_for(10, "uneven", seed=0)


def test_tree_serves_every_point_and_thins_out():
    rng = np.random.default_rng(0)
    targets = [rng.uniform(0, 100, (200, 3)), rng.uniform(0, 100, (77, 3)) - 100]
    tree = grow(np.zeros((2, 3)), np.tile([0.0, 0.0, 1.0], (2, 1)), targets, rng)
    for which, points in enumerate(targets):
        own = tree.tree == which
        tips = tree.end[own & (tree.supplied == 1)]
        assert sorted(map(tuple, tips.round(3))) == sorted(map(tuple, points.astype(np.float32).round(3)))
        assert tree.supplied[own].max() == len(points)
    thick = radii(tree, 0.4)
    assert thick.min() == pytest.approx(0.4)
    assert thick[tree.supplied == 200] > 5 * thick.min()


def test_drawn_tube_covers_the_area_of_its_section():
    z = np.linspace(-20, 20, 200, dtype=np.float32)
    upright = Tubes(np.stack([z, 0 * z, 0 * z], 1), np.full(200, 4, np.float32), np.full(200, 0.0, np.float32))
    cover = draw(upright, 0.0, 1.0, 0.5, -10.0, -10.0, 0.25, (80, 80))
    assert cover.max() == pytest.approx(1)
    assert cover.sum() * 0.25**2 == pytest.approx(np.pi * 16, rel=0.05)


def test_capsule_is_a_distance():
    z, y, x = (np.array([v], np.float32) for v in (0.0, 3.0, 7.0))
    assert capsule(z, y, x, (0, 0, 0), (0, 0, 10), 2.0)[0] == pytest.approx(1.0)
    assert capsule(z, y, x, (0, 0, 0), (0, 0, 3), 2.0)[0] == pytest.approx(3.0)


@real_ct.needed
def test_lungs_of_phantoms_are_like_those_of_real_studies():
    ours = np.array([_texture(p.hu, p.lung_mask, p.spacing_mm[1]) for p in (make(s, "CT-0", 256) for s in range(10))])
    path = next((real_ct.FOLDER / "nifti" / "normal").glob("*.nii.gz"))
    image = nib.load(path)
    hu = np.asanyarray(image.dataobj)[:, ::-1].transpose(2, 1, 0)[:, ::2, ::2]
    pixel = float(image.header.get_zooms()[0]) * 2
    theirs = _texture(hu, _air_in_the_chest(hu), pixel)
    low, high = ours.min(0), ours.max(0)
    reach = 0.35 * (high - low)
    assert (theirs > low - reach).all(), (theirs, low, high)
    assert (theirs < high + reach).all(), (theirs, low, high)


def _air_in_the_chest(hu):
    air = hu < -500
    for plane in air:
        labels, _ = ndimage.label(plane)
        edge = np.unique(np.r_[labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        plane &= ~np.isin(labels, edge)
    labels, count = ndimage.label(air)
    sizes = ndimage.sum_labels(air, labels, np.arange(1, count + 1))
    lungs = np.isin(labels, 1 + np.flatnonzero(sizes > 0.2 * sizes.max()))
    return np.stack([ndimage.binary_closing(s, iterations=4) for s in lungs])


def _texture(hu, lungs, pixel):
    """Median, spread, share of vessels, fine grain and size of the lungs."""
    inner = ndimage.binary_erosion(lungs, np.ones((1, 5, 5)))
    values = hu[inner]
    grain = hu - ndimage.uniform_filter(hu.astype(np.float32), (0, 7, 7))
    quartiles = np.percentile(values, [25, 50, 75])
    return np.array(
        [quartiles[1], quartiles[2] - quartiles[0], (values > -600).mean(), (values > -300).mean(),
         np.median(np.abs(grain[inner])), lungs.sum() * pixel * pixel * 8e-6]
    )  # fmt: skip
