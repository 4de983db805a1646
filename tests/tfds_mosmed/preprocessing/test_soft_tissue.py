"""HU of fat and muscle, which tell of a wrong slope or intercept where air does not."""

import numpy as np
import pytest

from tests.support import real_ct
from tfds_mosmed.ct_phantom.generator import make_phantom
from tfds_mosmed.ct_phantom.hospital import HOSPITALS
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.lungs import LungSegmentation
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.preprocessing.soft_tissue import check_soft_tissue
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import Scan

GRIDS = (Grid.parse("16x20x10"), Grid.parse("16x20x10_full"))
WRONG = [(slope, 0) for slope in (0.8, 0.9, 1.1, 1.2, 1.3)] + [(1, offset) for offset in (-60, 60)]


def findings(hu, spacing_mm):
    """Return what is told of HU, which is the same on both kinds of grid."""
    scan = Scan(hu, tuple(spacing_mm), np.eye(4))
    one, other = ([f.message for f in prepare(scan, grid).lung_findings if f.code == "not_hu"] for grid in GRIDS)
    assert one == other
    return one


def rescaled(hu, slope, offset):
    """Return HU as of another slope, of stored values that are 0 at -1024 HU."""
    return np.rint((hu.astype(np.float32) + 1024) * slope - 1024 + offset).astype(np.int16)


@pytest.fixture(scope="module", params=["mosmed", "any", "external"])
def phantom(request):
    return make_phantom(3, "CT-1", 128, HOSPITALS[request.param])


def test_a_wrong_slope_or_intercept_is_told(phantom):
    assert findings(phantom.hu, phantom.spacing_mm) == []
    for slope, offset in WRONG:
        (line,) = findings(rescaled(phantom.hu, slope, offset), phantom.spacing_mm)
        assert line.startswith("soft tissue is ")
        assert line.endswith("check the rescale slope and intercept")


@real_ct.needed
@pytest.mark.parametrize("name", ["nifti/cap/cap001", "more/other/lidc_0003", "nifti/normal/normal001"])
def test_a_wrong_slope_of_a_real_study_is_told(name):
    """Of a thin patient without fat, one with contrast agent, and one with much fat."""
    scan = read_scan(real_ct.FOLDER / f"{name}.nii.gz")
    spacing_mm = scan.spacing_mm[0], *(2 * step for step in scan.spacing_mm[1:])
    for slope, offset in WRONG:
        assert findings(rescaled(scan.hu[:, ::2, ::2], slope, offset), spacing_mm)


def tissue(**shares):
    """Return a body of blocks of even tissue: HU as text -> share of it."""
    hu = np.repeat([float(name.replace("m", "-").lstrip("_")) for name in shares], [*shares.values()])
    return LungSegmentation(np.tile(hu[:, None, None], (1, 60, 60)).astype(np.float32), np.full(3, 3.0), None)


@pytest.mark.parametrize(
    "usual", [{"_m100": 8, "_50": 8}, {"_50": 9}, {"_5": 2, "_55": 8}, {"_m105": 5, "_60": 3, "_260": 2}]
)
def test_fat_fluid_and_contrast_agent_are_usual(usual):
    assert check_soft_tissue(tissue(**usual)) is None


def test_the_peaks_are_named():
    assert "at -8 and 158 HU most often" in (check_soft_tissue(tissue(_m8=5, _158=4)) or "")
    assert "hardly within 300 HU" in (check_soft_tissue(tissue(_362=8, _m900=2)) or "")
