"""Domain shift: studies out of the reference ranges are flagged, studies near the training studies are not."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import ndimage

from covidscan.data import domain_shift
from covidscan.data.domain_shift import CODES, ReferenceRanges, flags, merge, reference_ranges
from covidscan.prediction.predictor import flags_of_refusal
from covidscan.prediction.reading import prepare_scan, read_prepared
from covidscan.trained_models import ensemble
from tests.support import real_ct, runs
from tests.support.chest import chest, write_nifti, write_series
from tfds_mosmed import catalog
from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.appearance import ScanStatistics, scan_statistics
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.find import Found
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import scan_of_array

GRID = Grid.parse("32x32x16")  # of ct_phantom/tiny
# On a grid that resolves every distance of a source.
PLAIN = ScanStatistics(8.0, 0.7, 0.5, 0.1, -1010.0, 40.0, 5.0, -840.0, 4.0, 0.01)
# Of 381 phantoms of many scanners (hospital "any", COVID-19 and others) on the grid 128x128x32, as `write` wrote them.
VARIED = ReferenceRanges.from_json(json.loads(Path(__file__).with_name("ranges_of_varied_phantoms.json").read_text()))


@pytest.fixture(scope="module")
def records(data_dir):
    return catalog.load_builder("ct_phantom/tiny", data_dir).open_records()


@pytest.fixture(scope="module")
def reference(records, tmp_path_factory):
    """Of the tiny phantoms."""
    folder = tmp_path_factory.mktemp("run")
    domain_shift.write(folder, records, np.arange(len(records)))
    return domain_shift.read(folder)


@pytest.fixture(scope="module")
def phantom():
    """One that is not among them."""
    return generator.make_phantom(seed=4711, category="CT-1", matrix=128)


def flagged(phantom, hu, reference, path, spacing=None, grid=GRID):
    """Flags of a phantom with other voxels, from its file."""
    changed = dataclasses.replace(phantom, hu=hu.astype(np.int16), spacing_mm=spacing or phantom.spacing_mm)
    generator.write_study(changed, path / "study.nii.gz")
    scan = read_scan(path / "study.nii.gz")
    study = prepare(scan, grid)
    measured = scan_statistics(study.volume, study.spacing_mm, scan.spacing_mm)
    return {flag.code: flag for flag in flags(measured, reference, study.lung_findings)}


def enhanced(phantom, by):
    """Iodine in heart and vessels between the lungs."""
    right = np.logical_or.accumulate(phantom.lung_mask, 2)
    left = np.logical_or.accumulate(phantom.lung_mask[:, :, ::-1], 2)[:, :, ::-1]
    blood = right & left & ~phantom.lung_mask & (phantom.hu > -10) & (phantom.hu < 100)
    return np.where(blood, phantom.hu + by, phantom.hu)


def sharpened(phantom, amount, noise):
    """Another kernel: unsharp mask, and noise of high frequency."""
    hu = phantom.hu.astype(np.float32)
    white = np.random.default_rng(0).normal(0, noise, hu.shape)
    sharp = hu + amount * (hu - ndimage.gaussian_filter(hu, (0, 1, 1))) + white
    return np.clip(sharp, -1024, 3000)


def gap(phantom, mm):
    """As if it had been scanned with another distance of slices."""
    hu = ndimage.zoom(phantom.hu, (phantom.spacing_mm[0] / mm, 1, 1), order=1)
    return hu, (phantom.spacing_mm[0] * len(phantom.hu) / len(hu), *phantom.spacing_mm[1:])


def cut(phantom, share):
    """Without the upper share of the lungs."""
    slices = np.flatnonzero(phantom.lung_mask.any(axis=(1, 2)))
    return phantom.hu[: slices[-1] + 1 - round(share * len(slices))]


def without_lungs(phantom):
    return np.where(ndimage.binary_dilation(phantom.lung_mask, iterations=2), 45, phantom.hu)


FAR = {
    "contrast": lambda p: (enhanced(p, 150), None),
    "kernel": lambda p: (sharpened(p, 2.0, 80), None),
    "slice_gap": lambda p: gap(p, 25.0),
    "pixel_spacing": lambda p: (p.hu[:, ::6, ::6], (8.0, *(6 * mm for mm in p.spacing_mm[1:]))),
    "voxel_size": lambda p: (p.hu, (8.0, *(mm / 2 for mm in p.spacing_mm[1:]))),
    "lungs_cut_off": lambda p: (cut(p, 0.35), None),
    "no_lungs": lambda p: (without_lungs(p), None),
    "not_hu": lambda p: (p.hu * 0.8, None),
}
NEAR = {
    "as it is": lambda p: (p.hu, None),
    "a shade of contrast": lambda p: (enhanced(p, 8), None),
    "a little more noise": lambda p: (sharpened(p, 0.0, 10), None),
    "slices 2 mm apart": lambda p: gap(p, 2.0),
    "slices 12 mm apart": lambda p: gap(p, 12.0),
    "fine pixels": lambda p: (
        np.repeat(np.repeat(p.hu, 3, 1), 3, 2),
        (8.0, *(mm / 3 for mm in p.spacing_mm[1:])),
    ),
    "calibration a little off": lambda p: (p.hu + 8, None),
    "a wide field of view": lambda p: (np.pad(p.hu, ((0, 0), (16, 16), (16, 16)), constant_values=-1000), None),
}


@pytest.mark.parametrize("code", FAR)
def test_a_study_out_of_range_is_flagged(code, phantom, reference, tmp_path):
    hu, spacing = FAR[code](phantom)
    found = flagged(phantom, hu, reference, tmp_path, spacing)
    assert code in found
    assert found.keys() <= set(CODES)
    assert found[code].seen


@pytest.mark.parametrize("change", NEAR)
def test_a_study_near_the_training_studies_is_not_flagged(change, phantom, reference, tmp_path):
    hu, spacing = NEAR[change](phantom)
    assert flagged(phantom, hu, reference, tmp_path, spacing) == {}


def test_the_flag_of_a_slice_gap_names_the_expected_range(phantom, reference, tmp_path):
    hu, spacing = gap(phantom, 25.0)
    found = flagged(phantom, hu, reference, tmp_path, spacing)
    assert str(found["slice_gap"]) == f"slice_gap: slices {spacing[0]:.1f} mm apart, training studies 8.0"


@pytest.mark.parametrize(
    ("trained_mm", "seen_mm", "grid_mm", "is_flagged"),
    [
        (0.7, 1.2, 2.4, False),
        (1.5, 0.6, 2.4, False),
        (0.7, 4.2, 2.4, True),
        (0.7, 1.2, 0.8, True),  # on a finer grid
        (8.0, 3.0, 8.5, False),
        (8.0, 3.0, 5.0, True),
        (8.0, 10.0, 8.0, False),
        (1.0, 10.0, 7.0, True),
        (8.0, 16.0, 8.0, True),
    ],
)
def test_distances_in_the_source_count_as_far_as_the_grid_resolves_them(trained_mm, seen_mm, grid_mm, is_flagged):
    def measured(mm):
        return PLAIN._replace(slice_gap_mm=mm, pixel_mm=mm, grid_gap_mm=grid_mm, grid_pixel_mm=grid_mm)

    found = [flag.code for flag in flags(measured(seen_mm), reference_ranges([measured(trained_mm)]))]
    assert found == ["slice_gap", "pixel_spacing"] * is_flagged


def test_the_margin_does_not_widen_with_the_scanners_of_the_training_studies():
    trained_on = [PLAIN._replace(pixel_mm=mm) for mm in np.geomspace(0.5, 2, 50)]
    assert [flag.code for flag in flags(PLAIN._replace(pixel_mm=3.0), reference_ranges(trained_on))] == [
        "pixel_spacing"
    ]


def test_reference_ranges_of_older_runs_apply(phantom, tmp_path):
    known = domain_shift.read(runs.ROOT / "tests/support/stored_run/run")
    assert known is not None
    assert "grid_pixel_mm" not in known.ranges
    for change, expected in (
        ("pixel_spacing", {"pixel_spacing", "kernel"}),
        ("voxel_size", {"anatomy", "lung_volume"}),
    ):
        hu, spacing = FAR[change](phantom)
        assert flagged(phantom, hu, known, tmp_path, spacing).keys() == expected


SLAB = np.full((20, 64, 64), -1000)
SLAB[:, 55:58] = 40


@pytest.mark.parametrize("hu", [SLAB, np.random.default_rng(0).normal(0, 400, (20, 64, 64))])
def test_no_chest_at_all_is_flagged_on_every_grid(hu, phantom, reference, tmp_path):
    hu = hu.copy()
    hu[10, 30, 30] = 500
    for grid in (GRID, Grid.parse("32x32x16_full")):
        assert "no_lungs" in flagged(phantom, hu, reference, tmp_path, grid=grid)


def test_a_study_is_flagged_where_no_reference_ranges_are_known(phantom, tmp_path):
    assert list(flagged(phantom, phantom.hu, None, tmp_path)) == ["not_compared"]
    assert list(flagged(phantom, cut(phantom, 0.35), None, tmp_path)) == ["lungs_cut_off", "not_compared"]


def test_a_study_that_is_not_in_hu_is_flagged(tmp_path):
    nifti, series = tmp_path / "study.nii.gz", tmp_path / "series"
    write_nifti(nifti, chest() + 1024)
    write_series(series, RescaleIntercept=0)
    for path in (nifti, series):
        refusal = read_prepared(Found("study", path), GRID)
        assert "study: is not in Hounsfield units: its values are" in refusal.reason
        (flag,) = flags_of_refusal(refusal)
        assert flag.code == "not_hu"
        assert flag.code in CODES
    assert flags_of_refusal(read_prepared(Found("study", tmp_path / "missing.nii.gz"), GRID)) == []


numbers = {
    "slice_gap_mm": st.floats(0.5, 20),
    "pixel_mm": st.floats(0.3, 5),
    "grid_gap_mm": st.floats(3, 20),
    "grid_pixel_mm": st.floats(1, 10),
    "air_hu": st.floats(-1024, -500),
    "blood_hu": st.floats(0, 400) | st.just(math.nan),
    "noise_hu": st.floats(0.3, 100) | st.just(math.nan),
    "lung_hu": st.floats(-950, -400) | st.just(math.nan),
    "lung_litres": st.floats(0.6, 12) | st.just(math.nan),
    "end_share": st.floats(0, 1) | st.just(math.nan),
}
statistics = st.builds(ScanStatistics, **numbers)
several = st.lists(statistics, min_size=1, max_size=8)


@hypothesis.settings(max_examples=40)
@hypothesis.given(several, statistics)
def test_reference_ranges_survive_json(trained_on, measured):
    kept = reference_ranges(trained_on)
    read = ReferenceRanges.from_json(json.loads(json.dumps(kept.to_json(), allow_nan=False)))
    assert read == kept
    assert flags(measured, read) == flags(measured, kept)


@hypothesis.settings(max_examples=40)
@hypothesis.given(
    st.lists(statistics, min_size=1, max_size=8), st.lists(statistics, min_size=1, max_size=8), statistics
)
def test_a_study_in_range_of_one_network_is_in_range_of_both(one, other, measured):
    known = [reference_ranges(one), reference_ranges(other)]
    together, *alone = ({flag.code for flag in flags(measured, reference)} for reference in [merge(known), *known])
    assert together <= alone[0] & alone[1]
    assert merge(known[:1]) == known[0]


@hypothesis.given(st.sampled_from([name for name in numbers if name != "end_share"]), st.floats(1, 50))
def test_a_measurement_is_flagged_beyond_the_margin(name, far):
    """Equal training studies: the margin is that of the least spread."""
    known = reference_ranges([PLAIN] * 5)
    check = domain_shift._CHECKS[name]
    spread = known.ranges[name].spread
    assert spread == check.min_spread
    value = getattr(PLAIN, name)
    for sign in (-1, 1):
        for distance, expected in ((1.9, []), (2.1, [check.code]), (2.1 * far, [check.code])):
            step = sign * distance * spread
            moved = value * math.exp(step) if check.is_log else value + step
            assert [flag.code for flag in flags(PLAIN._replace(**{name: moved}), known)] == expected


def test_one_outlier_among_the_training_studies_does_not_widen_the_range():
    odd = PLAIN._replace(blood_hu=250.0)
    (flag,) = flags(odd, reference_ranges([PLAIN] * 200 + [odd]))
    assert str(flag) == "contrast: heart and vessels at 250 HU, training studies 40"
    assert flags(odd, reference_ranges([PLAIN] * 50 + [odd] * 5)) == []


def test_training_writes_reference_ranges(trained, records):
    known = domain_shift.read(trained)
    assert known is not None
    assert known.num_studies == json.loads((trained / "config.json").read_text())["data"]["num_train"]
    assert known.ranges["slice_gap_mm"][2:] == (8.0, 8.0)
    found = [
        flags(scan_statistics(record["volume"], record["spacing_mm"], record["source_spacing_mm"]), known)
        for record in records
    ]
    assert sum(map(bool, found)) <= 1


def test_an_existing_file_is_not_written_again(records, tmp_path):
    (tmp_path / "typical.json").write_text('{"num_studies": 3, "ranges": {}}')
    domain_shift.write(tmp_path, records, np.arange(2))
    assert domain_shift.read(tmp_path) == ReferenceRanges(3, {})


@pytest.mark.parametrize("content", ["{", "[]", '{"num_studies": 3, "ranges": {"air_hu": {"centre": 0}}}'])
def test_a_damaged_file_is_named_in_the_error(content, tmp_path):
    (tmp_path / "typical.json").write_text(content)
    with pytest.raises(UserError, match=r"typical\.json is not as training wrote it .*: remove it and run"):
        domain_shift.read(tmp_path)


def test_a_model_has_the_reference_ranges_of_its_run(trained, trained_with_seed_1, tmp_path):
    known = domain_shift.read(trained)
    assert known is not None
    older = shutil.copytree(trained_with_seed_1, tmp_path / "older")
    (older / "typical.json").unlink()
    assert ensemble.load([trained]).info.typical == known.to_json()
    assert ensemble.load([trained, trained_with_seed_1]).info.typical == known.to_json()
    assert ensemble.load([trained, older]).info.typical is None


def prepared(hu, spacing_mm):
    """Voxels on the grid of `VARIED`."""
    return prepare_scan("study", scan_of_array(hu, spacing_mm), Grid.parse("128x128x32"), 0)


def codes(reading, known=VARIED):
    return {flag.code for flag in flags(reading.statistics, known, reading.prepared.lung_findings)}


REAL = {
    "nifti/covid/P001": set(),
    "nifti/cap/cap001": set(),
    "nifti/normal/normal001": set(),
    "more/other/lidc_0003": set(),
    "more/other/lidc_0004": set(),
    "more/other/planning_board": set(),
    "more/tumour/LUNG1-003": set(),
    "small/CIP-ct-64": {"pixel_spacing", "kernel"},  # pixels of 4.2 mm
    "small/elastix-3DCT_lung_baseline": {"voxel_size"},  # one lung
}


@pytest.fixture(scope="module")
def real():
    return {name: read_scan(real_ct.FOLDER / f"{name}.nii.gz") for name in REAL}


@pytest.fixture(scope="module")
def readings(real):
    return {name: prepared(scan.hu, scan.spacing_mm) for name, scan in real.items()}


@real_ct.needed
def test_real_chests_are_in_range_of_phantoms_of_many_scanners(readings):
    assert {name: codes(reading) for name, reading in readings.items()} == REAL


def upper_half(hu):
    return hu[len(hu) // 2 :]


def right_half(hu):
    return hu[:, :, : hu.shape[2] // 2]


@real_ct.needed
@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("nifti/normal/normal001", upper_half, "lungs_cut_off"),
        ("nifti/normal/normal001", lambda hu: hu[:-5], "lungs_cut_off"),  # 3 % of the lungs' height
        ("nifti/cap/cap001", lambda hu: hu[9:], "lungs_cut_off"),
        ("nifti/covid/P001", right_half, "lungs_cut_off"),
        ("more/other/lidc_0003", right_half, "anatomy"),
        ("more/other/lidc_0003", lambda hu: np.repeat(hu[:6], 5, axis=0), "no_lungs"),  # the abdomen
        ("more/tumour/LUNG1-003", lambda hu: hu * 0.8, "not_hu"),
        ("more/other/lidc_0004", lambda hu: hu + 100.0, "not_hu"),
    ],
)
def test_parts_of_real_chests_and_values_that_are_not_hu_are_flagged(name, change, code, real):
    scan = real[name]
    assert code in codes(prepared(change(scan.hu), scan.spacing_mm))


@real_ct.needed
def test_real_studies_are_flagged_for_contrast_alone_where_no_training_study_had_it(readings):
    """Ranges of phantoms of one scanner, with pixels twice as large."""
    pixels, blood = VARIED.ranges["pixel_mm"], VARIED.ranges["blood_hu"]
    coarse = {"pixel_mm": pixels._replace(low=1.2, high=1.8), "blood_hu": blood._replace(spread=10, low=39, high=66)}
    known = ReferenceRanges(200, VARIED.ranges | coarse)
    with_contrast = {"more/other/lidc_0003", "more/other/lidc_0004", "more/tumour/LUNG1-003"}
    for name, reading in readings.items():
        if not name.startswith("small"):
            assert codes(reading, known) == ({"contrast"} if name in with_contrast else set()), name


@real_ct.needed
def test_real_studies_of_one_centre_are_in_range_of_each_other(readings):
    found = {name: reading.statistics for name, reading in readings.items() if name.startswith("nifti")}
    for name, measured in found.items():
        others = [other for other in found if other != name]
        different = {flag.code for flag in flags(measured, reference_ranges([found[other] for other in others]))}
        assert different <= {"lung_volume"}  # patients differ more than two others tell
