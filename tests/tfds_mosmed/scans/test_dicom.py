import numpy as np
import pydicom
import pytest
from pydicom.uid import UID

from covidscan.prediction.reading import Reading, read_prepared
from tests.support import real_ct
from tests.support.chest import SPACING_MM, chest, dicom_slice, thin_chest, write_series
from tests.support.dicom_files import COMPRESSED, UNCOMPRESSED, write_multi_frame, write_slices
from tests.support.refusals import assert_refused
from tfds_mosmed.building.study import FileStudy
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.lungs import first_with_lungs
from tfds_mosmed.scans.find import Found
from tfds_mosmed.scans.read import read_scan

HU = chest()


def test_reads_a_series_whose_file_order_is_not_slice_order(tmp_path):
    names = [f"{number:03d}.dcm" for number in np.random.default_rng(0).permutation(len(HU))]
    scan = read_scan(write_series(tmp_path / "P001", HU, names))
    np.testing.assert_array_equal(scan.hu, HU)
    assert scan.spacing_mm == SPACING_MM
    assert scan.warnings == ()
    # DICOM's left and back are NIfTI's minus right and minus front.
    np.testing.assert_allclose(scan.affine @ [0, 0, 0, 1], [100, 120, -300, 1])
    np.testing.assert_allclose(scan.affine @ [1, 1, 1, 1], [96, 116, -292, 1])


def test_reversed_slice_order_and_files_without_suffix_give_the_same(tmp_path):
    names = [f"IM{len(HU) - index:04d}" for index in range(len(HU))]
    np.testing.assert_array_equal(read_scan(write_series(tmp_path / "P001", HU, names)).hu, HU)


def test_a_patient_on_the_belly_is_turned(tmp_path):
    """Prone: rows from back to front, columns from the patient's left to the right."""
    folder = tmp_path / "P001"
    write_series(folder, HU[:, ::-1, ::-1])
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
        dataset.save_as(file)
    np.testing.assert_array_equal(read_scan(folder).hu, HU)


def test_uses_duplicates_once_and_warns(tmp_path):
    folder = write_series(tmp_path / "P001", HU)
    for index in (3, 7):
        dicom_slice(HU[index], index).save_as(folder / f"again_{index}.dcm", enforce_file_format=True)
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.hu, HU)
    assert scan.warnings == ("2 duplicate slices: each position was used once",)


def test_a_missing_slice_keeps_the_others_in_place(tmp_path):
    folder = write_series(tmp_path / "P001", HU)
    (folder / "010.dcm").unlink()
    scan = read_scan(folder)
    expected = HU.copy()
    expected[10] = HU[9]
    np.testing.assert_array_equal(scan.hu, expected)
    assert scan.warnings == ("1 of 28 slices are missing: each repeats the one before it",)
    assert scan.spacing_mm == SPACING_MM


def test_refuses_a_series_with_many_missing_slices(tmp_path):
    folder = write_series(tmp_path / "P001", HU)
    for index in range(5, 20, 3):
        (folder / f"{index:03d}.dcm").unlink()
    assert_refused(folder, "lacks 5 of 28 slices", "copy the series again")


def test_refuses_slices_at_uneven_distances(tmp_path):
    folder = tmp_path / "P001"
    folder.mkdir()
    for index, plane in enumerate(HU):
        dicom_slice(plane, index + (0.5 if index % 3 == 1 else 0)).save_as(
            folder / f"{index}.dcm", enforce_file_format=True
        )
    assert_refused(folder, "uneven distances")


def test_chooses_the_soft_axial_series_that_covers_the_chest_and_warns(tmp_path):
    folder = tmp_path / "P001"
    write_series(folder / "a_sharp", HU + 1, series="1.2.3.1", ConvolutionKernel="LUNG")
    write_series(folder / "b_soft", HU, series="1.2.3.2", ConvolutionKernel="STANDARD")
    write_series(folder / "c_part", HU[:9], series="1.2.3.0", ConvolutionKernel="STANDARD")
    localizer = dicom_slice(HU[:, :, 40], 0, series="1.2.3.4", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    localizer.save_as(folder / "localizer.dcm", enforce_file_format=True)
    (folder / "notes.txt").write_text("not a slice")
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.hu, HU)
    assert scan.warnings == (
        "ignored 2 files that are not CT slices (1 localizer, 1 not in DICOM format)",
        "3 series: used the one of 28 axial slices, 8 mm apart, kernel STANDARD (a soft kernel)",
    )


