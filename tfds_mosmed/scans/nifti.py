"""NIfTI files -> Scan. Headers are checked before anything of the size that they declare is allocated."""

import dataclasses
import gzip
import io
import math
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from tfds_mosmed.scans.acquisition import Acquisition
from tfds_mosmed.scans.nifti_header import GZIP_MAGIC, check_offset, parse_header, read_affine, read_shape
from tfds_mosmed.scans.scan import Scan, ScanError, check_grid, finish_scan, is_identity, to_standard_axes

MAX_DEFLATE_RATIO = 1032  # no deflate stream expands further (zlib, "technical details")
CHUNK_BYTES = 2**20
INT16 = np.iinfo(np.int16)
MAX_LABELS = 10  # distinct values of a segmentation
MIN_SAME_LABEL = 0.99  # of a mask's lowest value and its highest, by which rounding may part them
MAX_MASK_OFFSET = 0.5  # voxels between the same corner of a study and of its mask
MAX_MASK_SHARE = 0.3  # of the volume; a lesion mask of white lungs is below 0.15, a mask of the body above 0.35
AERATED_HU = (-950, -780)
MAX_MASK_AERATED = 0.25  # of all that is aerated, where it is most of what a mask marks; a mask of the lungs has 0.4
MIN_MASK_IN_BODY = 0.1  # of the mask
OUTSIDE_HU = -950  # lesions are denser


class _Image(NamedTuple):
    """A NIfTI image as stored.

    Attributes:
      voxels: (x, y, z), of the file's type.
      affine: (4, 4), from the index (x, y, z, 1) to mm.
      slope: HU = voxel x slope + intercept.
      intercept: likewise.
      warnings: about its header.
    """

    voxels: np.ndarray
    affine: np.ndarray
    slope: float
    intercept: float
    warnings: list[str]


def is_nifti_name(name: str) -> bool:
    """Return whether a file is a NIfTI image, by its name."""
    return name.lower().endswith((".nii", ".nii.gz")) and not Path(name).name.startswith(".")


def read_nifti(content: bytes, name: str) -> Scan:
    """Read a CT study.

    Args:
      content: bytes of a .nii or .nii.gz file.
      name: the study's name in messages.

    Raises:
      ScanError: it is not a 3D CT in HU.
    """
    try:
        image = _read_image(content)
        _check_is_no_mask(image)
        hu, extremes = _hounsfield(image)
        scan = finish_scan(hu, image.affine, image.warnings, extremes)
        return dataclasses.replace(scan, acquisition=Acquisition("NIfTI"))
    except ScanError as error:
        raise error.of(name) from error


def read_nifti_mask(content: bytes, name: str, scan: Scan) -> np.ndarray:
    """Read a mask of a study.

    Args:
      content: bytes of a .nii or .nii.gz file.
      name: the mask's name in messages.
      scan: the study.

    Returns:
      bool (slice, row, column), on the study's voxels: true where the mask is above 0.

    Raises:
      ScanError: it is not a mask, or its affine does not place it on the study's voxels.
    """
    try:
        image = _read_image(content)
        voxels = (
            image.voxels if (image.slope, image.intercept) == (1, 0) else image.voxels * image.slope + image.intercept
        )
        mask, affine, _ = to_standard_axes(voxels, image.affine)
        if mask.shape != scan.hu.shape:
            raise ScanError(
                f"is a mask of {mask.shape} voxels over a study of {scan.hu.shape}; give the study's own mask"
            )
        if is_identity(image.affine) and not (scan.source_affine is not None and is_identity(scan.source_affine)):
            raise ScanError("is a mask with an identity affine, unlike its study; save it with the study's own affine")
        _check_mask_place(affine, scan)
        return _check_mask(mask, scan)
    except ScanError as error:
        raise error.of(name) from error


def _check_mask_place(affine: np.ndarray, scan: Scan) -> None:
    last = np.array(scan.hu.shape) - 1
    corners = np.array([[*(last * choice), 1] for choice in np.ndindex(2, 2, 2)]).T
    try:
        offset = (np.linalg.inv(scan.affine) @ affine @ corners - corners)[:3]
    except np.linalg.LinAlgError as error:
        raise ScanError("lies over a study whose affine is not usable; export the study again") from error
    if np.abs(offset).max() <= MAX_MASK_OFFSET:
        return
    steps = np.array(scan.spacing_mm)[:, None]
    millimetres = float(np.linalg.norm(offset * steps, axis=0).max())
    raise ScanError(
        f"is a mask that its affine places {millimetres:.0f} mm away from the study's voxels; "
        "save it with the study's own affine"
    )


def _check_mask(values: np.ndarray, scan: Scan) -> np.ndarray:
    """Return where a mask is set; raise ScanError if it cannot be one of lesions."""
    if not np.isfinite(values).all() or values.min() < 0:
        raise ScanError("is not a mask: it holds NaN or values below 0; give the study's mask (0 and 1)")
    mask = values > 0
    if len(labels := np.unique(values[mask])) > 1 and (labels % 1).any():
        if labels[0] < MIN_SAME_LABEL * labels[-1]:
            raise ScanError(
                f"is a mask of values between {labels[0]:.3g} and {labels[-1]:.3g}, as of probabilities or of "
                "interpolation; round them to 0 and 1"
            )
    elif len(labels) > 1:
        shown = ", ".join(f"{label:g}" for label in labels[:MAX_LABELS])
        raise ScanError(f"is a mask of several labels ({shown}); give one of the lesions alone (0 and 1)")
    marked = int(np.count_nonzero(mask))
    if marked > MAX_MASK_SHARE * mask.size:
        raise ScanError(f"marks {marked / mask.size:.0%} of the volume, no mask of lesions does; give the study's mask")
    if np.count_nonzero(scan.hu[mask] > OUTSIDE_HU) < MIN_MASK_IN_BODY * marked:
        raise ScanError("is a mask that lies in the air outside of the body; give the study's own mask")
    aerated = (scan.hu > AERATED_HU[0]) & (scan.hu < AERATED_HU[1])
    if (inside := np.count_nonzero(aerated & mask)) > max(marked / 2, MAX_MASK_AERATED * np.count_nonzero(aerated)):
        raise ScanError(
            f"marks {inside / marked:.0%} aerated lung, as a mask of the lungs; give one of the lesions alone"
        )
    return mask


