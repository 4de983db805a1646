"""Stored values of DICOM slices and what turns them into HU."""

import numpy as np
import pydicom
import pytest

from tests.support.chest import chest, write_series
from tests.support.refusals import assert_refused
from tfds_mosmed.scans.read import read_scan

HU = chest()


def edited(folder, change):
    """Write the chest, each slice changed by `change(dataset, stored values, index)`."""
    write_series(folder, HU)
    for index, file in enumerate(sorted(folder.iterdir())):
        dataset = pydicom.dcmread(file)
        change(dataset, dataset.pixel_array.astype(int), index)
        dataset.save_as(file)
    return folder


def stored(dataset, values, kind="<u2"):
    dataset.PixelData = values.astype(kind).tobytes()
    dataset.PixelRepresentation = int(kind[1] == "i")


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("hu", [4000, 6000])
def test_metal_of_more_bits_than_bits_stored_is_bright(tmp_path, signed, hu):
    def change(dataset, values, index):
        if index in (9, 10):
            values[40:46, 40:46] = hu + 1024
        stored(dataset, values - 1024 if signed else values, "<i2" if signed else "<u2")
        dataset.RescaleIntercept = 0 if signed else -1024

    expected = HU.copy()
    expected[9:11, 40:46, 40:46] = hu
    np.testing.assert_array_equal(read_scan(edited(tmp_path, change)).hu, expected)


def test_a_sign_that_is_not_extended_is_one(tmp_path):
    def change(dataset, values, _index):
        stored(dataset, (values - 1024) & 0xFFF, "<i2")
        dataset.RescaleIntercept = 0

    np.testing.assert_array_equal(read_scan(edited(tmp_path, change)).hu, HU)


@pytest.mark.parametrize("value", [32767, 32768, 65535, 4095])
def test_padding_that_no_attribute_declares_is_told(tmp_path, value):
    def change(dataset, values, _index):
        values[[0, -1]] = value
        stored(dataset, values)
        dataset.BitsStored, dataset.HighBit = 16, 15

    lines = read_scan(edited(tmp_path, change)).warnings
    assert any("HU, which is no air: fill it with -1024" in line for line in lines)


def replaced(**tags):
    def change(dataset, _values, _index):
        for name, value in tags.items():
            if value is None:
                delattr(dataset, name)
            else:
                dataset.add(pydicom.DataElement(name, "LO", value))

    return change


def with_lut(dataset, _values, _index):
    del dataset.RescaleSlope, dataset.RescaleIntercept
    dataset.ModalityLUTSequence = [pydicom.Dataset()]
    dataset.ModalityLUTSequence[0].ModalityLUTType = "HU"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_lut, "28 with ModalityLUTSequence in place of RescaleSlope and RescaleIntercept"),
        (replaced(RescaleSlope="1,0"), "28 with RescaleSlope that is not 1 number (with a decimal point"),
        (replaced(RescaleIntercept="nan"), "28 with RescaleIntercept that is not 1 number"),
        (replaced(ImagePositionPatient=["1", "2", "inf"]), "28 with ImagePositionPatient that is not 3 numbers"),
        (replaced(RescaleType="OD"), "maps that are not in HU, as their RescaleType says; give the original series"),
    ],
    ids=["LUT", "comma", "nan", "inf", "density"],
)
def test_what_is_wrong_with_the_rescale_is_named(tmp_path, change, words):
    assert_refused(edited(tmp_path, change), words)