def test_prefers_slices_as_thick_as_mosmeddatas(tmp_path):
    folder = tmp_path / "P001"
    write_series(folder, HU[:, ::2, ::2].repeat(4, axis=0), [f"thin{n}" for n in range(112)], spacing=(2.0, 8.0, 8.0))
    write_series(folder, HU, series="1.2.3.2")
    np.testing.assert_array_equal(read_scan(folder).hu, HU)


def test_refuses_a_folder_with_two_studies(tmp_path):
    write_series(tmp_path / "P001" / "one", HU)
    write_series(tmp_path / "P001" / "two", HU, StudyInstanceUID="4.5.6")
    assert_refused(tmp_path / "P001", "2 studies", "a folder of its own")


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, *COMPRESSED], ids=lambda syntax: UID(syntax).keyword)
def test_reads_every_transfer_syntax_as_a_series_and_as_a_multi_frame_file(tmp_path, syntax):
    order = np.random.default_rng(1).permutation(len(HU))
    for path in (
        write_slices(tmp_path / "series", HU, syntax),
        write_multi_frame(tmp_path / "enhanced.dcm", HU, syntax, order=order),
    ):
        scan = read_scan(path)
        np.testing.assert_array_equal(scan.hu, HU)
        assert scan.spacing_mm == SPACING_MM
        assert scan.warnings == ()


def test_ignores_sagittal_slices_and_those_without_a_position(tmp_path):
    folder = write_series(tmp_path / "P001", HU)
    for index in range(40):
        sagittal = dicom_slice(HU[::-1, :, index], 0, series="1.2.3.2", PixelSpacing=[8, 4])
        sagittal.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        sagittal.ImagePositionPatient = [-100.0 + index * 4, -120.0, -84.0]
        sagittal.save_as(folder / f"sagittal{index}.dcm", enforce_file_format=True)
    nowhere = dicom_slice(HU[0], 0)
    del nowhere.ImagePositionPatient
    nowhere.save_as(folder / "nowhere.dcm", enforce_file_format=True)
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.hu, HU)
    assert scan.warnings == (
        "1 of 29 slices of the series cannot be used (1 without ImagePositionPatient)",
        "2 series: used the one of 28 axial slices, 8 mm apart (the only one of axial slices)",
    )


def test_prefers_thick_soft_slices_to_thin_sharp_ones(tmp_path):
    thin = HU[:, ::2, ::2].repeat(8, axis=0)
    write_series(tmp_path / "P001/a", thin, series="1.2.3.1", spacing=(1.0, 8.0, 8.0), ConvolutionKernel="B70f")
    write_series(tmp_path / "P001/b", HU, series="1.2.3.2", ConvolutionKernel=["Br40f", "3"])
    scan = read_scan(tmp_path / "P001")
    np.testing.assert_array_equal(scan.hu, HU)
    assert scan.warnings == ("2 series: used the one of 28 axial slices, 8 mm apart, kernel Br40f (a soft kernel)",)


def test_warns_of_a_tilted_gantry(tmp_path):
    """The table moves along the body and the slices are tilted: the distance is the table's, rows have the angle."""
    angle = np.radians(15)
    folder = write_series(tmp_path / "P001", HU)
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.ImageOrientationPatient = [1, 0, 0, 0, float(np.cos(angle).round(6)), float(np.sin(angle).round(6))]
        dataset.save_as(file)
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.hu, HU)
    assert scan.spacing_mm == pytest.approx(SPACING_MM)
    assert scan.warnings == ("oblique by 15 degrees: read as if its axes were the scanner's",)
    np.testing.assert_allclose(scan.affine @ [1, 0, 0, 1] - scan.affine @ [0, 0, 0, 1], [0, 0, 8, 0], atol=1e-6)


