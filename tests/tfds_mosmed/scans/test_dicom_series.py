"""Series of DICOM studies as scanners, workstations and anonymisers really write them."""

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from tests.support.chest import chest, dicom_slice, thin_chest, write_series
from tests.support.dicom_files import compressed_frame, write_multi_frame
from tests.support.refusals import assert_refused
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import ScanError

HU = chest()
THIN = (4.0, 4.0, 4.0)
THIN_HU = thin_chest()


def assert_reads(folder, hu, *warnings):
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.hu, hu)
    for words in warnings:
        assert words in "\n".join(scan.warnings)
    return scan


def edit(folder, change, keep=lambda index: True):
    for index, file in enumerate(sorted(folder.iterdir())):
        if keep(index):
            dataset = pydicom.dcmread(file)
            change(dataset)
            dataset.save_as(file)
    return folder


def write_colour(folder, hu, **tags):
    folder.mkdir()
    for index, plane in enumerate(hu):
        dataset = dicom_slice(plane, index, series="1.2.3.0", **tags)
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = bytes(3 * plane.size)
        dataset.save_as(folder / f"{index}.dcm", enforce_file_format=True)


def test_a_grey_series_is_used_beside_a_coloured_one(tmp_path):
    write_series(tmp_path / "grey", THIN_HU, spacing=THIN)
    write_colour(tmp_path / "colour", HU)
    assert_reads(tmp_path, THIN_HU, "28 in colour")
    assert_refused(tmp_path / "colour", "28 in colour")


def test_a_series_as_long_is_used_if_the_preferred_one_cannot_be_read(tmp_path):
    write_series(tmp_path / "a", HU)
    (tmp_path / "a/004.dcm").write_bytes((tmp_path / "a/004.dcm").read_bytes()[:-3000])
    write_series(tmp_path / "part", HU[:9], series="1.2.3.0")
    assert_refused(tmp_path, "cut short")
    write_series(tmp_path / "b", THIN_HU, series="1.2.3.2", spacing=THIN)
    assert_reads(tmp_path, THIN_HU, "a preferred series cannot be used: it has a slice whose file is cut short")


STACKS = [
    {"AcquisitionNumber": 2},
    {"ConvolutionKernel": "YB"},
    {"ContrastBolusAgent": "CONTRAST"},
    {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "OTHER"]},
    {"KVP": 140},
    {"AcquisitionTime": "111213"},
    {"SeriesDescription": "late"},
    {"ContrastBolusRoute": "IV"},
    {"IrradiationEventUID": "1.2.7"},
    {"PatientPosition": "FFS"},
    {"XRayTubeCurrent": 30},
]


@pytest.mark.parametrize("shift", [0, 0.5])
@pytest.mark.parametrize("tags", STACKS, ids=lambda tags: next(iter(tags)))
def test_two_stacks_under_one_series_uid_are_parted(tmp_path, tags, shift):
    names = [f"{number}.dcm" for number in np.random.default_rng(0).permutation(2 * len(HU))]
    base = {"AcquisitionNumber": 1, "ConvolutionKernel": "B30f", "KVP": 120, "AcquisitionTime": "101112"}
    write_series(tmp_path, HU, names[: len(HU)], **base)
    for index, plane in enumerate(HU):
        dicom_slice(plane + 200, index + shift, **{**base, **tags}).save_as(
            tmp_path / names[len(HU) + index], enforce_file_format=True
        )
    scan = read_scan(tmp_path)
    assert any(np.array_equal(scan.hu, hu) for hu in (HU, HU + 200))
    assert any("2 series" in line for line in scan.warnings)
    assert any(f"differ in {next(iter(tags))}" in line for line in scan.warnings)


