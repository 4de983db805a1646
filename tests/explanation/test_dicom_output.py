"""DICOM segmentation and structured report, read back with highdicom and pydicom."""

import re
import shutil
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from covidscan.explanation.dicom_output import write_dicom
from covidscan.explanation.involvement import EVIDENCE, LESIONS, measure_involvement
from tests.support import real_ct
from tests.support.chest import SHAPE, SPACING_MM, chest, write_nifti, write_series
from tests.support.dicom_files import write_multi_frame
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.read import read_scan

FRAME_OF_REFERENCE = "1.2.3.9"
PROBABILITIES = {"negative": 0.25, "positive": 0.75}
MODEL = "0123456789ab"


def _measured(path, kind=LESIONS):
    scan = read_scan(path)
    prepared = prepare(scan, Grid(32, 32, 16))
    grid_map = np.zeros(prepared.volume.shape, np.float32)
    grid_map[4:9, 10:20, 4:12] = 1
    return scan, measure_involvement(scan, prepared, grid_map, kind)


def _assert_on_the_series(folder, files):
    """Each frame lies on a slice of the series, and the patient is the same; return both."""
    slices = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, files)}
    seg = hd.seg.segread(folder / "0001_seg.dcm")
    first = next(iter(slices.values()))
    for name in ("Rows", "Columns", "FrameOfReferenceUID", "StudyInstanceUID", "PatientID", "PatientName"):
        assert getattr(seg, name) == getattr(first, name, ""), name
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == first.ImageOrientationPatient
    assert shared.PixelMeasuresSequence[0].PixelSpacing == first.PixelSpacing
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert frame.PlanePositionSequence[0].ImagePositionPatient == slices[source].ImagePositionPatient
    return seg, slices


def test_names_in_any_script_stay_as_they_are(tmp_path):
    name = "Yamada^Tarou=山田^太郎"
    tags = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "FrameOfReferenceUID": FRAME_OF_REFERENCE}
    series = write_series(tmp_path / "series", chest(), PatientName=name, **tags)
    probabilities = {"пневмония": 0.25, "a\\b\n": 0.25, "x" * 100: 0.5}
    for file in write_dicom(tmp_path, "0001", *_measured(series), probabilities, MODEL):
        written = pydicom.dcmread(tmp_path / file)
        assert written.PatientName == pydicom.dcmread(next(series.iterdir())).PatientName == name
    meanings = re.findall(r"Code Meaning +LO: (.*)", str(written))
    assert {"'Probability of пневмония'", "'Probability of a/b'"} <= {*meanings}


def test_the_segmentation_lies_on_the_series_and_the_report_cites_it(tmp_path):
    # The names of the files are in another order than the slices, whose rows run from back to front.
    names = [f"{(5 * index) % SHAPE[0]:03d}.dcm" for index in range(SHAPE[0])]
    series = write_series(
        tmp_path / "series",
        chest()[:, ::-1],
        names,
        FrameOfReferenceUID=FRAME_OF_REFERENCE,
        ImageOrientationPatient=[1, 0, 0, 0, -1, 0],
    )
    scan, found = _measured(series)
    assert write_dicom(tmp_path, "0001", scan, found, PROBABILITIES, MODEL) == ["0001_seg.dcm", "0001_sr.dcm"]
    seg, slices = _assert_on_the_series(tmp_path, series.iterdir())
    expected = {1: found.lungs == 1, 2: found.lungs == 2, 3: found.counted}
    order = sorted(slices.values(), key=lambda source: source.ImagePositionPatient[2])
    for number, mask in expected.items():
        pixels = seg.get_pixels_by_source_instance(
            [source.SOPInstanceUID for source in order], segment_numbers=[number], ignore_spatial_locations=True,
            assert_missing_frames_are_empty=True,
        )[..., 0]  # fmt: skip
        np.testing.assert_array_equal(pixels[:, ::-1] > 0, mask)
    assert [one.SegmentLabel for one in seg.SegmentSequence] == ["Right lung", "Left lung", "Lesions"]
    _assert_report(hd.sr.srread(tmp_path / "0001_sr.dcm"), seg, found)


