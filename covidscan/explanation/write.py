"""Files of one study's explanation."""

import numpy as np
from etils import epath

from covidscan.explanation import maps, page, picture
from covidscan.explanation.evidence import find_evidence, telling_slices
from covidscan.explanation.saliency import Maps
from covidscan.report import plots
from covidscan.report.slices import to_pdf
from tfds_mosmed.preprocessing.prepare import Prepared
from tfds_mosmed.scans.scan import Scan
from tfds_mosmed.storage import write_whole

THUMBNAIL_DPI = 60


def write_explanation(
    folder: epath.PathLike, name: str, scan: Scan, prepared: Prepared, saliency: Maps, strength: float, caption: str
) -> list[str]:
    """Write the saliency maps of a study for any viewer (NIfTI), for print (PNG, PDF) and for a browser (HTML).

    Args:
      folder: an existing folder.
      name: prefix of the files' names.
      scan: the study.
      prepared: the study on the grid.
      saliency: its maps on the grid.
      strength: of the evidence, from 0 to 1.
      caption: the prediction, in one line: title of the picture and of the page.

    Returns:
      Names of the files: NAME_grad_cam.nii.gz (0 or more, no unit), NAME_integrated_gradients.nii.gz (log-odds per
      ml), both with the shape and affine of the study's own file, NAME.png, NAME.pdf, NAME_thumbnail.png and NAME.html.
      Each file is written whole or not at all.

    Raises:
      OSError: a file cannot be written.
    """
    density = maps.per_ml(saliency.integrated_gradients, prepared.spacing_mm)
    smooth = maps.smooth(density, prepared.spacing_mm)
    cam, attributed, shown = (maps.lay_over(scan, prepared, of) for of in (saliency.grad_cam, density, smooth))
    evidence = find_evidence(prepared, saliency.grad_cam, strength)
    box = prepared.box
    covered = scan.hu[box]
    telling = telling_slices(prepared, evidence, picture.SLICES)
    positions = (int(prepared.to_scan(0, number + 0.5)) - box[0].start for number in telling)
    slices = sorted({min(max(position, 0), len(covered) - 1) for position in positions})
    (thumbnail,) = telling_slices(prepared, evidence, 1)
    figure = picture.draw(
        covered, scan.spacing_mm, (cam[box], shown[box]), slices, (box[0].start, len(scan.hu)), strength,
        f"{caption}\n{evidence.describe()}",
    )  # fmt: skip
    png = plots.to_png(figure)
    layers = [cam, np.maximum(shown, 0), np.maximum(-shown, 0)]
    html = page.render(scan, prepared, layers, evidence, png, caption)
    files = {
        f"{name}_grad_cam.nii.gz": maps.map_to_nifti(scan, cam),
        f"{name}_integrated_gradients.nii.gz": maps.map_to_nifti(scan, attributed),
        f"{name}.png": png,
        f"{name}.pdf": to_pdf(png, plots.DPI),
        f"{name}_thumbnail.png": picture.overlay_png(prepared, saliency.grad_cam, thumbnail, strength, THUMBNAIL_DPI),
        f"{name}.html": html.encode(),
    }
    for file, content in files.items():
        write_whole(epath.Path(folder) / file, content)
    return list(files)