@pytest.mark.parametrize("name", ["StackID", "TemporalPositionIndex"])
def test_enhanced_frames_of_two_stacks_are_parted(tmp_path, name):
    both = np.repeat(HU, 2, axis=0)
    both[1::2] += 200
    file = write_multi_frame(tmp_path / "P.dcm", both)
    dataset = pydicom.dcmread(file)
    for index, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        content = pydicom.Dataset()
        setattr(content, name, str(index % 2) if name == "StackID" else index % 2 + 1)
        frame.FrameContentSequence = [content]
        frame.PlanePositionSequence[0].ImagePositionPatient = [-100, -120, -300 + 8 * (index // 2)]
    dataset.save_as(file)
    scan = read_scan(file)
    assert any(np.array_equal(scan.hu, hu) for hu in (HU, HU + 200))
    assert any(f"differ in {name}" in line for line in scan.warnings)


def test_different_pictures_at_one_position_are_refused(tmp_path):
    write_series(tmp_path, HU)
    for index in (3, 9):
        dicom_slice(HU[index] + 1, index).save_as(tmp_path / f"other{index}.dcm", enforce_file_format=True)
    assert_refused(tmp_path, "different pictures at the same position")


@pytest.mark.parametrize("number", [lambda index: index, lambda index: index // 4, lambda index: index // 14])
def test_turns_of_the_tube_one_above_the_other_stay_one_series(tmp_path, number):
    write_series(tmp_path, HU)
    for index, file in enumerate(sorted(tmp_path.iterdir())):
        dataset = pydicom.dcmread(file)
        dataset.AcquisitionNumber = number(index)
        dataset.save_as(file)
    assert assert_reads(tmp_path, HU).warnings == ()


def test_attributes_that_a_few_slices_lack_do_not_part_a_series(tmp_path):
    edit(write_series(tmp_path / "P", HU), lambda one: setattr(one, "ConvolutionKernel", "B30f"), lambda i: i % 9)
    assert assert_reads(tmp_path / "P", HU).warnings == ()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("PixelSpacing", ([4, 4], [4.0001, 3.9999], [4.004, 4.004])),
        (
            "ImageOrientationPatient",
            ([1, 0, 0, 0, 1, 0], [1, 0, 0.0005, 0, 1, 0.0006], [0.9999, 0.004, 0, -0.004, 1, 0]),
        ),
    ],
)
def test_decimals_rounded_differently_do_not_part_a_series(tmp_path, name, values):
    write_series(tmp_path / "P", HU)
    for number, value in enumerate(values):
        edit(tmp_path / "P", lambda one, value=value: setattr(one, name, value), lambda i, n=number: i % 3 == n)
    assert assert_reads(tmp_path / "P", HU).warnings == ()


@pytest.mark.parametrize(
    ("stored", "representation", "padding", "limit"),
    [
        (63536, 0, 63536, None),
        (63536, 0, 63536, 65535),
        (-2000, 1, -2000, None),
        (0, 0, 0, None),
        (30000, 1, 30000, None),
    ],
)
@pytest.mark.parametrize("bits", [16, 12])
def test_padding_is_air(tmp_path, stored, representation, padding, limit, bits):
    folder = write_series(tmp_path / "P", HU)

    def pad(dataset):
        pixels = dataset.pixel_array.astype(np.int32)
        pixels[:5] = stored
        dataset.PixelData = pixels.astype(np.uint16).tobytes()
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, representation
        kind = "SS" if representation else "US"
        dataset.add_new("PixelPaddingValue", kind, padding)
        if limit is not None:
            dataset.add_new("PixelPaddingRangeLimit", kind, limit)

    edit(folder, pad)
    if representation and bits == 12:
        return  # 4095 does not fit into 12 signed bits
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.hu[:, 5:], HU[:, 5:])
    assert (scan.hu[:, :5] <= -1024).all()


def test_a_value_amid_tissue_declared_as_padding_stays(tmp_path):
    edit(write_series(tmp_path / "P", HU), lambda one: one.add_new("PixelPaddingValue", "US", 1064))
    assert_reads(tmp_path / "P", HU)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless])
