"""Series that were made from an original one, beside it and alone."""

import numpy as np
import pydicom
import pytest
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from tests.support.chest import chest, thin_chest, write_series
from tests.support.dicom_files import write_multi_frame
from tfds_mosmed.scans.dicom.derivation import Derivation, derivation_of
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import ScanError

HU = chest()
THIN = (4.0, 4.0, 4.0)
THIN_HU = thin_chest()
ORIGINAL = "ORIGINAL\\PRIMARY\\AXIAL"


def sequence(**tags):
    item = pydicom.Dataset()
    item.update(tags)
    return Sequence([item])


def header(**tags):
    dataset = pydicom.Dataset()
    dataset.update({"SOPClassUID": CTImageStorage, **tags})
    return dataset


def derivation(image_type=ORIGINAL, technique="", rescale_type="HU", **tags):
    codes = tags.get("DerivationCodeSequence", ())
    return derivation_of(header(**tags), image_type, technique, rescale_type, codes, tags.get("SliceThickness", ""))


DERIVED = [
    {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "MIP"]},
    {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]},
    {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 MIP"]},
    {"RescaleType": "MGML"},
    {"SeriesDescription": "AX_MIP8"},
    {"SOPClassUID": SecondaryCaptureImageStorage},
    {"SourceImageSequence": sequence(ReferencedSOPClassUID=CTImageStorage)},
]


def test_the_least_derived_series_is_used_beside_a_longer_one(tmp_path):
    write_series(tmp_path / "less", HU[:20], series="1.2.3.2", ImageType=["DERIVED", "PRIMARY", "AXIAL"])
    write_series(tmp_path / "more", HU, series="1.2.3.1", ImageType=["DERIVED", "SECONDARY", "REFORMATTED"])
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.hu, HU[:20])
    assert any("a longer axial series was not used" in warning for warning in scan.warnings)


@pytest.mark.parametrize("tags", DERIVED, ids=lambda tags: str(next(iter(tags.values())))[:40])
def test_derived_series_are_not_used_beside_an_original_one(tmp_path, tags):
    write_series(tmp_path / "original", THIN_HU, series="1.2.3.2", spacing=THIN)
    write_series(tmp_path / "derived", HU + 100, series="1.2.3.1", **tags)
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.hu, THIN_HU)
    assert scan.warnings == ("2 series: used the one of 56 axial slices, 4 mm apart (original, not derived)",)


@pytest.mark.parametrize(
    "group",
    [
        {"DerivationImageSequence": sequence(DerivationCodeSequence=sequence(CodeValue="113078"))},
        {"CTImageFrameTypeSequence": sequence(FrameType=["DERIVED", "PRIMARY", "VOLUME", "MAXIMUM"])},
        {"PixelMeasuresSequence": sequence(PixelSpacing=[4, 4], SliceThickness=24)},
    ],
    ids=lambda group: next(iter(group)),
)
def test_derived_frames_are_not_used_beside_an_original_series(tmp_path, group):
    write_series(tmp_path / "original", THIN_HU, series="1.2.3.2", spacing=THIN)
    file = write_multi_frame(tmp_path / "derived" / "a.dcm", HU + 100)
    dataset = pydicom.dcmread(file)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        frame.update(group)
    dataset.save_as(file)
    np.testing.assert_array_equal(read_scan(tmp_path).hu, THIN_HU)


def test_a_longer_projection_is_not_used_either(tmp_path):
    write_series(tmp_path / "original", HU[4:], series="1.2.3.2")
    write_series(tmp_path / "derived", thin_chest(), series="1.2.3.1", ImageType=DERIVED[0]["ImageType"])
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.hu, HU[4:])
    assert "a longer axial series was not used: it is derived" in "\n".join(scan.warnings)


def test_a_reformat_alone_is_read_with_a_warning_and_a_projection_alone_is_refused(tmp_path):
    write_series(tmp_path / "reformat", HU, ImageType=["DERIVED", "SECONDARY", "MPR"])
    scan = read_scan(tmp_path / "reformat")
    np.testing.assert_array_equal(scan.hu, HU)
    assert scan.warnings == ("the series is not an original one, as its ImageType says",)
    write_series(tmp_path / "mip", HU, ImageType=DERIVED[0]["ImageType"])
    with pytest.raises(ScanError, match=r"projections .* as their ImageType says; give the original series"):
        read_scan(tmp_path / "mip")


