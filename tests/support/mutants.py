"""Damaged studies: small valid files and mutations of them. Every mutant is a pure function of its number."""

import gzip
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian

from covidscan.prediction.reading import Refusal, read_prepared
from tests.support.chest import chest, las_affine, to_las
from tests.support.dicom_files import COMPRESSED, UNCOMPRESSED, write_multi_frame, write_slices
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.scans.find import Found

SHAPE, SPACING_MM = (10, 40, 48), (22.0, 8.0, 8.0)
EXTREMES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
VRS = (b"SQ", b"OB", b"OW", b"UN", b"DS", b"IS", b"US", b"UL", b"FD", b"UI", b"PN", b"AT", b"OF", b"UC", b"ZZ")
DIMENSIONS = (0, 1, -1, 2, 7, 8, 32767, -32768, 16, 4096)
REALS = (0.0, -1.0, np.nan, np.inf, -np.inf, 1e30, 1e-30, 1e300)
# Offsets in a NIfTI-1 header: dim, datatype with bitpix, and the reals of pixdim, vox_offset, scl_*, quatern_*, srow_*
NIFTI_SHORTS = (*range(40, 56, 2), 70, 72, 252, 254)
NIFTI_REALS = (*range(76, 124, 4), *range(256, 328, 4))
TAGS: tuple[tuple[str, tuple], ...] = (
    ("Rows", (0, 1, 17, 65535)),
    ("Columns", (0, 1, 17, 65535)),
    ("NumberOfFrames", ("0", "-1", "1", "11", "20000", "2147483647")),
    ("BitsAllocated", (0, 1, 8, 12, 32, 64, 65535)),
    ("BitsStored", (0, 1, 8, 17, 65535)),
    ("HighBit", (0, 255, 65535)),
    ("SamplesPerPixel", (0, 3, 4, 65535)),
    ("PixelRepresentation", (1, 2, 65535)),
    ("PhotometricInterpretation", ("RGB", "PALETTE COLOR", "YBR_FULL_422", "")),
    ("PixelSpacing", (["0", "0"], ["nan", "nan"], ["1e30", "1"], ["-1", "1"])),
    ("ImageOrientationPatient", (["0"] * 6, ["nan"] * 6, ["1", "0", "0", "1", "0", "0"], ["1e30"] * 6)),
    ("ImagePositionPatient", (["nan"] * 3, ["1e30"] * 3, ["0"] * 3)),
    ("RescaleSlope", ("0", "nan", "inf", "1e30")),
    ("RescaleIntercept", ("nan", "-1e30", "32767")),
)  # fmt: skip


def write_seeds(folder: Path) -> list[Path]:
    """Write small valid studies of every kind: files, and folders of slices."""
    hu = chest(shape=SHAPE, spacing=SPACING_MM)
    seeds = []
    for name, kind, dtype in (
        ("short", nib.Nifti1Image, "<i2"),
        ("real", nib.Nifti1Image, "<f4"),
        ("two", nib.Nifti2Image, "<i2"),
    ):
        content = kind(to_las(hu).astype(dtype), las_affine(SPACING_MM)).to_bytes()
        for suffix, packed in ((".nii", content), (".nii.gz", gzip.compress(content, mtime=0))):
            seeds.append(folder / f"{name}{suffix}")
            seeds[-1].write_bytes(packed)
    for syntax in (*UNCOMPRESSED, *COMPRESSED):
        seeds.append(write_multi_frame(folder / f"{syntax}.dcm", hu, syntax, SPACING_MM))
    for syntax in (ExplicitVRLittleEndian, *COMPRESSED):
        seeds.append(write_slices(folder / f"{syntax}", hu, syntax, SPACING_MM))
    return seeds


def mutants(seeds: list[Path], numbers: Iterable[int], folder: Path) -> Iterator[Path]:
    """Write the mutants of these numbers one by one; those of consecutive numbers come from different seeds."""
    for number in numbers:
        rng = np.random.default_rng([6, number])
        seed = seeds[number % len(seeds)]
        if seed.is_file():
            path = folder / f"{number}{''.join(seed.suffixes[-2:]) if '.nii' in seed.name else '.dcm'}"
            path.write_bytes(_mutant(seed, rng))
        else:
            path = folder / str(number)
            path.mkdir()
            files = sorted(seed.iterdir())
            damaged = rng.choice(len(files), rng.integers(1, 4), replace=False)
            for index, file in enumerate(files):
                if index in damaged:
                    (path / file.name).write_bytes(_mutant(file, rng))
                else:
                    os.link(file, path / file.name)
        yield path