def _assert_report(report, seg, found):
    assert report.StudyInstanceUID == seg.StudyInstanceUID
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    (study,) = report.content.get_image_measurement_groups()
    values = {one.name.meaning: (one.value, one.unit.value) for one in study.get_measurements()}
    assert values["Probability of positive"] == (0.75, "1")
    assert values["Percentage of lung involved"] == (pytest.approx(found.percent.both, abs=1e-5), "%")
    assert values["Volume"] == (pytest.approx(found.lung_ml.both, abs=1e-5), "ml")
    regions = report.content.get_volumetric_roi_measurement_groups()
    assert [one.finding_type.meaning for one in regions] == ["Right lung", "Left lung", "Lesion"]
    for number, region in enumerate(regions, 1):
        cited = (
            region.referenced_segment.referenced_sop_instance_uid,
            region.referenced_segment.referenced_segment_numbers,
        )
        assert cited == (seg.SOPInstanceUID, [number])
    (volume,) = regions[2].get_measurements()
    assert volume.value == pytest.approx(found.counted_ml.both, abs=1e-5)
    algorithm = [item.TextValue for item in study[0].ContentSequence if item.ValueType == "TEXT"]
    assert {"CovidScan", f"model {MODEL}"} <= set(algorithm)


@pytest.mark.sampled
def test_evidence_is_no_segmentation_of_lesions(tmp_path):
    series = write_series(tmp_path / "series", FrameOfReferenceUID=FRAME_OF_REFERENCE)
    scan, found = _measured(series, EVIDENCE)
    write_dicom(tmp_path, "0001", scan, found, PROBABILITIES, MODEL)
    assert [one.SegmentLabel for one in pydicom.dcmread(tmp_path / "0001_seg.dcm").SegmentSequence] == [
        "Right lung",
        "Left lung",
    ]
    report = str(pydicom.dcmread(tmp_path / "0001_sr.dcm"))
    assert "Probability of positive" in report
    assert "involved" not in report


@pytest.mark.sampled
def test_the_frames_of_an_enhanced_ct_may_be_in_any_order(tmp_path):
    order = np.roll(np.arange(SHAPE[0]), 9)
    path = write_multi_frame(tmp_path / "ct.dcm", chest(), order=order, FrameOfReferenceUID=FRAME_OF_REFERENCE)
    scan, found = _measured(path)
    assert write_dicom(tmp_path, "0001", scan, found, PROBABILITIES, MODEL) == ["0001_seg.dcm", "0001_sr.dcm"]
    seg = hd.seg.segread(tmp_path / "0001_seg.dcm")
    expected = {1: found.lungs == 1, 2: found.lungs == 2, 3: found.counted}
    for pixels, frame in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        height = frame.PlanePositionSequence[0].ImagePositionPatient[2] + 300  # mm above the first slice
        segment = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        np.testing.assert_array_equal(pixels > 0, expected[segment][round(height / SPACING_MM[0])])


@pytest.mark.sampled
def test_a_series_in_an_archive_is_described_as_in_its_folder(tmp_path):
    series = write_series(tmp_path / "packed" / "series", FrameOfReferenceUID=FRAME_OF_REFERENCE)
    archive = Path(shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "packed"))
    scan, found = _measured(archive)
    assert write_dicom(tmp_path, "0001", scan, found, PROBABILITIES, MODEL) == ["0001_seg.dcm", "0001_sr.dcm"]
    _assert_on_the_series(tmp_path, series.iterdir())
    archive.unlink()
    with pytest.raises(UserError, match="cannot be read again"):
        write_dicom(tmp_path, "0001", scan, found, PROBABILITIES, MODEL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("is NIfTI", "DICOM series only"),
        ("has no frame of reference", "lacks"),
        ("was removed", "cannot be read again"),
    ],
)
def test_what_cannot_be_described_is_a_line(change, message, tmp_path):
    tags = {} if change == "has no frame of reference" else {"FrameOfReferenceUID": FRAME_OF_REFERENCE}
    series = write_series(tmp_path / "series", **tags)
    scan, found = _measured(write_nifti(tmp_path / "study.nii.gz") if change == "is NIfTI" else series)
    if change == "was removed":
        (series / "003.dcm").unlink()
    with pytest.raises(UserError, match=message) as error:
        write_dicom(tmp_path, "0001", scan, found, PROBABILITIES, MODEL)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*.dcm"))


@real_ct.needed
def test_a_real_series_has_its_segmentation(tmp_path):
    scan, found = _measured(real_ct.FOLDER / "dicom" / "P001")
    write_dicom(tmp_path, "0001", scan, found, PROBABILITIES, MODEL)
    _assert_on_the_series(tmp_path, (real_ct.FOLDER / "dicom" / "P001").glob("*.dcm"))