def test_hidden_files_are_skipped(tmp_path):
    folder = write_series(tmp_path / "P001", HU)
    dicom_slice(HU[3] + 1, 3).save_as(folder / ".hidden.dcm", enforce_file_format=True)
    dicom_slice(HU[3] + 1, 3).save_as(folder / "._003.dcm", enforce_file_format=True)
    write_series(folder / ".cache", HU + 1)
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.hu, HU)
    assert scan.warnings == ()


def test_refuses_paths_without_a_ct_series(tmp_path):
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", "holds no CT slice", ".nii.gz")
    assert_refused(tmp_path / "gone", "does not exist")
    write_series(tmp_path / "mr", HU, Modality="MR")
    assert_refused(tmp_path / "mr", "holds no CT slice")
    write_series(tmp_path / "few", HU[:5])
    assert_refused(tmp_path / "few", "no series of 8 or more axial slices", "has 5")
    (tmp_path / "text.dcm").write_text("not DICOM")
    assert_refused(tmp_path / "text.dcm", "holds no CT slice")


def test_refuses_damaged_slices(tmp_path):
    cut = write_series(tmp_path / "cut", HU)
    (cut / "004.dcm").write_bytes((cut / "004.dcm").read_bytes()[:-3000])
    assert_refused(cut, "cut short", "copy the series again")
    huge = write_series(tmp_path / "huge", HU, NumberOfFrames=2_000_000_000)
    assert_refused(huge, "declares 2000000000 x 80 x 96 voxels")
    no_slope = write_series(tmp_path / "raw", HU)
    for file in no_slope.iterdir():
        dataset = pydicom.dcmread(file)
        del dataset.RescaleSlope, dataset.RescaleIntercept
        dataset.save_as(file)
    assert_refused(no_slope, "not in Hounsfield units", "rescale intercept")
    flat = write_series(tmp_path / "flat", HU, PixelSpacing=[0, 0])
    assert_refused(flat, "voxels of 8 x 0 x 0 mm")


@real_ct.needed
def test_real_jpeg_lossless_series_equals_its_nifti():
    root = real_ct.FOLDER
    dicom, nifti = read_scan(root / "dicom/P001"), read_scan(root / "nifti/covid/P001.nii.gz")
    np.testing.assert_array_equal(dicom.hu, nifti.hu)
    assert dicom.spacing_mm == pytest.approx(nifti.spacing_mm)
    np.testing.assert_allclose(dicom.affine, nifti.affine, atol=1e-4)
    assert dicom.voxels_sha256() == nifti.voxels_sha256()


def test_prefers_a_chest_to_a_longer_abdomen(tmp_path):
    abdomen = np.where(thin_chest() < -500, 40, thin_chest())
    abdomen[:, :2] = -1000  # air around the body
    write_series(tmp_path / "abdomen", abdomen, series="1.2.3.1")
    write_series(tmp_path / "chest", HU, series="1.2.3.2")
    np.testing.assert_array_equal(read_scan(tmp_path).hu, abdomen)
    warning = "2 series: used the one of 28 axial slices, 8 mm apart (the preferred one has no lungs or cannot be read)"
    for scan in (
        read_scan(tmp_path, choose_series=first_with_lungs),
        FileStudy("study", "CT-0", tmp_path).load().scan,
    ):
        np.testing.assert_array_equal(scan.hu, HU)
        assert warning in scan.warnings
    reading = read_prepared(Found("study", tmp_path), Grid.parse("16x20x10"))
    assert isinstance(reading, Reading)
    assert warning in reading.prepared.warnings


def test_without_lungs_in_any_series_the_preferred_one_is_read(tmp_path):
    abdomen = np.where(HU < -500, 40, HU)
    abdomen[:, :2] = -1000
    write_series(tmp_path / "sharp", abdomen, series="1.2.3.1", ConvolutionKernel="LUNG")
    write_series(tmp_path / "soft", abdomen + 1, series="1.2.3.2", ConvolutionKernel="STANDARD")
    np.testing.assert_array_equal(read_scan(tmp_path, choose_series=first_with_lungs).hu, abdomen + 1)
