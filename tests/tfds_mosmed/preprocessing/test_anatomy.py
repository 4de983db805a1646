"""Arrays whose axes are not those that their affine says, and two scans in one file."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from tests.support import real_ct
from tests.support.chest import write_series
from tfds_mosmed.ct_phantom.generator import make_phantom
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import Scan

GRIDS = (Grid.parse("16x20x10"), Grid.parse("16x20x10_full"))
CATEGORIES = ("CT-0", "CT-1", "CT-2", "CT-3", "CT-4")
UPSIDE_DOWN, FRONT_TO_BACK = "the lungs taper towards the feet", "the spine seems to be in front"
EXCHANGED, ORDER, TWO = "the body is deeper than wide", "its slices seem not to be axial", "lungs above lungs"
TURNED = "the body is turned by {} degrees in its slices"
DISTANCE, MIRRORED = "the distance of the slices may be wrong", "heart and aorta seem to lie on the right"
ISOTROPIC_MM = 3.0


def signs(hu, spacing_mm):
    """Return the begin of each warning, which are the same on both kinds of grid."""
    scan = Scan(hu, tuple(spacing_mm), np.eye(4))
    prepared = [prepare(scan, grid) for grid in GRIDS]
    codes = [[one.message for one in each.lung_findings if one.code in ("anatomy", "not_hu")] for each in prepared]
    assert codes[0] == codes[1]
    assert set(codes[0]) <= set(prepared[0].warnings)
    return [DISTANCE if DISTANCE in line else line.split(":")[0] for line in codes[0]]


@pytest.fixture(scope="module", params=range(5))
def phantom(request):
    return make_phantom(request.param, CATEGORIES[request.param], 96)


def permutations(hu, spacing_mm):
    for order in itertools.permutations(range(3)):
        if order != (0, 1, 2):
            yield order, signs(hu.transpose(order), [spacing_mm[axis] for axis in order])


def assert_found_in_every_flip_and_permutation(hu, spacing_mm):
    assert signs(hu, spacing_mm) == []
    assert signs(hu[..., ::-1], spacing_mm) in ([], [MIRRORED])
    assert signs(hu[::-1], spacing_mm) == [UPSIDE_DOWN]
    assert signs(hu[:, ::-1], spacing_mm) == [FRONT_TO_BACK]
    assert signs(hu[::-1, ::-1], spacing_mm) == [UPSIDE_DOWN, FRONT_TO_BACK]
    assert dict(permutations(hu, spacing_mm)) == {
        (0, 2, 1): [EXCHANGED],
        **{order: [ORDER] for order in ((1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))},
    }


def test_flips_and_permutations_of_phantoms_are_told(phantom):
    assert_found_in_every_flip_and_permutation(phantom.hu, phantom.spacing_mm)


@real_ct.needed
@pytest.mark.parametrize("name", ["covid/P001", "cap/cap001", "normal/normal001"])
def test_flips_and_permutations_of_real_studies_are_told(name):
    scan = read_scan(real_ct.FOLDER / f"nifti/{name}.nii.gz")
    assert_found_in_every_flip_and_permutation(scan.hu, scan.spacing_mm)


def test_a_mirrored_chest_is_told_if_heart_and_aorta_lie_on_one_side():
    phantom = make_phantom(5, "CT-0", 96)
    assert signs(phantom.hu, phantom.spacing_mm) == []
    assert signs(phantom.hu[..., ::-1], phantom.spacing_mm) == [MIRRORED]


def turned(hu, degrees):
    return ndimage.rotate(hu, degrees, axes=(2, 1), reshape=False, order=1, cval=-1024)


def assert_a_rotation_is_told(hu, spacing_mm):
    for degrees in (-35, 30):
        (line,) = signs(turned(hu, degrees), spacing_mm)
        assert line in {TURNED.format(abs(degrees) + error) for error in range(-9, 10)}


def test_slices_that_were_rotated_are_told(phantom):
    assert_a_rotation_is_told(phantom.hu, phantom.spacing_mm)


@real_ct.needed
def test_real_studies_that_were_rotated_are_told():
    for name in ("covid/P001", "normal/normal001"):
        scan = read_scan(real_ct.FOLDER / f"nifti/{name}.nii.gz")
        assert_a_rotation_is_told(
            scan.hu[:, ::2, ::2], [scan.spacing_mm[0], *(2 * step for step in scan.spacing_mm[1:])]
        )


@real_ct.needed
def test_mirrored_real_studies_are_told():
    names = ("nifti/normal/normal001", "more/other/lidc_0004", "more/tumour/LUNG1-003")
    for scan in (read_scan(real_ct.FOLDER / f"{name}.nii.gz") for name in names):
        assert signs(scan.hu[..., ::-1], scan.spacing_mm) == [MIRRORED]


@real_ct.needed
def test_nothing_is_told_of_real_studies():
    paths = [*sorted(real_ct.FOLDER.rglob("*.nii.gz")), real_ct.FOLDER / "dicom/P001"]
    assert len(paths) > 2
    for path in paths:
        scan = read_scan(path)
        assert signs(scan.hu, scan.spacing_mm) == [], path


@pytest.mark.parametrize("seed", range(100, 112))
def test_nothing_is_told_of_phantoms_and_of_parts_of_them(seed):
    phantom = make_phantom(seed, CATEGORIES[seed % 5], 96)
    slices = len(phantom.hu)
    for part in (slice(None), slice(slices // 3, None), slice(0, slices // 2), slice(slices // 4, 3 * slices // 4)):
        assert signs(phantom.hu[part], phantom.spacing_mm) == []


def test_two_short_scans_one_above_the_other_are_told(phantom):
    lungs = np.flatnonzero(phantom.lung_mask.any(axis=(1, 2)))
    short = phantom.hu[max(0, lungs[0] - 1) : lungs[-1] + 2]
    other = make_phantom(9, "CT-0", 96).hu[::2]
    two = np.concatenate([short, short])[: int(500 / phantom.spacing_mm[0])]
    assert signs(two, phantom.spacing_mm) == [TWO]
    assert TWO in signs(np.concatenate([short, other]), phantom.spacing_mm)


def test_prone_and_feet_first_series_are_read_by_their_headers(tmp_path, phantom):
    # Prone: the rows of the pictures run from back to front, and the columns from left to right.
    prone = write_series(tmp_path / "a", phantom.hu[:, ::-1, ::-1], spacing=phantom.spacing_mm,
                         ImageOrientationPatient=[-1, 0, 0, 0, -1, 0], PatientPosition="HFP")  # fmt: skip
    scan = read_scan(prone)
    assert signs(scan.hu, scan.spacing_mm) == []
    feet_first = write_series(tmp_path / "b", phantom.hu[..., ::-1], spacing=phantom.spacing_mm,
                              ImageOrientationPatient=[-1, 0, 0, 0, 1, 0], PatientPosition="FFS")  # fmt: skip
    scan = read_scan(feet_first)
    assert signs(scan.hu, scan.spacing_mm) == []


def test_an_isotropic_array_in_another_order_with_a_plausible_affine_is_told(tmp_path, phantom):
    """Saved as (z, y, x) or upside down with the affine of (x, y, z), as after a detour through another library."""
    planes = np.rint(np.arange(0, len(phantom.hu) - 1, ISOTROPIC_MM / phantom.spacing_mm[0])).astype(int)
    step = max(1, round(ISOTROPIC_MM / phantom.spacing_mm[1]))
    hu = phantom.hu[planes][:, ::step, ::step]
    affine = np.diag([-phantom.spacing_mm[2] * step, phantom.spacing_mm[1] * step, ISOTROPIC_MM, 1])
    las = hu[:, ::-1].transpose(2, 1, 0)

    def told(voxels):
        nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "a.nii")
        scan = read_scan(tmp_path / "a.nii")
        return signs(scan.hu, scan.spacing_mm)

    assert told(las) == []
    assert told(las.transpose(2, 1, 0)) == [ORDER]
    assert told(las.transpose(1, 0, 2)) == [EXCHANGED]
    assert told(las[:, :, ::-1]) == [UPSIDE_DOWN]
    assert told(las[:, ::-1]) == [FRONT_TO_BACK]


def test_lungs_that_are_too_short_or_too_high_are_told(phantom):
    """Every second slice was kept with the distance of all, and the other way round; a part of a scan is short."""
    assert signs(phantom.hu[::3], phantom.spacing_mm) == [DISTANCE]
    assert signs(phantom.hu.repeat(2, axis=0), phantom.spacing_mm) == [DISTANCE]
    middle = len(phantom.hu) // 2
    assert signs(phantom.hu[middle - 5 : middle + 5], phantom.spacing_mm) == []


def test_a_lung_that_ends_far_above_the_other_is_no_sign_of_a_flip():
    hu, spacing_mm = (phantom := make_phantom(2, "CT-0", 96)).hu.copy(), phantom.spacing_mm
    lungs = np.flatnonzero(phantom.lung_mask.any(axis=(1, 2)))
    base = hu[: lungs[0] + len(lungs) // 3, :, hu.shape[2] // 2 :]
    base[base < 0] = 30
    assert signs(hu, spacing_mm) == []
    assert signs(hu[::-1], spacing_mm) == [UPSIDE_DOWN]