@pytest.mark.parametrize("name", ["SeriesDescription", "DerivationDescription", "ImageComments", "ProtocolName"])
@pytest.mark.parametrize(
    "text",
    [
        *("MIP_AX", "ax-mip", "axMIP 8mm", "MIP8", "MIPs", "LungenMIP", "mIP", "Max IP", "MinIP", "MIN_IP"),
        *("AvIP", "Ave-IP", "Thorax AIP", "AVG 10/8", "Average", "Mean IP", "RaySum", "Maximum intensity"),
        *("Projection axial", "Slab 8mm", "VRT", "Z Effective", "Zeff", "Eff. Z", "Electron Density", "Rho/Z"),
        *("Iodine(Water)", "No iodine", "MonoE 40 keV", "Mono+", "70keV", "VNC", "Virtual Non Contrast"),
        *("Subtraction", "Lung PBV", "Perfused Blood Volume", "MTT map", "Lung CAD results", "Lung segmentation"),
        *("axial MPR", "Reformatted", "screen_shot", "fused PET", "bone removal", "Median 8mm", "DIFF ven-nat"),
        *("Mittelwert", "Virtuell nativ", "Valeurs moyennes", "МИП 8 мм", "проекция", "最大密度投影"),
    ],
)
def test_words_of_descriptions(name, text):
    found = derivation(**{name: text})
    assert found.sign == name
    assert found.degree == (1 if name == "ProtocolName" else 2)


@pytest.mark.parametrize(
    "text",
    [
        *("Thorax 5.0 B31f", "LUNG 1.25", "Chest w/o contrast", "ThorRoutine  2.0  D40s", "Low dose screening"),
        *("ABDOMEN/CHEST", "HEMIPELVIS", "Additional recon", "Maximum inspiration", "Lung CAD 1.0", "Mediastinum iMAR"),
        *("AXIAL SHARP", "native", "venous 70s", "Recon 2: STANDARD", "eFoV 3.0 Br40", "Monochrome"),
    ],
)
def test_words_of_original_series(text):
    assert derivation(SeriesDescription=text, ImageComments=text, ProtocolName=text) == Derivation()


@pytest.mark.parametrize(
    ("image_type", "degree"),
    [
        (ORIGINAL, 0),
        (f"{ORIGINAL}\\CT_SOM5 SPI", 0),
        (f"{ORIGINAL}\\HELIX", 0),
        ("derived\\primary\\axial", 1),
        ("DERIVED \\PRIMARY \\PROCESSED", 1),
        ("ORIGINAL\\SECONDARY\\AXIAL", 2),
        ("DERIVED\\PRIMARY\\AXIAL\\MONO_E", 2),
        ("DERIVED\\PRIMARY\\AXIAL\\VNC", 2),
        ("DERIVED\\SECONDARY\\PROJECTION IMAGE", 3),
        ("DERIVED\\SECONDARY\\MIN IP", 3),
        ("DERIVED\\PRIMARY\\AXIAL\\AVERAGE", 3),
        ("DERIVED\\PRIMARY\\AXIAL\\DET_IODINE", 3),
        (f"{ORIGINAL}\\CT_SOM7\\MIP THIN", 3),
    ],
)
def test_image_type(image_type, degree):
    assert derivation(image_type) == (Derivation(degree, "ImageType") if degree else Derivation())


@pytest.mark.parametrize(
    ("sign", "value", "degree"),
    [
        ("DerivationCodeSequence", sequence(CodeValue="113078", CodingSchemeDesignator="DCM"), 3),
        ("DerivationCodeSequence", sequence(CodeValue="X1", CodeMeaning="Minimum intensity projection"), 3),
        ("DerivationCodeSequence", sequence(CodeValue="113072", CodeMeaning="Multiplanar reformatting"), 2),
        ("DerivationCodeSequence", sequence(CodeValue="113085", CodeMeaning="Spatial resampling"), 2),
        ("DerivationCodeSequence", sequence(CodeValue="113087", CodeMeaning="Smoothing"), 1),
        ("DerivationCodeSequence", sequence(CodeValue="113040", CodeMeaning="Lossy compression"), 0),
        ("SourceImageSequence", sequence(ReferencedSOPClassUID=CTImageStorage), 1),
        ("SourceImageSequence", sequence(ReferencedSOPInstanceUID="1.2"), 1),
        ("SourceImageSequence", sequence(ReferencedSOPClassUID="1.3.12.2.1107.5.9.1"), 0),  # raw data of a scanner
        ("SOPClassUID", MultiFrameGrayscaleWordSecondaryCaptureImageStorage, 2),
        ("BurnedInAnnotation", "YES", 2),
        ("BurnedInAnnotation", "NO", 0),
        ("LossyImageCompression", "01", 1),
        ("LossyImageCompression", "00", 0),
        ("DerivationDescription", "by hand", 1),
        ("SliceThickness", "30", 2),
        ("SliceThickness", "10", 0),
    ],
)
def test_coded_signs(sign, value, degree):
    assert derivation(**{sign: value}) == (Derivation(degree, sign) if degree else Derivation())


def test_rescale_type_and_technique():
    assert derivation(rescale_type="HOUNSFIELD UNITS") == (0, "")
    assert derivation(rescale_type="MGML") == (3, "RescaleType")
    assert derivation(rescale_type="HU_MOD") == (2, "RescaleType")
    assert derivation(technique="MAX_IP") == (3, "VolumeBasedCalculationTechnique")
    assert derivation(rescale_type="", technique="NONE") == (0, "")
