"""Preparation of one study with other systems' own code, in one thread on one core."""

from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from tests.peers import replies

LOW_HU, HIGH_HU = replies.WINDOW_HU


def _normalised(path: str) -> np.ndarray:
    """Read a study as float64 (x, y, z), and scale the window to [0, 1] as both Keras programs do."""
    volume = nib.load(path).get_fdata()
    volume[volume < LOW_HU] = LOW_HU
    volume[volume > HIGH_HU] = HIGH_HU
    return (volume - LOW_HU) / (HIGH_HU - LOW_HU)


def _zoomed(volume: np.ndarray, grid: tuple[int, int, int], order: int) -> np.ndarray:
    factors = [size / old for size, old in zip(grid, volume.shape, strict=True)]
    return ndimage.zoom(volume, factors, order=order)


def covidscan_original(path: str) -> Callable[[], Any]:
    """The original CovidScan's: float64, rotated by 90 degrees, cubic zoom to 64x64x32."""
    return lambda: _zoomed(np.rot90(_normalised(path)), (64, 64, 32), order=3)


def keras_example(path: str) -> Callable[[], Any]:
    """The Keras example's: float32, `ndimage.rotate` by 90 degrees, linear zoom to 128x128x64."""

    def prepare() -> np.ndarray:
        volume = _normalised(path).astype(np.float32)
        return _zoomed(ndimage.rotate(volume, 90, reshape=False), (128, 128, 64), order=1)

    return prepare


def monai(path: str) -> Callable[[], Any]:
    """MONAI's transforms to 128x128x32."""
    import torch
    from monai import transforms as to

    torch.set_num_threads(1)
    window = to.ScaleIntensityRange(LOW_HU, HIGH_HU, 0.0, 1.0, clip=True)
    prepare = to.Compose(
        [to.LoadImage(), to.EnsureChannelFirst(), to.Orientation("LAS", labels=None), window, to.Resize((128, 128, 32))]
    )
    return lambda: prepare(path)


def torchio(path: str) -> Callable[[], Any]:
    """TorchIO's transforms to 128x128x32."""
    import SimpleITK as sitk  # noqa: N813 - its customary name
    import torch
    import torchio as tio

    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    window = tio.RescaleIntensity((0, 1), in_min_max=(LOW_HU, HIGH_HU))
    prepare = tio.Compose([tio.ToCanonical(), tio.Clamp(LOW_HU, HIGH_HU), window, tio.Resize((128, 128, 32))])
    return lambda: prepare(tio.ScalarImage(path)).data


PREPARATIONS = {
    "covidscan_original": covidscan_original,
    "keras_example": keras_example,
    "monai": monai,
    "torchio": torchio,
}

if __name__ == "__main__":
    output = replies.open_output()
    what, settings = replies.settings()
    replies.reply_with_timings(output, {"prepare": PREPARATIONS[what](**settings)})
