"""Headers of NIfTI files: shape, type of voxels, and the affine in mm."""

import contextlib
import gzip
import zlib
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np

from tfds_mosmed.scans.scan import MAX_STEP_MM, MIN_STEP_MM, ScanError, check_grid, is_identity

GZIP_MAGIC = b"\x1f\x8b"
MM_PER_UNIT = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}  # xyzt_units: unknown, metre, millimetre, micrometre
UNIT_NAMES = {1: "metres", 3: "micrometres"}
MAX_STEP_DIFFERENCE = 0.01  # of voxels' distances, as a share
MIN_SAME_DIRECTION = 0.98  # cosine of the angle between the same axes by sform and by qform
MIN_EXTENSION_BYTES, MAX_EXTENSION_CODE = 16, 64  # sizes are multiples of 16, registered codes are even and below 46
MAX_EXTENSIONS_BYTES = 2**24
PICTURE = "is a picture (PNG, JPEG or TIFF) by its content; give the CT in HU, as NIfTI or DICOM"
OTHER_KINDS = {  # first bytes -> what it is
    b"version https://git-lfs": "is a Git LFS pointer and not the image; fetch it with `git lfs pull`",
    b"<": "is a web page or XML and not an image: download it again, with a login if it needs one",
    GZIP_MAGIC: "is compressed twice; unpack it once",
    b"BZh": "is compressed with bzip2; unpack it, or compress it with gzip",
    b"\xfd7zXZ": "is compressed with xz; unpack it, or compress it with gzip",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; unpack it, or compress it with gzip",
    b"PK\3\4": "is a .zip archive; name it .zip",
    b"NRRD": "is an NRRD image by its content; save it as NIfTI (.nii.gz)",
    b"ObjectType": "is a MetaImage (.mha, .mhd) by its content; save it as NIfTI (.nii.gz)",
    b"\x89HDF": "is an HDF5 file by its content; save the image in it as NIfTI (.nii.gz)",
    b"\x93NUMPY": "is a NumPy array by its content; save it as NIfTI (.nii.gz) with the scanner's affine",
    b"\x89PNG": PICTURE,
    b"\xff\xd8\xff": PICTURE,
    b"II*\0": PICTURE,
    b"MM\0*": PICTURE,
}


def parse_header(stream: BinaryIO) -> nib.Nifti1Header:
    """Read the header at the begin of a NIfTI file. Raises ScanError, without the file's name."""
    block = stream.read(nib.Nifti1Header.sizeof_hdr)
    kind = nib.Nifti1Header
    if len(block) == nib.Nifti1Header.sizeof_hdr and block[4:8] in (b"n+2\0", b"ni2\0"):
        kind = nib.Nifti2Header
        block += stream.read(kind.sizeof_hdr - len(block))
    magic = block[4:8] if kind is nib.Nifti2Header else block[344:348]
    if len(block) < kind.sizeof_hdr or magic[:3] not in (b"n+1", b"n+2"):
        raise ScanError(_name_kind(block, magic))
    try:
        header = kind(block, check=False)
        dtype = header.get_data_dtype()
    except Exception as error:
        raise ScanError(f"has a damaged header ({error}); export it again") from error
    if dtype.names:
        raise ScanError("is a colour image, as fusions and reports are; give the CT in grey values")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ScanError(f"holds {dtype} voxels; save it as int16")
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # the NIfTI C library reads 0 as 1
    return header


def kind_of(path: Path) -> str | None:
    """Return what a file that is no readable DICOM file is, compressed or not, and the remedy; None if unknown."""
    with contextlib.suppress(OSError, EOFError, zlib.error), path.open("rb") as file:
        is_compressed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        head = (gzip.GzipFile(fileobj=file) if is_compressed else file).read(348)
        if head[344:347] == b"n+1" or head[4:7] == b"n+2":
            return "is a NIfTI image by its content, and not by its name; name it .nii or .nii.gz"
        if head[128:132] == b"DICM":
            return "is compressed with gzip; unpack it" if is_compressed else None
        return other_kind(head)
    return None


def other_kind(block: bytes) -> str | None:
    """Return what a file is that is neither NIfTI nor DICOM, and the remedy, by its first bytes; None if unknown."""
    return next((kind for first, kind in OTHER_KINDS.items() if block.lstrip().startswith(first)), None)


def _name_kind(block: bytes, magic: bytes) -> str:
    kind = other_kind(block)
    if magic[:3] in (b"ni1", b"ni2"):
        kind = "is the header of an image whose voxels are in another file (.img); save both as one .nii"
    elif block[128:132] == b"DICM":
        kind = "is a DICOM file; name it .dcm"
    return kind or "is not a NIfTI image; give .nii or .nii.gz files (or folders of DICOM slices)"


