"""Summaries of a validation for TensorBoard: precision-recall curves, and a few studies with masks and predictions."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from covidscan.config import Config
from covidscan.data.dataset import Dataset
from covidscan.metrics import thresholds
from covidscan.runs import tensorboard

MOST_STUDIES = 6
_SIDE = 192  # pixels of a slice
_MASK_COLOR = (230, 159, 0)
_RIGHT, _WRONG, _CAPTION_ROWS = (86, 180, 233), (213, 94, 0), 34


class ValidationSummaries:
    """Summaries of a run's validations, of the same studies each time.

    A few studies are shown, of each label in turn: the slice with most lesion, or the middle one, its mask outlined.
    They have numbers, because ids may be names of patients.

    Args:
      config: of the run.
      dataset: of the run.
    """

    def __init__(self, config: Config, dataset: Dataset):
        self._config, self._labels, self._rows = config, dataset.labels, dataset.parts["validation"]
        self._records = dataset.records
        self._reference = self._labels.values[self._rows]
        if self._labels.is_set:
            return
        nth = np.asarray([np.sum(self._reference[:place] == value) for place, value in enumerate(self._reference)])
        self._places = np.sort(np.lexsort((self._reference, nth))[:MOST_STUDIES])
        self._slices: list[Image.Image] = []  # read at the first validation

    def of(self, probability: np.ndarray) -> Iterator[tensorboard.Summary]:
        """Yield the curve of each yes-or-no question of the task, and a picture.

        Nothing of a network that diverged, or of regression, which has no such question.

        Args:
          probability: (validation study, label).
        """
        if not np.isfinite(probability).all() or self._config.task == "regression":
            return  # its metrics are the curve
        task = self._config.task
        questions = thresholds.dichotomies(task, self._reference, probability)
        names = thresholds.question_names(task, self._labels.names)
        for name, (positive, score) in zip(names, questions, strict=True):
            yield tensorboard.precision_recall(f"validation/{name}", positive, score)
        if not self._labels.is_set:
            yield tensorboard.picture("validation/studies", self._draw(probability))

    def _draw(self, probability: np.ndarray) -> np.ndarray:
        """Draw the slices beside each other, each above its reference label and its prediction.

        Args:
          probability: (validation study, label).

        Returns:
          (row, column, color), uint8.
        """
        if not self._slices:
            rows = [int(self._rows[place]) for place in self._places]
            self._slices = [_slice(self._records[row], self._config.windows[0]) for row in rows]
        captions = [self._caption(place, probability[place]) for place in self._places]
        font, blank = ImageFont.load_default(12), ImageDraw.Draw(Image.new("RGB", (1, 1)))
        widest = max(blank.multiline_textbbox((0, 0), text, font)[2] for text in captions)
        height = max(image.height for image in self._slices)
        width = max(math.ceil(widest) + 8, *(image.width for image in self._slices))
        sheet = Image.new("RGB", (width * len(self._slices), height + _CAPTION_ROWS))
        canvas = ImageDraw.Draw(sheet)
        for number, (image, place, text) in enumerate(zip(self._slices, self._places, captions, strict=True)):
            sheet.paste(image, (number * width, 0))
            color = _RIGHT if probability[place].argmax() == self._reference[place] else _WRONG
            canvas.multiline_text((number * width + 4, height + 2), text, fill=color, font=font, spacing=2)
        return np.asarray(sheet)

    def _caption(self, place: int, probability: np.ndarray) -> str:
        label, names = self._reference[place], self._labels.names
        shown = 1 if len(probability) == 2 else label
        return f"study {place + 1}: {names[label]}\nP({names[shown]}) = {probability[shown]:.2f}"


def _slice(record: dict[str, Any], window: tuple[float, float]) -> Image.Image:
    """Return a slice of a study with its mask outlined, its pixels as wide as high."""
    volume, mask = record["volume"], np.asarray(record.get("lesion_mask", 0)) > 0
    index = int(mask.sum((1, 2)).argmax()) if mask.any() else len(volume) // 2
    level, width = window
    grey = np.clip((volume[index].astype(np.float32) - (level - width / 2)) * (255 / width), 0, 255).astype(np.uint8)
    sides = [size * float(step) for size, step in zip(grey.shape, record["spacing_mm"][1:], strict=True)]
    rows, columns = (max(1, round(side * _SIDE / max(sides))) for side in sides)
    image = np.asarray(Image.fromarray(grey).resize((columns, rows), Image.Resampling.BICUBIC).convert("RGB")).copy()
    if mask.any():
        lesion = np.asarray(Image.fromarray(mask[index]).resize((columns, rows), Image.Resampling.NEAREST))
        image[lesion & np.logical_not(ndimage.binary_erosion(lesion))] = _MASK_COLOR
    return Image.fromarray(image)