def test_bits_above_bits_stored_are_not_part_of_the_value(tmp_path, syntax):
    folder = write_series(tmp_path / "P", HU)

    def overlay(dataset):
        pixels = dataset.pixel_array.copy()
        pixels[10:20, 10:20] |= 0xF000
        dataset.PixelData = pixels.tobytes()
        if syntax == JPEG2000Lossless:
            dataset.file_meta.TransferSyntaxUID = syntax
            dataset.PixelData = encapsulate([compressed_frame(pixels, syntax, 16)])

    assert_reads(edit(folder, overlay), HU)


def test_a_slice_without_rescale_among_others_is_refused(tmp_path):
    def strip(dataset):
        del dataset.RescaleIntercept

    edit(write_series(tmp_path / "P", HU), strip, lambda index: index == 5)
    assert_refused(tmp_path / "P", "1 of 28 slices without RescaleSlope and RescaleIntercept")


@pytest.mark.parametrize("suffix", [".dcm", "", ".1"])
def test_files_without_preamble_or_without_meta_header_are_read(tmp_path, suffix):
    for kind in ("no_preamble", "no_meta", "neither"):
        folder = tmp_path / kind
        write_series(folder, HU, [f"{index:03d}{suffix}" for index in range(len(HU))])
        for file in folder.iterdir():
            content = file.read_bytes()
            meta_length = 12 + int.from_bytes(content[140:144], "little")
            after_meta = content[132 + meta_length :]
            file.write_bytes(
                {"no_preamble": content[132:], "no_meta": content[:132] + after_meta, "neither": after_meta}[kind]
            )
        assert assert_reads(folder, HU).warnings == ()


def remove(name):
    return lambda dataset: delattr(dataset, name)


def with_commas(dataset):
    dataset.add(pydicom.DataElement("ImagePositionPatient", "LO", ["-100,0", "-120,0", "3,5"]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove("ImagePositionPatient"), "28 without ImagePositionPatient"),
        (remove("ImageOrientationPatient"), "28 without ImageOrientationPatient"),
        (remove("PixelSpacing"), "28 without PixelSpacing"),
        (remove("Modality"), "28 without Modality"),
        (lambda one: setattr(one, "ImagePositionPatient", None), "28 without ImagePositionPatient"),
        (
            lambda one: setattr(one, "ImagePositionPatient", [0, 0, 0]),
            "28 slices with one and the same ImagePositionPat",
        ),
        (lambda one: setattr(one, "Modality", "MR"), "28 of another modality than CT"),
        (with_commas, "28 with ImagePositionPatient that is not 3 numbers"),
    ],
)
def test_names_what_the_slices_lack(tmp_path, change, words):
    assert_refused(edit(write_series(tmp_path / "P", HU), change), words)


def test_names_what_other_files_lack(tmp_path):
    write_multi_frame(tmp_path / "bare.dcm", HU)
    dataset = pydicom.dcmread(tmp_path / "bare.dcm")
    del dataset.PerFrameFunctionalGroupsSequence
    dataset.save_as(tmp_path / "bare.dcm")
    assert_refused(tmp_path / "bare.dcm", "28 frames and 0 positions (PerFrameFunctionalGroupsSequence)")
    write_multi_frame(tmp_path / "bare.dcm", HU)
    dataset = pydicom.dcmread(tmp_path / "bare.dcm")
    del dataset.NumberOfFrames
    dataset.save_as(tmp_path / "bare.dcm")
    assert_refused(tmp_path / "bare.dcm", "1 frames and 28 positions (PerFrameFunctionalGroupsSequence)")
    (tmp_path / "a.7z").write_bytes(b"7z")
    assert_refused(tmp_path / "a.7z", "1 .7z that must be unpacked")


@pytest.mark.parametrize("steps", [(8, 4), (4, 8), (1, 1.5), (5, 2)])
def test_a_distance_that_changes_is_named(tmp_path, steps):
    heights = np.cumsum(np.repeat(steps, 14))
    tmp_path.joinpath("P").mkdir()
    for index, height in enumerate(heights):
        dataset = dicom_slice(HU[index], 0)
        dataset.ImagePositionPatient = [-100, -120, float(height)]
        dataset.save_as(tmp_path / f"P/{index}.dcm", enforce_file_format=True)
    assert_refused(tmp_path / "P", f"whose distance changes ({steps[0]} mm, then {steps[1]} mm)")


