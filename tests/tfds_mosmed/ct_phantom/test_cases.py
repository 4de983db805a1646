"""The phantoms of many scanners, bodies and diseases: geometry, densities, lesions of stated sizes."""

import dataclasses
import functools

import nibabel as nib
import numpy as np
import pytest

from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.ct_phantom.acquisition import sample_acquisition
from tfds_mosmed.ct_phantom.anatomy.body import build_chest_wall
from tfds_mosmed.ct_phantom.anatomy.organs import build_organs
from tfds_mosmed.ct_phantom.anatomy.population import sample_contrast
from tfds_mosmed.ct_phantom.anatomy.subject import sample_subject
from tfds_mosmed.ct_phantom.disease import covid, infections
from tfds_mosmed.ct_phantom.disease.cases import (
    CLASSES,
    DISEASES,
    HARMLESS,
    PNEUMONIAS,
    SOLID_MOTTLE_HU,
    draw_case,
    sample_case,
)
from tfds_mosmed.ct_phantom.disease.lesions import covid_lesions
from tfds_mosmed.ct_phantom.disease.opacities import Focus, Opacity
from tfds_mosmed.ct_phantom.disease.site import Site
from tfds_mosmed.ct_phantom.hospital import HOSPITALS
from tfds_mosmed.ct_phantom.scanner import MANY, MOSMED

ANY = HOSPITALS["any"]


def person(seed, hospital=ANY, matrix=512):
    rng = np.random.default_rng(seed)
    subject = sample_subject(rng, hospital.patients)
    return rng, subject, sample_acquisition(rng, subject, matrix, hospital.scanner)


@functools.cache
def place():
    rng, subject, scan = person(3, matrix=64)
    wall = build_chest_wall(subject, scan)
    return Site(build_organs(subject, scan, wall, rng).lungs, wall, subject, scan, rng)


def with_finding(name, seed, monkeypatch, matrix=96, **changes):
    """Draw a phantom whose only finding is `name`."""
    monkeypatch.setattr(generator, "sample_case", lambda kind, rng: [name])
    return generator.make_phantom(seed, "CT-0", matrix, dataclasses.replace(ANY, **changes), "other")


def of(phantom, name):
    return phantom.finding == phantom.findings.index(name) + 1


def test_scans_span_the_stated_ranges():
    scans = [person(seed)[1:] for seed in range(400)]
    pixels = [scan.pixel for _, scan in scans]
    gaps = {scan.gap for _, scan in scans}
    assert 0.48 <= min(pixels) < 0.62
    assert 1.0 < max(pixels) <= 1.1
    assert min(gaps) == 1
    assert max(gaps) == 10
    assert sum(p for _, _, p in MANY.protocols) == pytest.approx(1)
    for subject, scan in scans:
        assert scan.first_z < 0
        assert scan.first_z + scan.gap * (scan.slices - 1) > subject.lung_height
        assert scan.x[0] < -subject.half_width - 2
        assert scan.x[-1] > subject.half_width + 2
    assert 0.1 < np.mean([subject.arms_down for subject, _ in scans]) < 0.3
    assert 0.4 < np.mean([subject.contrast is not None for subject, _ in scans]) < 0.7
    assert max(s.contrast.left for s, _ in scans if s.contrast) > 300
    lungs = [subject.parenchyma_hu for subject, _ in scans]
    assert min(lungs) < -900
    assert max(lungs) > -770
    assert 0.1 < np.mean([subject.dependent_hu > 150 for subject, _ in scans]) < 0.35  # expiratory


@pytest.mark.parametrize("gap", [1.0, 3.0, 8.0, 10.0])
def test_slices_are_means_of_the_planes_that_are_drawn(gap):
    scan = next(scan for scan in (person(seed)[2] for seed in range(400)) if scan.gap == gap)
    for k in range(scan.slices):
        planes, weights = zip(*scan.planes_of(k), strict=True)
        assert sum(weights) == pytest.approx(1)
        assert np.dot(scan.z[list(planes)], weights) == pytest.approx(scan.first_z + k * gap, abs=1e-3)
    assert len(scan.z) <= 2 * scan.slices
    assert gap >= 3.5 or np.diff(scan.z).mean() >= 3.5


