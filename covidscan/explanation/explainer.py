"""Explanations of an ensemble's predictions: a picture for notebooks, files for viewers."""

from pathlib import Path

from covidscan.explanation.saliency import SaliencyMapper
from covidscan.trained_models.ensemble import Ensemble
from tfds_mosmed.preprocessing.prepare import Prepared
from tfds_mosmed.scans.scan import Scan

# Matplotlib is imported lazily: slow, and unused until something is drawn.


class Explainer:
    """Draws and writes the saliency maps of an ensemble's predictions.

    Args:
      ensemble: the networks.
    """

    def __init__(self, ensemble: Ensemble):
        self._mapper = SaliencyMapper(ensemble)

    def picture(self, prepared: Prepared, label: int | None) -> bytes:
        """Draw the slice with the highest Grad-CAM, as PNG.

        Args:
          prepared: the study on the grid.
          label: see `SaliencyMapper.__call__`.
        """
        from covidscan.explanation.picture import overlay_png

        return overlay_png(prepared, self._mapper.grad_cam(prepared.volume, label))

    def write(
        self, folder: Path, name: str, scan: Scan, prepared: Prepared, label: int | None, caption: str
    ) -> list[str]:
        """Write the files that explain a label, see `write_explanation`.

        Args:
          folder: an existing folder.
          name: prefix of the files' names.
          scan: the study.
          prepared: the study on the grid.
          label: see `SaliencyMapper.__call__`.
          caption: the prediction, in one line.

        Returns:
          Names of the files.

        Raises:
          OSError: a file cannot be written.
        """
        from covidscan.explanation.write import write_explanation

        return write_explanation(folder, name, scan, prepared, self._mapper(prepared.volume, label), caption)
