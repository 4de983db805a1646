"""Summaries of a validation for TensorBoard: precision-recall curves, and a few studies with masks and predictions."""

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
_SIDE = 192  # pixels of a slice at least
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
        self._slices: list[np.ndarray] = []  # read at the first validation

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
        height, width = (max(image.shape[axis] for image in self._slices) for axis in (0, 1))
        sheet = Image.new("RGB", (width * len(self._slices), height + _CAPTION_ROWS))
        canvas, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
        for number, (image, place) in enumerate(zip(self._slices, self._places, strict=True)):
            label = self._reference[place]
            sheet.paste(Image.fromarray(image), (number * width, 0))
            shown = 1 if probability.shape[1] == 2 else label
            color = _RIGHT if probability[place].argmax() == label else _WRONG
            text = (
                f"study {place + 1}: {self._labels.names[label]}\n"
                f"P({self._labels.names[shown]}) = {probability[place, shown]:.2f}"
            )
            canvas.multiline_text((number * width + 4, height + 2), text, fill=color, font=font, spacing=2)
        return np.asarray(sheet)


def _slice(record: dict[str, Any], window: tuple[float, float]) -> np.ndarray:
    """Return a slice of a study with its mask outlined, (row, column, color), uint8."""
    volume, mask = record["volume"], np.asarray(record.get("lesion_mask", 0)) > 0
    index = int(mask.sum((1, 2)).argmax()) if mask.any() else len(volume) // 2
    level, width = window
    grey = np.clip((volume[index].astype(np.float32) - (level - width / 2)) * (255 / width), 0, 255).astype(np.uint8)
    factor = max(1, _SIDE // max(grey.shape))
    large = Image.fromarray(grey).resize((grey.shape[1] * factor, grey.shape[0] * factor), Image.Resampling.BICUBIC)
    image = np.repeat(np.asarray(large)[..., None], 3, axis=2)
    if mask.any():
        lesion = np.kron(mask[index], np.ones((factor, factor), bool))
        image[lesion & np.logical_not(ndimage.binary_erosion(lesion))] = _MASK_COLOR
    return image