@pytest.mark.parametrize(("radius", "pixel"), [(2.5, 0.7), (10.0, 0.7), (20.0, 1.0)])
def test_foci_have_their_diameter_and_density(radius, pixel):
    scan = dataclasses.replace(place().scan, matrix=128, pixel=pixel, slab=1.0, resolution=0.7)
    box = (slice(0, 128), slice(0, 128))
    for offset in (0.0, 0.6 * radius):
        lung, lesion = np.full((128, 128), -850, np.float32), np.zeros((128, 128), bool)
        z, y, x = float(scan.z[5]) + offset, float(scan.y[60]), float(scan.x[70])
        focus = Focus((z, y, x), (radius,) * 3, -750.0, 1.0, lesion=True, denser=80)
        focus.draw(scan, 5, box, lung, lesion, np.zeros((128, 128), np.uint8), 1)
        area = np.pi * (radius**2 - offset**2)
        assert lesion.sum() * pixel**2 == pytest.approx(area, rel=0.15)
        assert lung[60, 70] == pytest.approx(-750, abs=3 if radius > 5 else 30)
        assert lung[5, 5] == -850


def test_foci_far_from_a_plane_leave_it_alone():
    scan, lung = place().scan, np.full((64, 64), -850, np.float32)
    focus = Focus((float(scan.z[5]) + 30, 0.0, 0.0), (8.0,) * 3, 40.0)
    focus.draw(scan, 5, (slice(0, 64), slice(0, 64)), lung, lung > 0, np.zeros((64, 64), np.uint8), 1)
    assert (lung == -850).all()


def test_small_patches_are_few_faint_and_in_the_lungs():
    p, shares, diameters = place(), [], []
    axes = (p.z, p.y, p.x)
    for _ in range(80):
        patches = covid.small_patches(p)
        volume = sum(4.19 * np.prod(patch.radii) for patch in patches)
        shares.append(volume / 1e6 / p.litres())
        for patch in patches:
            diameters.append(2 * np.cbrt(np.prod(patch.radii)))
            assert covid.FAINTEST_HU <= patch.hu <= -400
            k, i, j = (int(np.argmin(np.abs(axis.ravel() - v))) for axis, v in zip(axes, patch.centre, strict=True))
            assert p.lungs[k, i, j] < 0
    assert max(shares) < 0.03
    assert min(shares) < 1e-4
    assert 3.5 < min(diameters) < 7
    assert max(diameters) > 25


def test_three_of_five_mild_cases_are_small_and_the_others_are_not(monkeypatch):
    p, least_shares = place(), []
    patch = Focus((0, 0, 0), (3, 3, 3), -600, name="small")

    def large(*_, least):
        least_shares.append(least)
        return [Opacity(p.lungs, 3.0, -600.0)], ["ground_glass"]

    monkeypatch.setattr(covid, "small_patches", lambda p: [patch])
    monkeypatch.setattr(covid, "covid_lesions", large)
    drawn = [covid.covid("CT-1", p) for _ in range(200)]
    small = [names == ["small"] for _, names in drawn]
    assert 0.5 < np.mean(small) < 0.7
    assert min(least_shares) > covid.SMALL_SHARE
    patterns = {name for _, names in drawn for name in names}
    assert patterns == {"small", "ground_glass", "perilobular", "residual_fibrosis"}


def test_lesions_have_no_edges_along_the_grid_that_they_are_drawn_on():
    """A network would know COVID-19 by them: no other disease is drawn on every second pixel."""
    ratios = []
    for _ in range(12):
        lesions, _ = covid_lesions("CT-2", place())
        distance = lesions[0].distance
        near = (np.abs(distance[..., 1:-1]) < 4) & (place().lungs[..., 1:-1] < 0)
        steps = np.abs(np.diff(distance, axis=2))
        even, odd = steps[:, :, :-1:2][near[..., ::2]], steps[:, :, 1::2][near[..., : steps.shape[2] - 1 : 2]]
        ratios.append(np.median(odd) / np.median(even))
    assert 0.85 < np.median(ratios) < 1.15


def mottles(kind, finding):
    """Return the mottle of the parts without air of several cases."""
    p, found = place(), []
    organs = build_organs(p.subject, p.scan, p.wall, p.rng)
    for _ in range(12):
        drawn = draw_case("CT-3" if kind == "covid" else "CT-0", finding, p.wall, organs, p.subject, p.scan, p.rng)
        parts = [part for part in drawn.opacities if np.mean(part.hu) > -250 and not part.fills]
        found += [part.mottle_hu for part in parts]
    return found


