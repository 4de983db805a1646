"""DICOM files -> the pixels of slices in HU."""

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
            dataset = read_dataset(io.BytesIO(file.read_bytes()))
            _check_length(dataset)
            dataset.SamplesPerPixel = 1  # may be empty
            dataset.pixel_array_options(correct_unused_bits=False)
            pixels = dataset.pixel_array
            # Bits above BitsStored may be an overlay, or an unextended sign. pydicom leaves them in JPEG 2000.
            unused = max(0, 8 * pixels.dtype.itemsize - int(dataset.BitsStored)) if pixels.dtype.kind in "iu" else 0
            values = (pixels << unused) >> unused
            padding = _find_padding(dataset, pixels, values)
            return _without_overlay(pixels, values, padding), padding
    except (MemoryError, ScanError):
        raise
    except Exception as error:
        reason = "unknown compression" if isinstance(error, NotImplementedError) else type(error).__name__
        raise ScanError(f"has a slice that cannot be decoded ({reason}); export the series uncompressed") from error


def _check_length(dataset: pydicom.Dataset) -> None:
    """Check that a file has as many pixels as its header declares, as far as that is known before they are decoded."""
    if "PixelData" not in dataset:
        is_float = "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset
        kind = "with pixels that are not integers" if is_float else "without pixels (PixelData)"
        raise ScanError(f"has a slice {kind}; export the series again as CT images")
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        return
    num_frames = int(dataset.get("NumberOfFrames") or 1)
    of_frame = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8
    length = len(dataset.PixelData)
    if length < num_frames * of_frame:
        raise ScanError("has a slice whose file is cut short; copy the series again")
    if length >= (num_frames + 1) * of_frame:
        raise ScanError(f"has more pixels than its header declares ({num_frames} frames); export the series again")


def _without_overlay(pixels: np.ndarray, values: np.ndarray, padding: np.ndarray | None) -> np.ndarray:
    """Return the values without bits above BitsStored if these are an overlay or the sign, else with them.

    They are part of the value where BitsStored is too small for metal, which would be as dark as air without them.
    """
    is_high = pixels != values if padding is None else (pixels != values) & ~padding
    if not is_high.any() or (pixels.dtype.kind == "i" and pixels.min() >= 0):
        return values
    if np.count_nonzero(is_high) > MAX_HIGH_SHARE * pixels.size:
        raise ScanError("has pixels of more bits than BitsStored; export the series again")
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
