"""Explanations of an ensemble's predictions: a picture for notebooks, files for viewers and for archives."""

import functools
import threading
from pathlib import Path

import numpy as np

from covidscan.explanation.lesion_map import LesionMapper, has_lesion_maps
from covidscan.explanation.saliency import SaliencyMapper
from covidscan.explanation.scale import Scale, of_ensemble
from covidscan.trained_models.ensemble import Ensemble
from covidscan.trained_models.model_info import Answer
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.prepare import Prepared
from tfds_mosmed.scans.scan import Scan

# Matplotlib is imported lazily: slow, and unused until something is drawn.


class Explainer:
    """Draws and writes the saliency maps of an ensemble's predictions, and how much of the lungs is involved.

    Args:
      ensemble: the networks.
      saliency: whether `write` writes saliency maps, a picture and a page.
      involvement: whether `write` writes the map of lesions or evidence, the lungs and their measurements.
      dicom: whether `write` writes them as DICOM objects too, for studies of a DICOM series.
    """

    def __init__(self, ensemble: Ensemble, *, saliency: bool = True, involvement: bool = False, dicom: bool = False):
        self._mapper = SaliencyMapper(ensemble)
        self._ensemble = ensemble
        self._saliency, self._involvement, self._dicom = saliency, involvement, dicom
        # Of several threads one computes, so that each program is compiled once, and one draws: Matplotlib is not safe
        # for threads.
        self._computing, self._drawing = threading.Lock(), threading.Lock()

    @functools.cached_property
    def _scales(self) -> list[Scale] | None:
        return of_ensemble(self._ensemble)

    @functools.cached_property
    def _lesion_mapper(self) -> LesionMapper | None:
        return LesionMapper(self._ensemble) if has_lesion_maps(self._ensemble.members) else None

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
        self, folder: Path, name: str, scan: Scan, prepared: Prepared, label: int | None, answer: Answer
    ) -> tuple[list[str], list[str]]:
        """Write the files that were asked for, see `write_explanation`, `write_involvement` and `write_dicom`.

        Several threads may call it: one computes its maps while another writes its files.

        Args:
          folder: an existing folder.
          name: prefix of the files' names.
          scan: the study.
          prepared: the study on the grid.
          label: see `SaliencyMapper.__call__`.
          answer: what was predicted.

        Returns:
          Names of the files, and what could not be written, a line each.

        Raises:
          OSError: a file cannot be written.
        """
        files: list[str] = []
        problems: list[str] = []
        if self._saliency:
            from covidscan.explanation.write import write_explanation

            with self._computing:
                maps = self._mapper(prepared.volume, label)
                strength = self._strength(label, maps.score)
            with self._drawing:
                files += write_explanation(folder, name, scan, prepared, maps, strength, answer.caption)
        if self._involvement or self._dicom:
            from covidscan.explanation.involvement import measure_involvement, write_involvement

            with self._computing:
                computed = self._map(prepared, label)
            found = measure_involvement(scan, prepared, *computed)
            if self._involvement:
                files += write_involvement(folder, name, scan, found, answer.model)
            if self._dicom:
                from covidscan.explanation.dicom_output import write_dicom

                try:
                    files += write_dicom(folder, name, scan, found, answer.probabilities, answer.model)
                except UserError as error:
                    problems.append(str(error))
        return files, problems

    def _map(self, prepared: Prepared, label: int | None) -> tuple[np.ndarray, str]:
        """Compute the map of lesions, or of evidence where the networks have none, and its kind."""
        from covidscan.explanation.involvement import EVIDENCE, LESIONS

        if self._lesion_mapper is not None:
            return self._lesion_mapper(prepared.volume), LESIONS
        cam, log_odds = self._mapper.grad_cam(prepared.volume, label)
        return cam * np.float32(self._strength(label, log_odds) / (float(cam.max()) or 1.0)), EVIDENCE