def test_lung_without_air_has_the_same_texture_in_every_disease():
    ours = mottles("covid", [])
    assert len(ours) > 3
    for name in ("lobar_pneumonia", "aspiration", "post_obstructive"):
        others = mottles("other", [name])
        assert min(len(others), sum(hu > 0 for hu in others)) == len(others) > 3
        assert max(*ours, *others) <= SOLID_MOTTLE_HU[1]


def test_a_haze_of_lung_that_is_hazy_already_is_never_darker(monkeypatch):
    phantom, before = (with_finding(name, 4003, monkeypatch) for name in ("dependent_atelectasis", "motion_free"))
    where = of(phantom, "dependent_atelectasis") & phantom.lung_mask
    assert where.sum() > 20
    assert np.mean(phantom.hu[where].astype(float) - before.hu[where]) > 20


@pytest.mark.parametrize("kind", CLASSES)
def test_cases_have_the_findings_of_their_class(kind):
    rng = np.random.default_rng(0)
    cases = [set(sample_case(kind, rng)) for _ in range(300)]
    assert all(bool(case & set(PNEUMONIAS)) == (kind == "other_pneumonia") for case in cases)
    diseased = np.mean([bool(case & set(DISEASES)) for case in cases])
    low, high = {"normal": (0, 0), "other": (1, 1), "covid": (0.1, 0.6), "other_pneumonia": (0.2, 0.8)}[kind]
    assert low <= diseased <= high
    with pytest.raises(ValueError, match="kind='flu'"):
        sample_case("flu", rng)


@pytest.mark.parametrize("name", sorted({*HARMLESS, *DISEASES, *PNEUMONIAS} - {"motion"}))
def test_findings_lie_where_they_belong(name, monkeypatch):
    seen = 0
    for seed in (0, 1, 2):
        p = with_finding(name, seed, monkeypatch, matrix=80, scanner=MOSMED)
        where = of(p, name)
        seen += where.sum()
        assert not p.lesion_mask.any()
        if name not in ("effusion", "pneumothorax", "lymph_nodes", "heart_failure", "bronchiectasis"):
            assert not (where & ~p.lung_mask).any()
    assert seen > 2


def test_fluid_air_and_tumours_have_their_densities(monkeypatch):
    for name, low, high in (("effusion", -30, 60), ("pneumothorax", -1024, -930)):
        p = with_finding(name, 2, monkeypatch)
        outside = of(p, name) & ~p.lung_mask
        assert low <= np.median(p.hu[outside]) <= high
    p = with_finding("post_obstructive", 1, monkeypatch)
    assert np.percentile(p.hu[of(p, "post_obstructive")], 80) > -60
    p = with_finding("emphysema", 1, monkeypatch)
    assert np.median(p.hu[of(p, "emphysema")]) < np.median(p.hu[p.lung_mask & ~of(p, "emphysema")])