@pytest.mark.parametrize(
    "name_and_values",
    [
        ("PatientID", "PLANTED-1", "PLANTED-2"),
        ("PatientBirthDate", "19600101", "19610101"),
        ("PatientSex", "F", "M"),
    ],
    ids=lambda one: one[0],
)
@pytest.mark.parametrize("series", ["1.2.3.1", "1.2.3.2"])
@pytest.mark.parametrize("place", [0, 0.5, len(HU)], ids=["same", "between", "above"])
def test_slices_of_two_patients_are_refused_without_their_data(tmp_path, name_and_values, series, place):
    name, one, other = name_and_values
    write_series(tmp_path / "P", HU[:10], FrameOfReferenceUID="1.5", **{name: one})
    for index, plane in enumerate(HU[:10]):
        tags = {"FrameOfReferenceUID": "1.5", name: other}
        dicom_slice(plane, index + place, series=series, **tags).save_as(
            tmp_path / f"P/b{index}.dcm", enforce_file_format=True
        )
    assert_refused(tmp_path / "P", f"holds slices of 2 patients ({name} differs)", "a folder of its own")
    with pytest.raises(ScanError) as error:
        read_scan(tmp_path / "P")
    assert one not in str(error.value)
    assert other not in str(error.value)


def test_without_patient_ids_names_part_patients_and_spellings_are_one_patient(tmp_path):
    def change(**tags):
        return lambda one: one.update(tags)

    folder = edit(
        write_series(tmp_path / "P", HU), change(PatientID=" planted-id", PatientName="PLANTED^N"), lambda i: i % 2
    )
    edit(folder, change(PatientID="", PatientName="Planted Name"), lambda i: i > 20)
    assert_refused(folder, "2 patients (PatientName differs)")
    edit(folder, change(PatientName="Planted^NAME"))
    assert assert_reads(folder, HU).warnings == ()


def test_a_series_uid_for_each_slice_is_one_series(tmp_path):
    for index, plane in enumerate(HU):
        dicom_slice(plane, index, series=f"1.2.3.{index}").save_as(tmp_path / f"{index}", enforce_file_format=True)
    assert assert_reads(tmp_path, HU).warnings == ()
    edit(tmp_path, lambda one: setattr(one, "StudyInstanceUID", one.SeriesInstanceUID))
    assert_refused(tmp_path, "has another StudyInstanceUID in each of its 28 slices")
    edit(tmp_path, lambda one: one.update({"PatientID": one.StudyInstanceUID, "StudyInstanceUID": "1.2.3"}))
    assert_refused(tmp_path, "has another PatientID in each of its 28 slices")
    edit(tmp_path, lambda one: one.update({"PatientID": "", "StudyInstanceUID": ""}), lambda i: i % 2)
    edit(tmp_path, lambda one: setattr(one, "PatientID", ""))
    assert assert_reads(tmp_path, HU).warnings == ()


def test_a_chest_in_two_series_is_joined_if_they_fit_and_named_if_not(tmp_path):
    for name, uids in (("same", ("1.5", "1.5")), ("other", ("1.5", "1.6"))):
        write_series(tmp_path / name, HU, FrameOfReferenceUID=uids[0])
        edit(
            tmp_path / name,
            lambda one, uid=uids[1]: one.update({"SeriesInstanceUID": "1.2.3.9", "FrameOfReferenceUID": uid}),
            lambda i: i > 12,
        )
    joined = ("2 series one above the other were joined, as their geometry fits",)
    assert assert_reads(tmp_path / "same", HU).warnings == joined
    scan = read_scan(tmp_path / "other")
    assert any("another series continues this one" in line for line in scan.warnings)
