"""Explanations of an ensemble's predictions: a picture for notebooks, files for viewers."""

import functools
from pathlib import Path

from covidscan.explanation.saliency import SaliencyMapper
from covidscan.explanation.scale import Scale, of_ensemble
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
        self._ensemble = ensemble

    @functools.cached_property
    def _scales(self) -> list[Scale] | None:
        return of_ensemble(self._ensemble)

    def _strength(self, label: int | None, log_odds: float) -> float:
        if not self._scales:
            return 1.0
        return self._scales[-1 if label is None else label].strength(log_odds)  # None: the only one, of disease

    def picture(self, prepared: Prepared, label: int | None) -> bytes:
        """Draw the slice with the highest Grad-CAM in the lungs, as PNG.

        Args:
          prepared: the study on the grid.
          label: see `SaliencyMapper.__call__`.
        """
        from covidscan.explanation.evidence import find_evidence, telling_slices
        from covidscan.explanation.picture import overlay_png

        cam, log_odds = self._mapper.grad_cam(prepared.volume, label)
        strength = self._strength(label, log_odds)
        (number,) = telling_slices(prepared, find_evidence(prepared, cam, strength), 1)
        return overlay_png(prepared, cam, number, strength)

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

        maps = self._mapper(prepared.volume, label)
        return write_explanation(folder, name, scan, prepared, maps, self._strength(label, maps.score), caption)