def _check_is_no_mask(image: _Image) -> None:
    if len(np.unique(image.voxels[::16, ::16, ::4])) > MAX_LABELS:  # of a part: all take long
        return
    values = np.unique(image.voxels)
    if 2 <= len(values) <= MAX_LABELS and float(values.min()) * image.slope + image.intercept > -300:
        shown = ", ".join(f"{value:g}" for value in values)
        raise ScanError(f"holds only the values {shown}: it is a mask, not a CT; give the CT that it belongs to")


def _read_image(content: bytes) -> _Image:
    if not content:
        raise ScanError("is empty; copy or download it again")
    compressed = content.startswith(GZIP_MAGIC)
    # A bound on what can be decompressed, so that a small file cannot claim a large image.
    capacity = len(content) * (MAX_DEFLATE_RATIO if compressed else 1)
    stream: BinaryIO = io.BytesIO(content)
    if compressed:
        stream = gzip.GzipFile(fileobj=stream)  # type: ignore[assignment]
    try:
        return _read_stream(stream, content if compressed else None, capacity)
    except (EOFError, OSError, zlib.error) as error:
        raise ScanError(f"is damaged or cut short ({error}); copy or download it again") from error


def _read_stream(stream: BinaryIO, gzipped: bytes | None, capacity: int) -> _Image:
    header = parse_header(stream)
    shape, dtype = read_shape(header), header.get_data_dtype()
    affine, warnings = read_affine(header)
    check_grid(shape, tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist()), dtype.itemsize)
    size = math.prod(shape) * dtype.itemsize
    offset = max(float(header["vox_offset"]), header.single_vox_offset)
    if not offset + size <= capacity:  # also if the offset is NaN
        raise ScanError(f"declares {size} bytes of voxels but is too short for them; copy or download it again")
    warnings += check_offset(header, stream)
    voxels = None if gzipped is None else _decompress(gzipped, shape, dtype, int(offset))
    if voxels is None:
        voxels = _read_voxels(stream, shape, dtype, int(offset))
        rest = stream.read(voxels[:, :, 0].nbytes)  # past the end: then gzip's checksum is verified
        if len(rest) == voxels[:, :, 0].nbytes and any(rest):
            warnings.append("goes on after its voxels for a slice or more: check the sizes in its header")
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not (math.isfinite(slope) and math.isfinite(intercept) and slope != 0):
        slope, intercept = 1.0, 0.0  # the standard's code for "not scaled"
    return _Image(voxels, affine, slope, intercept, warnings)


def _decompress(gzipped: bytes, shape: tuple[int, ...], dtype: np.dtype, offset: int) -> np.ndarray | None:
    """Decompress the voxels (x, y, z) of a file that ends with them; None if it has to be read as a stream.

    libdeflate is twice as fast as zlib, but decompresses at once and to a known size only: of a file with several
    members it returns the first, and its errors do not say where a file is damaged.
    """
    try:
        import deflate
    except ImportError:  # beside an exported model, which needs as few packages as possible
        return None
    size = offset + math.prod(shape) * dtype.itemsize
    try:
        plain = deflate.gzip_decompress(gzipped, size)
    except deflate.DeflateError:
        return None
    return np.ndarray(shape, dtype, plain, offset, order="F") if len(plain) == size else None


def _read_voxels(stream: BinaryIO, shape: tuple[int, ...], dtype: np.dtype, offset: int) -> np.ndarray:
    """Read the voxels (x, y, z) of a stream."""
    stream.seek(offset)
    voxels = np.empty(shape, dtype, order="F")
    buffer, filled = voxels.reshape(-1, order="F").view(np.uint8).data, 0
    while filled < len(buffer):
        num_read = stream.readinto(buffer[filled : filled + CHUNK_BYTES])  # type: ignore[attr-defined]
        if not num_read:
            raise EOFError(f"ends after {filled} of {len(buffer)} bytes of voxels")
        filled += num_read
    return voxels


def _hounsfield(image: _Image) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Apply slope and intercept: int16 HU (x, y, z), and the extremes before rounding if there was any."""
    stored, identity = image.voxels, (image.slope, image.intercept) == (1.0, 0.0)
    if identity and stored.dtype == np.int16 and stored.dtype.isnative:
        return stored, None
    lowest, highest = np.inf, -np.inf
    hu = np.empty(stored.shape, np.int16, order="F")
    for z in range(stored.shape[2]):  # slice by slice, to need little more memory than the file's own size
        values = stored[:, :, z].astype(np.float64) * image.slope + image.intercept
        if not np.isfinite(values).all():
            raise ScanError("holds NaN or infinite voxels; fill them with -1024 and save it again")
        lowest, highest = min(lowest, float(values.min())), max(highest, float(values.max()))
        hu[:, :, z] = np.rint(values).clip(INT16.min, INT16.max)
    return hu, (lowest, highest)
