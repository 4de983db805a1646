"""DICOM files -> the pixels of slices in HU."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pydicom

from tfds_mosmed.scans.dicom.files import read_dataset, silent_pydicom
from tfds_mosmed.scans.dicom.headers import Slice
from tfds_mosmed.scans.scan import ScanError

AIR_HU = -1024
MAX_OVERLAY_STEP = 300  # at the edge of an overlay, whose pixels continue those around it
MAX_HIGH_SHARE = 0.1  # of the pixels of a file, for an overlay or metal
CUT_SHORT = "has a slice whose file is cut short; copy the series again"
OVERLAY_GROUPS, OVERLAY_BIT_POSITION = range(0x6000, 0x6020, 2), 0x0102
PIXEL_DATA = b"\xe0\x7f\x10\x00"  # its tag, of little endian
NEEDED_TAGS = ("BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation")
JPEG_SYNTAXES, JPEG_END = "1.2.840.10008.1.2.4.", b"\xff\xd9"


class Decoder:
    """Decodes slices. Keeps the last file, so that a multi-frame file is decoded once."""

    def __init__(self):
        self._file: Path | None = None
        self._frames = np.empty(0)
        self._padding: np.ndarray | None = None

    def decode_hu(self, header: Slice) -> np.ndarray:
        """Decode a slice: int16 HU (row, column)."""
        if header.file != self._file:
            self._file, (self._frames, self._padding) = header.file, _decode_file(header.file)
        frames = self._frames.reshape(-1, *self._frames.shape[-2:])
        if header.frame >= len(frames) or frames.shape[1:] != header.shape:
            raise ScanError("has a slice whose pixels do not fit its header; export the series again")
        frame, padding = frames[header.frame], self._padding
        hu = np.rint(frame * header.slope + header.intercept).clip(-32768, 32767).astype(np.int16)
        if padding is not None:
            hu[padding.reshape(frames.shape)[header.frame] & (hu > AIR_HU)] = AIR_HU
        return hu


def _decode_file(file: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Decode the pixels of a file: the stored values, and where they are padding, None if nowhere."""
    try:
        with silent_pydicom():
            # From memory: given a path, pydicom allocates whatever length a damaged header claims.
            dataset = read_dataset(io.BytesIO(content := file.read_bytes()))
            if "PixelData" not in dataset and PIXEL_DATA in content:
                raise ScanError(CUT_SHORT)
            _check_length(dataset)
            dataset.SamplesPerPixel = 1  # may be empty
            dataset.pixel_array_options(correct_unused_bits=False)
            pixels = _right_justified(dataset, dataset.pixel_array)
            # Bits above BitsStored may be an overlay, or an unextended sign. pydicom leaves them in JPEG 2000.
            unused = max(0, 8 * pixels.dtype.itemsize - int(dataset.BitsStored)) if pixels.dtype.kind in "iu" else 0
            values = (pixels << unused) >> unused
            padding = _find_padding(dataset, pixels, values)
            if _declares_overlay(dataset):
                return values, padding
            return _without_overlay(pixels, values, padding), padding
    except (MemoryError, ScanError):
        raise
    except Exception as error:
        if _is_cut_jpeg(file):
            raise ScanError(CUT_SHORT) from error
        reason = "unknown compression" if isinstance(error, NotImplementedError) else type(error).__name__
        raise ScanError(f"has a slice that cannot be decoded ({reason}); export the series uncompressed") from error


def _check_length(dataset: pydicom.Dataset) -> None:
    """Check that a file has pixels, as many as its header declares, as far as that is known before they are decoded."""
    if "PixelData" not in dataset:
        is_float = "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset
        kind = "with pixels that are not integers" if is_float else "without pixels (PixelData)"
        raise ScanError(f"has a slice {kind}; export the series again as CT images")
    if lacking := [name for name in NEEDED_TAGS if dataset.get(name) in (None, "")]:
        raise ScanError(f"has a slice without {lacking[0]}; export the series again")
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        return
    num_frames = int(dataset.get("NumberOfFrames") or 1)
    of_frame = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8
    length = len(dataset.PixelData)
    if length < num_frames * of_frame:
        raise ScanError(CUT_SHORT)
    if length >= (num_frames + 1) * of_frame:
        raise ScanError(f"has more pixels than its header declares ({num_frames} frames); export the series again")


