"""Stored values of DICOM slices and what turns them into HU."""

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1, RLELossless

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


def left_justified(high_bit, bits_stored=12, kind="<u2"):
    def change(dataset, values, _index):
        is_signed = kind[1] == "i"
        stored(dataset, (values - 1024 * is_signed) * 16, kind)
        dataset.BitsStored, dataset.HighBit, dataset.RescaleIntercept = bits_stored, high_bit, -1024 * (not is_signed)

    return change


@pytest.mark.parametrize("kind", ["<u2", "<i2"])
def test_values_in_the_highest_bits_are_read_as_high_bit_says(tmp_path, kind):
    np.testing.assert_array_equal(read_scan(edited(tmp_path, left_justified(15, kind=kind))).hu, HU)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            left_justified(11),
            "12 bits in the highest of 16 bits (left-justified, all multiples of 16), and its HighBit",
        ),
        (left_justified(15, 16), "its values are 16 apart, as of 12 bits in the highest of 16 (left-justified)"),
    ],
)
def test_values_in_the_highest_bits_against_the_header_are_called_that(tmp_path, change, words):
    assert_refused(edited(tmp_path, change), words)


@pytest.mark.parametrize("is_declared", [False, True])
def test_an_overlay_over_much_of_the_pixels_is_read_if_declared_or_refused(tmp_path, is_declared):
    def change(dataset, values, _index):
        values[:20] |= 1 << 12
        stored(dataset, values)
        if is_declared:
            dataset.add_new((0x6002, 0x0102), "US", 12)

    if is_declared:
        np.testing.assert_array_equal(read_scan(edited(tmp_path, change)).hu, HU)
    else:
        assert_refused(edited(tmp_path, change), "25% of the pixels of a slice with more bits than BitsStored")


@pytest.mark.parametrize(("end", "words"), [(b"", "whose file is cut short"), (b"\xff\xd9", "cannot be decoded")])
def test_a_compressed_picture_that_is_cut_short_is_called_that(tmp_path, end, words):
    def change(dataset, _values, _index):
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        dataset.PixelData = encapsulate([b"\xff\xd8\xff\xc3" + bytes(40) + end])

    assert_refused(edited(tmp_path, change), words)


def test_a_compressed_file_that_is_cut_short_is_called_that(tmp_path):
    def change(dataset, values, _index):
        dataset.PixelData = values.astype("<u2").tobytes()
        dataset.compress(RLELossless)

    edited(tmp_path, change)
    file = sorted(tmp_path.iterdir())[5]
    file.write_bytes(file.read_bytes()[:-300])
    assert_refused(tmp_path, "whose file is cut short; copy the series again")


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
