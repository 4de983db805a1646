"""Scanner, kernel, contrast agent, and pseudonyms of patient and site, of the series that is read."""

import pytest

from tests.support.chest import chest, write_nifti, write_series
from tfds_mosmed.building.prepare_studies import Preparation
from tfds_mosmed.building.study import FileStudy
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.scans.acquisition import pseudonym
from tfds_mosmed.scans.read import read_scan

HU = chest()[::2, ::2, ::2]
SPACING = (16.0, 8.0, 8.0)


def acquisition(folder, **tags):
    return read_scan(write_series(folder, HU, spacing=SPACING, **tags)).acquisition


def test_a_header_tells_scanner_and_kernel_and_no_name(tmp_path):
    tags = {"Manufacturer": "SIEMENS", "ConvolutionKernel": "B31f", "InstitutionName": "Planted Clinic"}
    found = acquisition(tmp_path / "a", **tags, ManufacturerModelName="Scope")
    assert found[:1] + found[3:] == ("DICOM", "SIEMENS Scope", "B31f", "none stated")
    assert found.patient == pseudonym("patient", "PLANTED-ID")
    assert found.site == pseudonym("site", "PLANTED CLINIC")
    assert "planted" not in str(found).lower()
    again = acquisition(tmp_path / "b", InstitutionName=" planted  clinic ", PatientID="Planted-id ")
    assert (again.patient, again.site) == (found.patient, found.site)
    assert acquisition(tmp_path / "c", PatientID="OTHER", InstitutionName="").patient != found.patient
    assert acquisition(tmp_path / "d", PatientID="").patient == ""


@pytest.mark.parametrize(
    ("tags", "contrast"),
    [
        ({"ContrastBolusAgent": "Ultravist 370"}, "given"),
        ({"ContrastBolusRoute": "IV"}, "given"),
        ({"ContrastBolusAgent": "NONE", "ContrastBolusRoute": ""}, "none stated"),
        ({"Manufacturer": "GE MEDICAL SYSTEMS", "ManufacturerModelName": "GE MEDICAL SYSTEMS X"}, "none stated"),
    ],
)
def test_contrast_agent(tags, contrast, tmp_path):
    found = acquisition(tmp_path / "a", **tags)
    assert found.contrast == contrast
    assert found.scanner == tags.get("ManufacturerModelName", "")


def test_the_row_of_a_record_has_it(tmp_path):
    preparation = Preparation(Grid.parse("16x16x8"), False, {"a": 0})
    path = write_series(tmp_path / "a", HU, spacing=SPACING, ConvolutionKernel="B31f")
    row = preparation.prepare(FileStudy("a", "covid", path)).row
    assert row is not None
    assert row["acquisition"]["kernel"] == "B31f"
    assert read_scan(write_nifti(tmp_path / "b.nii", HU, SPACING)).acquisition == ("NIfTI", "", "", "", "", "")