def _right_justified(dataset: pydicom.Dataset, pixels: np.ndarray) -> np.ndarray:
    """Return pixels whose values are in the lowest bits, where HighBit and the pixels say that they are in the highest.

    Raises:
      ScanError: they are, and the header denies it.
    """
    stored, high = int(dataset.BitsStored), int(dataset.get("HighBit", dataset.BitsStored - 1))
    num_unused = int(dataset.BitsAllocated) - stored
    bits = int(np.bitwise_or.reduce(pixels, axis=None)) if pixels.dtype.kind in "iu" else 0
    if num_unused <= 0 or not bits >> stored or bits & ((1 << num_unused) - 1):
        return pixels
    if high != stored + num_unused - 1:
        raise ScanError(
            f"has values of {stored} bits in the highest of {stored + num_unused} bits (left-justified, all multiples "
            f"of {1 << num_unused}), and its HighBit is {high}; export the series again"
        )
    return pixels >> num_unused


def _declares_overlay(dataset: pydicom.Dataset) -> bool:
    """Return whether attributes place an overlay in bits above BitsStored (DICOM PS3.3 of 2004, C.9.2)."""
    positions = (dataset.get((group, OVERLAY_BIT_POSITION)) for group in OVERLAY_GROUPS)
    return any(one is not None and (one.value or 0) >= dataset.BitsStored for one in positions)


def _is_cut_jpeg(file: Path) -> bool:
    """Return whether a file is JPEG of any kind and ends before the picture does."""
    with contextlib.suppress(Exception):  # of pydicom: whatever a damaged file makes it raise
        dataset = read_dataset(io.BytesIO(file.read_bytes()))
        is_jpeg = dataset.file_meta.TransferSyntaxUID.startswith(JPEG_SYNTAXES)
        return is_jpeg and JPEG_END not in dataset.PixelData[-16:]
    return False


def _without_overlay(pixels: np.ndarray, values: np.ndarray, padding: np.ndarray | None) -> np.ndarray:
    """Return the values without bits above BitsStored if these are an overlay or the sign, else with them.

    They are part of the value where BitsStored is too small for metal, which would be as dark as air without them.
    """
    is_high = pixels != values if padding is None else (pixels != values) & ~padding
    if not is_high.any() or (pixels.dtype.kind == "i" and pixels.min() >= 0):
        return values
    if (share := np.count_nonzero(is_high) / pixels.size) > MAX_HIGH_SHARE:
        raise ScanError(
            f"has {share:.0%} of the pixels of a slice with more bits than BitsStored, of an overlay that no attribute "
            "declares or of values; export the series again without overlays"
        )
    at_edge = is_high[..., 1:] != is_high[..., :-1]
    steps = np.abs(np.diff(values.astype(np.int64), axis=-1))[at_edge]
    return pixels if len(steps) and np.median(steps) > MAX_OVERLAY_STEP else values


def _find_padding(dataset: pydicom.Dataset, pixels: np.ndarray, values: np.ndarray) -> np.ndarray | None:
    """Find the pixels with PixelPaddingValue: bool like `pixels`; None if it is not one of their extremes.

    Args:
      dataset: the file.
      pixels: stored values, with all their bits.
      values: the same without the unused bits.
    """
    first = dataset.get("PixelPaddingValue")
    if first is None or pixels.dtype.kind not in "iu":
        return None
    last = dataset.get("PixelPaddingRangeLimit")
    # Either may be written as signed or as unsigned, whatever the pixels are.
    limits = np.array([first, first if last is None else last], np.int64).astype(pixels.dtype)
    lowest, highest = limits.min(), limits.max()
    padding = np.zeros(pixels.shape, bool)
    for stored in (pixels, values):
        padding |= (stored >= lowest) & (stored <= highest)
    others = values[~padding]
    # A value amid those of tissue is declared as padding by mistake.
    is_extreme = not others.size or others.min() > highest or others.max() < lowest
    return padding if padding.any() and is_extreme else None