def test_contrast_medium_fills_heart_and_vessels(monkeypatch):
    bright = []
    for phase in ("none", "pulmonary"):
        patients = dataclasses.replace(ANY.patients, contrast={phase: 1.0})
        p = with_finding("band", 5, monkeypatch, patients=patients, scanner=dataclasses.replace(MANY, metal=0.0))
        levels, rows = (np.flatnonzero(p.lung_mask.any(axes)) for axes in ((1, 2), (0, 2)))
        heart = p.hu[levels[len(levels) // 2], rows[len(rows) // 4] : rows[len(rows) // 2], 38:58]  # between the ribs
        bright.append(np.percentile(heart, 90))
    assert bright[0] < 100
    assert bright[1] > 180
    assert sample_contrast({"none": 1.0}, np.random.default_rng(0)) is None


def test_arms_beside_the_body_are_seen_where_the_field_of_view_reaches_them(monkeypatch):
    tissue = []
    for down in (0.0, 1.0):
        patients = dataclasses.replace(ANY.patients, arms_down=down)
        scanner = dataclasses.replace(MANY, view_mm=(555, 560), view_share=(3, 3), metal=0.0, couches={"curved": 1.0})
        p = with_finding("band", 4, monkeypatch, patients=patients, scanner=scanner)
        beside = np.abs(np.arange(96) - 47.5) * p.spacing_mm[2] > 185
        tissue.append((p.hu[:, :, beside] > -200).sum())
    assert tissue[1] > tissue[0] + 1000


def rear_and_front(phantom):
    """Return the median density of the rear tenth and of the front half of the lungs."""
    rows = np.flatnonzero(phantom.lung_mask.any((0, 2)))
    parts = rows[-len(rows) // 10 :], rows[: len(rows) // 2]
    return [np.median(phantom.hu[:, part][phantom.lung_mask[:, part]]) for part in parts]


def test_expiration_makes_the_lungs_denser_and_their_back_most(monkeypatch):
    (rear, front), (rear_expired, front_expired) = (
        rear_and_front(with_finding("motion", 6, monkeypatch, patients=patients))
        for patients in (dataclasses.replace(ANY.patients, inspiration=breath) for breath in ((60.0, 1.0), (1.0, 60.0)))
    )
    assert front_expired > front + 40
    assert rear_expired > rear + 150


def test_haze_lies_behind(monkeypatch):
    density = []
    for haze in (0.0, 200.0):

        def hazy(rng, people, haze=haze):
            return dataclasses.replace(sample_subject(rng, people), haze_hu=haze, haze_mm=20.0)

        monkeypatch.setattr(generator, "sample_subject", hazy)
        density.append(rear_and_front(with_finding("motion", 6, monkeypatch)))
    assert density[1][0] > density[0][0] + 60
    assert density[1][1] < density[0][1] + 15


@pytest.mark.parametrize("hospital", sorted(HOSPITALS))
def test_written_studies_have_the_spacing_of_their_hospital(hospital, tmp_path):
    p = generator.make_phantom(1, "CT-1", 64, HOSPITALS[hospital])
    for path in (tmp_path / "study.nii", tmp_path / "study.nii.gz"):
        generator.write_study(p, path)
        image = nib.load(path)
        assert nib.aff2axcodes(image.affine) == ("L", "A", "S")
        assert image.header.get_zooms() == pytest.approx(p.spacing_mm[::-1])
    assert p.hu.min() >= -3024
    assert p.hu.max() <= 3071
    assert p.lesion_mask.any()
    assert not (p.lesion_mask & ~p.lung_mask).any()


def test_hospitals_share_no_person_and_a_phantom_is_a_function_of_its_arguments():
    some = [generator.make_phantom(1, "CT-1", 64, HOSPITALS[name]) for name in ("any", "external", "any")]
    assert some[0].spacing_mm != some[1].spacing_mm
    np.testing.assert_array_equal(some[0].hu, some[2].hu)
    np.testing.assert_array_equal(some[0].finding, some[2].finding)


@pytest.mark.parametrize("changes", [{"kind": "covid"}, {"kind": "flu"}, {"category": "CT-2", "kind": "normal"}])
def test_refuses_kinds_that_do_not_fit(changes):
    with pytest.raises(ValueError, match="kind="):
        generator.make_phantom(**{"seed": 0, "category": "CT-0", "matrix": 64, "hospital": ANY, **changes})


def test_lesion_diameters_are_those_of_the_mask():
    mask = np.zeros((20, 80, 80), bool)
    z, y, x = np.ogrid[:20, :80, :80]
    for centre, radius in ((20, 12.0), (60, 6.0)):
        mask |= (4 * (z - 10)) ** 2 + (y - 40) ** 2 + (x - centre) ** 2 < radius**2
    empty = np.zeros_like(mask)
    p = generator.Phantom(mask, mask, mask, mask, (4.0, 1.0, 1.0), "CT-1", ())
    assert p.lesion_diameters() == pytest.approx([24, 12], rel=0.1)
    assert dataclasses.replace(p, lesion_mask=empty).lesion_diameters() == []
    empty[3, 11, 11] = True
    assert len(dataclasses.replace(p, lesion_mask=empty).lesion_diameters()) == 1


def test_bronchopneumonia_has_buds_only_where_they_are_drawn():
    assert infections.tree_in_bud(place(), clusters=0) == []
    assert infections.tree_in_bud(place())