def _mutant(seed: Path, rng: np.random.Generator) -> bytes:
    content = seed.read_bytes()
    if seed.name.endswith(".nii.gz") and rng.random() < 0.6:
        return gzip.compress(_mutant_nifti(gzip.decompress(content), rng), 1, mtime=0)
    if seed.suffix == ".nii":
        return _mutant_nifti(content, rng)
    if seed.suffix == ".dcm" and rng.random() < 0.3:
        return _mutant_tag(seed, rng)
    return _pick(rng, (*BYTES, _vr, _length) if seed.suffix == ".dcm" else BYTES)(content, rng)


def _mutant_nifti(content: bytes, rng: np.random.Generator) -> bytes:
    return _pick(rng, (*BYTES, _nifti_field, _nifti_field))(content, rng)


def _pick(rng: np.random.Generator, choices: tuple) -> Callable:
    return choices[rng.integers(len(choices))]


def _flip_bits(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.integers(1, 17)):
        changed[rng.integers(len(changed))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _flip_bits_in_header(content: bytes, rng: np.random.Generator) -> bytes:
    return _flip_bits(content[:1500], rng) + content[1500:]


def _extremes(content: bytes, rng: np.random.Generator) -> bytes:
    at, size = int(rng.integers(len(content))), int(rng.integers(1, 9))
    return content[:at] + bytes([EXTREMES[rng.integers(len(EXTREMES))]]) * size + content[at + size :]


def _extremes_in_header(content: bytes, rng: np.random.Generator) -> bytes:
    return _extremes(content[:1500], rng) + content[1500:]


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: rng.integers(len(content))]


def _remove(content: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(content)))
    return content[:at] + content[at + int(rng.integers(1, 200)) :]


def _insert(content: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(content)))
    return content[:at] + rng.bytes(int(rng.integers(1, 200))) + content[at:]


def _repeat(content: bytes, rng: np.random.Generator) -> bytes:
    at, size = int(rng.integers(len(content))), int(rng.integers(1, 2000))
    return content[: at + size] + content[at:]


BYTES = (_flip_bits, _flip_bits_in_header, _extremes, _extremes_in_header, _cut, _remove, _insert, _repeat)


def _nifti_field(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    if rng.random() < 0.5:
        at, value = NIFTI_SHORTS[rng.integers(len(NIFTI_SHORTS))], DIMENSIONS[rng.integers(len(DIMENSIONS))]
        changed[at : at + 2] = np.array(value, "<i2").tobytes()
    else:
        at, value = NIFTI_REALS[rng.integers(len(NIFTI_REALS))], REALS[rng.integers(len(REALS))]
        with np.errstate(over="ignore"):
            changed[at : at + 4] = np.array(value, "<f4").tobytes()
    return bytes(changed)


def _elements(content: bytes) -> list[int]:
    """Return offsets of what looks like value representations."""
    return [at for at in range(132, len(content) - 8) if content[at : at + 2] in VRS]


def _vr(content: bytes, rng: np.random.Generator) -> bytes:
    at = _pick(rng, tuple(_elements(content)) or (132,))
    return content[:at] + _pick(rng, VRS) + content[at + 2 :]


def _length(content: bytes, rng: np.random.Generator) -> bytes:
    at = _pick(rng, tuple(_elements(content)) or (132,)) + int(rng.choice([2, 4]))
    return content[:at] + bytes(EXTREMES[index] for index in rng.integers(len(EXTREMES), size=4)) + content[at + 4 :]


def _mutant_tag(seed: Path, rng: np.random.Generator) -> bytes:
    """Replace a valid value by an invalid one, or the transfer syntax by another."""
    with pydicom.config.disable_value_validation():
        dataset = pydicom.dcmread(seed)
        if rng.random() < 0.15:
            written = _written(dataset)
            syntax = dataset.file_meta.TransferSyntaxUID.encode()
            other = _pick(rng, tuple(other for other in (*UNCOMPRESSED, *COMPRESSED) if len(other) <= len(syntax)))
            return written.replace(syntax, other.encode().ljust(len(syntax), b"\0"), 1)
        name, values = TAGS[rng.integers(len(TAGS))]
        holder = next((part for part in _parts(dataset) if name in part), dataset)
        setattr(holder, name, values[rng.integers(len(values))])
        return _written(dataset)


def _parts(dataset: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _parts(item)


def _written(dataset: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


class MutantResult(NamedTuple):
    """The result of reading a mutant.

    Attributes:
      error: one line, or None if it was read.
      seconds: duration.
      peak_bytes: the most memory that its worker has used so far.
    """

    error: str | None
    seconds: float
    peak_bytes: int


def read_mutant(found: Found) -> MutantResult:
    """Read and prepare a mutant like any study."""
    started = time.perf_counter()
    reading = read_prepared(found, Grid.parse("32x32x16"))
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    seconds = time.perf_counter() - started
    return MutantResult(reading.reason if isinstance(reading, Refusal) else None, seconds, int(peak.split()[1]) << 10)
