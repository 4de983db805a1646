"""Slices of one SeriesInstanceUID that differ in an attribute, and still are one stack."""

import numpy as np
import pytest

from tests.support.chest import dicom_slice, thin_chest
from tfds_mosmed.scans.read import read_scan

HU = thin_chest()
THIN = (4.0, 4.0, 4.0)


@pytest.mark.parametrize("tag", ["AcquisitionNumber", "KVP", "SliceThickness", "AcquisitionTime"])
def test_an_attribute_that_changes_without_order_does_not_part_a_series(tmp_path, tag):
    """As with a dose that changes, or values that an anonymiser drew: the parts are no stacks of even slices."""
    values = np.random.default_rng(0).integers(1, 3, len(HU))
    assert min(np.bincount(values)[1:]) >= 8
    for index, (plane, value) in enumerate(zip(HU, values, strict=True)):
        text = f"10000{value}" if tag == "AcquisitionTime" else int(value)
        dicom_slice(plane, index, THIN, **{tag: text}).save_as(tmp_path / f"{index}.dcm", enforce_file_format=True)
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.hu, HU)
    told = "the slices differ in KVP (" if tag == "KVP" else ""  # which is the same throughout a scan
    assert [line[: len(told)] for line in scan.warnings] == [told] * bool(told)