def read_shape(header: nib.Nifti1Header) -> tuple[int, int, int]:
    """Return the sizes of a 3D image. Raises ScanError, without the file's name."""
    dims = int(header["dim"][0])
    sizes = [int(size) for size in header["dim"][1 : 1 + max(0, min(dims, 7))]]
    while len(sizes) > 3 and sizes[-1] in (0, 1):  # the NIfTI C library reads 0 as 1
        sizes.pop()
    if len(sizes) != 3 or min(sizes) < 1:
        shown = " x ".join(map(str, sizes)) or "no axes"
        raise ScanError(f"is not one 3D volume but {len(sizes)}D ({shown}); give one volume a file")
    return (sizes[0], sizes[1], sizes[2])


def read_affine(header: nib.Nifti1Header) -> tuple[np.ndarray, list[str]]:
    """Return the affine in mm, (4, 4), and warnings. Raises ScanError, without the file's name."""
    affine, warnings = _choose_affine(header)
    code = int(header["xyzt_units"]) & 7
    units = MM_PER_UNIT.get(code, 1.0)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if units != 1.0 and not _is_plausible(spacing * units) and _is_plausible(spacing):
        warnings.append(f"declares its voxels of {_steps(spacing)} in {UNIT_NAMES[code]}: read as millimetres")
        units = 1.0
    affine[:3] *= units
    if is_identity(affine):
        warnings.append("has an identity affine: orientation and spacing are unknown; give it the scanner's affine")
    return affine, warnings


def check_offset(header: nib.Nifti1Header, stream: BinaryIO) -> list[str]:
    """Return a warning if the voxels seem not to begin where a header says.

    Args:
      header: as `parse_header` returns it; its offset is a number.
      stream: the file, after the header.
    """
    begin, offset = header.single_vox_offset, int(max(header["vox_offset"], header.single_vox_offset))
    between = stream.read(min(offset, MAX_EXTENSIONS_BYTES) + MIN_EXTENSION_BYTES - header.sizeof_hdr)
    has_extensions, between = between[:1] != b"\0", between[begin - header.sizeof_hdr :]
    place = 0  # after the extensions
    while has_extensions and place <= offset - begin:
        size, code = np.frombuffer(between[place : place + 8].ljust(8, b"\0"), f"{header.endianness}i4").tolist()
        if size < MIN_EXTENSION_BYTES or size % 16 or not 0 <= code <= MAX_EXTENSION_CODE:
            break
        place += size
    rest = between[place : offset - begin]
    if place == offset - begin or (place < offset - begin and not offset % 16 and not any(rest)):
        return []
    return [
        f"its voxels begin at byte {offset} by vox_offset, where they would be expected at {begin + place}: check that "
        "they are not shifted"
    ]


def _choose_affine(header: nib.Nifti1Header) -> tuple[np.ndarray, list[str]]:
    """Return the sform, else the qform, else the distances of voxels, as most programs do; and what contradicts it."""
    zooms = np.asarray(header["pixdim"][1:4], np.float64)
    sform, qform = _read_sform(header), _read_qform(header)
    if sform is None and qform is None:
        check_grid((1, 1, 1), tuple(zooms.tolist()), 1)
        if int(header["sform_code"]) or int(header["qform_code"]):
            raise ScanError("has a damaged orientation (NaN or no rotation in its affine); export it again")
        lacks = "has no orientation: assumed to be stored from left to right, back to front, feet to head"
        return np.array(header.get_base_affine(), np.float64), [lacks]
    if sform is None or (qform is not None and is_identity(sform) and not is_identity(qform)):
        assert qform is not None
        return qform, [] if sform is None else ["its sform is an identity: read by its qform"]
    warnings = []
    spacing = np.linalg.norm(sform[:3, :3], axis=0)
    if not np.allclose(zooms, spacing, rtol=MAX_STEP_DIFFERENCE, atol=0):
        warnings.append(
            f"its voxels are {_steps(spacing)} by its affine and {_steps(zooms)} by pixdim: read by the affine"
        )
    if qform is not None and _directions_differ(sform, qform):
        warnings.append(
            "its sform and qform have different directions: read by the sform; check that it is not flipped"
        )
    return sform, warnings


def _read_sform(header: nib.Nifti1Header) -> np.ndarray | None:
    affine = np.array(header.get_sform(), np.float64)
    return affine if int(header["sform_code"]) and np.isfinite(affine).all() else None


def _read_qform(header: nib.Nifti1Header) -> np.ndarray | None:
    try:
        affine = np.array(header.get_qform(), np.float64)
    except Exception:  # no quaternion
        return None
    is_usable = np.isfinite(affine).all() and np.linalg.norm(affine[:3, :3], axis=0).all()
    return affine if int(header["qform_code"]) and is_usable else None


def _directions_differ(one: np.ndarray, other: np.ndarray) -> bool:
    cosines = (one[:3, :3] * other[:3, :3]).sum(axis=0)
    lengths = np.linalg.norm(one[:3, :3], axis=0) * np.linalg.norm(other[:3, :3], axis=0)
    return bool((cosines < MIN_SAME_DIRECTION * lengths).any())


def _steps(distances: np.ndarray) -> str:
    return " x ".join(f"{step:.4g}" for step in distances)


def _is_plausible(spacing: np.ndarray) -> bool:
    return bool(((spacing >= MIN_STEP_MM) & (spacing <= MAX_STEP_MM)).all())
