"""Summaries that TensorBoard shows beside the metrics: hyperparameters, precision-recall curves, pictures."""

import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX import summary
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue] - generated

BEST = "best/validation_auroc"
# Of a run beside its hyperparameters: the last value of each.
METRICS = (BEST, "validation/auroc", "validation/loss", "train/loss")
_JPEG_QUALITY = 88


def start(flags: Mapping[str, Any]) -> list[Summary]:
    """Return the hyperparameters of a run that starts, for the HParams dashboard.

    Args:
      flags: name -> value as JSON holds it; a list is shown as text, None is left out.
    """
    shown = {name: _text(value) if isinstance(value, list) else value for name, value in flags.items()}
    experiment, session_start, _ = summary.hparams(shown, dict.fromkeys(METRICS))
    return [experiment, session_start]


def end(best: float | None) -> list[Summary]:
    """Return the end of a run, with its best validation AUROC, where one is defined."""
    *_, session_end = summary.hparams({}, {})
    values = [] if best is None else [Summary(value=[Summary.Value(tag=BEST, simple_value=best)])]
    return [*values, session_end]


def _text(values: list) -> str:
    return ",".join(":".join(map(str, each)) if isinstance(each, list) else str(each) for each in values)


def precision_recall(tag: str, positive: np.ndarray, score: np.ndarray) -> Summary:
    """Return the precision-recall curve of positive (study,) bool and score (study,) from 0 to 1."""
    return summary.pr_curve(re.sub(r"[^-/\w.]", "_", tag), positive, score)


def picture(tag: str, image: np.ndarray) -> Summary:
    """Return a picture (row, column, color), uint8, as JPEG."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=_JPEG_QUALITY, subsampling=0)  # a mask is outlined by one pixel
    height, width, colors = image.shape
    shown = Summary.Image(height=height, width=width, colorspace=colors, encoded_image_string=data.getvalue())
    return Summary(value=[Summary.Value(tag=tag, image=shown)])
