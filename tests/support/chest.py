"""A synthetic chest of simple shapes, and the files it may be stored in."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SPACING_MM = (8.0, 4.0, 4.0)
SHAPE = (28, 80, 96)
LUNGS_MM = {"right": (112.0, 150.0, 125.0), "left": (112.0, 150.0, 260.0)}  # centres: slice, row, column
LUNG_RADII_MM = (85.0, 75.0, 50.0)


def chest(seed: int = 0, shape: tuple[int, int, int] = SHAPE, spacing=SPACING_MM) -> np.ndarray:
    """Draw an elliptic body with two lungs, a spine and noise: int16 HU (slice, row, column)."""
    rng = np.random.default_rng(seed)
    z, y, x = (
        (np.arange(size) + 0.5).reshape([-1 if axis == index else 1 for index in range(3)]) * step
        for axis, (size, step) in enumerate(zip(shape, spacing, strict=True))
    )
    hu = np.full(shape, -1000.0)
    hu[np.broadcast_to(((y - 155) / 115) ** 2 + ((x - 192) / 165) ** 2 < 1, shape)] = 40
    for centre in LUNGS_MM.values():
        far = sum(
            ((at - middle) / radius) ** 2 for at, middle, radius in zip((z, y, x), centre, LUNG_RADII_MM, strict=True)
        )
        hu[far < 1] = -850
    hu[np.broadcast_to(((y - 235) / 20) ** 2 + ((x - 192) / 20) ** 2 < 1, shape)] = 400
    hu += rng.normal(0, 15, shape)
    return np.clip(np.rint(hu), -1024, 3000).astype(np.int16)


def thin_chest() -> np.ndarray:
    """Draw the chest with slices half as far apart."""
    return chest(shape=(2 * SHAPE[0], *SHAPE[1:]), spacing=(SPACING_MM[0] / 2, *SPACING_MM[1:]))


def las_affine(spacing=SPACING_MM) -> np.ndarray:
    """Return the affine of MosMedData's axes: x to the left, y to the front, z to the head."""
    return np.diag([-spacing[2], spacing[1], spacing[0], 1.0])


def to_las(hu: np.ndarray) -> np.ndarray:
    """Transpose (slice, row, column) to (x, y, z) as MosMedData stores it."""
    return hu[:, ::-1].transpose(2, 1, 0)


def write_nifti(path: Path, hu: np.ndarray | None = None, spacing=SPACING_MM, **kwargs) -> Path:
    """Write a volume (slice, row, column) in MosMedData's format."""
    hu = chest() if hu is None else hu
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(to_las(hu), las_affine(spacing), **kwargs)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def dicom_slice(hu: np.ndarray, index: int, spacing=SPACING_MM, series: str = "1.2.3.1", **tags) -> pydicom.Dataset:
    """Make one slice (row, column) of a series; slices are counted from the feet."""
    slice_ = pydicom.Dataset()
    slice_.file_meta = FileMetaDataset()
    slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_.file_meta.MediaStorageSOPClassUID = slice_.SOPClassUID = CTImageStorage
    slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID = generate_uid()
    slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.Modality = "1.2.3", series, "CT"
    slice_.PatientName, slice_.PatientID = "Planted^Name", "PLANTED-ID"
    slice_.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    slice_.Rows, slice_.Columns = hu.shape
    slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    slice_.ImagePositionPatient = [-100.0, -120.0, -300.0 + index * spacing[0]]
    slice_.PixelSpacing = [spacing[1], spacing[2]]
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 12, 11, 0
    slice_.RescaleSlope, slice_.RescaleIntercept = 1, -1024
    slice_.PixelData = (hu.astype(np.int32) + 1024).clip(0, 4095).astype(np.uint16).tobytes()
    for name, value in tags.items():
        setattr(slice_, name, value)
    return slice_


def write_series(folder: Path, hu: np.ndarray | None = None, names=None, **kwargs) -> Path:
    """Write a volume as a series, a file a slice; `names` are the slices' file names."""
    hu = chest() if hu is None else hu
    folder.mkdir(parents=True, exist_ok=True)
    for index, plane in enumerate(hu):
        name = names[index] if names is not None else f"{index:03d}.dcm"
        dicom_slice(plane, index, **kwargs).save_as(folder / name, enforce_file_format=True)
    return folder
