"""DICOM files of every transfer syntax that is used for CT."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.support.chest import SPACING_MM, dicom_slice

UNCOMPRESSED = (
    ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian
)  # fmt: skip
COMPRESSED = (JPEGLosslessSV1, JPEG2000Lossless, JPEGLSLossless, RLELossless)


def compressed_frame(stored: np.ndarray, syntax: str, bits: int = 12) -> bytes:
    """Compress one frame of uint16 (row, column), of which `bits` are used."""
    import gdcm  # after pydicom has loaded zlib, which would otherwise be bound to the zlib in gdcm, and crash

    writer = gdcm.ImageWriter()
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((stored.shape[1], stored.shape[0], 1))
    monochrome = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(monochrome))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ImplicitVRLittleEndian))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, bits, bits - 1, 0))
    pixels = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    pixels.SetByteStringValue(stored.astype("<u2").tobytes())
    image.SetDataElement(pixels)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(image)
    assert change.Change()
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    assert fragments.GetNumberOfFragments() == 1
    return fragments.GetFragment(0).GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")


def save(dataset: pydicom.Dataset, path: Path, syntax: str) -> None:
    """Write a dataset with uncompressed little-endian pixels in a transfer syntax."""
    dataset.file_meta.TransferSyntaxUID = syntax
    frames = np.frombuffer(dataset.PixelData, "<u2").reshape(-1, dataset.Rows, dataset.Columns)
    if syntax in COMPRESSED:
        dataset.PixelData = encapsulate([compressed_frame(frame, syntax) for frame in frames])
        dataset["PixelData"].VR = "OB"
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = frames.astype(">u2").tobytes()
        dataset["PixelData"].VR = "OW"
    dataset.save_as(path, enforce_file_format=True)


def write_slices(folder: Path, hu: np.ndarray, syntax: str, spacing=SPACING_MM) -> Path:
    """Write a volume as a series, a file a slice."""
    folder.mkdir(parents=True)
    for index, plane in enumerate(hu):
        save(dicom_slice(plane, index, spacing), folder / f"{index:03d}.dcm", syntax)
    return folder


def write_multi_frame(
    path: Path, hu: np.ndarray, syntax: str = ExplicitVRLittleEndian, spacing=SPACING_MM, order=None, **tags
) -> Path:
    """Write a volume as one enhanced CT file, its frames in `order`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    order = np.arange(len(hu)) if order is None else order
    dataset = dicom_slice(hu[0], 0, spacing, **tags)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = EnhancedCTImageStorage
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(dataset, name)
    shared, orientation, measures, rescale = (pydicom.Dataset() for _ in range(4))
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing = list(spacing[1:])
    rescale.RescaleSlope, rescale.RescaleIntercept = 1, -1024
    shared.PlaneOrientationSequence = Sequence([orientation])
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PixelValueTransformationSequence = Sequence([rescale])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for index in order:
        frame, position = pydicom.Dataset(), pydicom.Dataset()
        position.ImagePositionPatient = [-100.0, -120.0, -300.0 + float(index) * spacing[0]]
        frame.PlanePositionSequence = Sequence([position])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    dataset.NumberOfFrames = len(hu)
    dataset.PixelData = (hu[order].astype(int) + 1024).clip(0, 4095).astype(np.uint16).tobytes()
    save(dataset, path, syntax)
    return path
