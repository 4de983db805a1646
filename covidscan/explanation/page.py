"""Self-contained HTML page: the study, downsampled, in a NiiVue viewer with the saliency maps over it."""

import base64
import json
from importlib import resources

import jinja2
import numpy as np
from markupsafe import Markup

from covidscan.explanation import picture
from covidscan.explanation.evidence import Evidence
from covidscan.explanation.maps import to_nifti
from covidscan.report import slices
from tfds_mosmed.preprocessing.prepare import LOWEST_HU, Prepared
from tfds_mosmed.preprocessing.resize import resize
from tfds_mosmed.scans.scan import Scan

NIIVUE_VERSION = "0.69.0"
MAX_IN_PLANE = 256
MAX_SLICES = 96
_HU_STEP = 6  # per grey level of a byte: from air to 500 HU, finer than the noise
_HIGHEST_HU = LOWEST_HU + 255 * _HU_STEP


def render(
    scan: Scan,
    prepared: Prepared,
    maps: list[np.ndarray],
    evidence: Evidence,
    png: bytes,
    caption: str,
) -> str:
    """Render the page.

    Args:
      scan: the study.
      prepared: the study on the grid.
      maps: Grad-CAM, and the integrated gradients that raise and that lower the probability, each (slice, row, column)
        on the scan's voxels, 0 or more. Each is shown as a share of its maximum times the strength of the evidence.
      evidence: in the Grad-CAM; the page opens at its peak in the lungs.
      png: picture below the viewer, which is shown alone if the browser has no WebGL2.
      caption: the prediction, in one line.

    Returns:
      HTML that fetches nothing.
    """
    shape = tuple(
        min(size, limit) for size, limit in zip(scan.hu.shape, (MAX_SLICES, *[MAX_IN_PLANE] * 2), strict=True)
    )
    study = (resize(scan.hu, shape, LOWEST_HU, _HIGHEST_HU) - LOWEST_HU) / _HU_STEP
    reduced = [resize(of, shape, 0, np.inf) for of in maps]
    peak = [
        prepared.to_scan(axis, index + 0.5) / size
        for axis, (index, size) in enumerate(zip(evidence.peak, scan.hu.shape, strict=True))
    ]
    packed = {
        "study": _pack(scan, study, _HU_STEP, LOWEST_HU),
        "maps": [_pack(scan, of * (255 * evidence.strength / (float(of.max()) or 1.0)), 1 / 255) for of in reduced],
        "peak": peak,
    }
    folder = resources.files("covidscan.explanation")
    vendored = folder / "niivue"
    template = jinja2.Environment(autoescape=True).from_string((folder / "page.html").read_text())
    return template.render(
        caption=caption,
        count=shape[0],
        number=int(peak[0] * shape[0]) + 1,
        evidence=evidence.describe(),
        picture=_base64(slices.to_webp(png)),
        footnote=picture.FOOTNOTE,
        version=NIIVUE_VERSION,
        licence=(vendored / "LICENSE.txt").read_text(),
        volumes=Markup(json.dumps(packed)),
        niivue=_base64((vendored / "niivue.umd.js.gz").read_bytes()),
        css=Markup((folder / "page.css").read_text()),
        js=Markup((folder / "page.js").read_text()),
    )


def _pack(scan: Scan, values: np.ndarray, slope: float, intercept: float = 0.0) -> str:
    """Encode downsampled voxels (slice, row, column), 0 to 255, as base64 of a NIfTI file in the scan's space."""
    scale = np.eye(4)
    for axis, (size, of) in enumerate(zip(values.shape, scan.hu.shape, strict=True)):
        scale[axis, axis], scale[axis, 3] = of / size, (of / size - 1) / 2
    affine = (scan.affine @ scale)[:, [2, 1, 0, 3]]  # of (x, y, z)
    stored = np.rint(values).clip(0, 255).astype(np.uint8).transpose(2, 1, 0)
    return _base64(to_nifti(stored, affine, slope, intercept))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
