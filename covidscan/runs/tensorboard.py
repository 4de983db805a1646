"""Summaries that TensorBoard shows beside the metrics: hyperparameters, precision-recall curves, pictures."""

import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX import summary
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue] - generated

_JPEG_QUALITY = 88


def start(flags: Mapping[str, Any], headline: str) -> list[Summary]:
    """Return the hyperparameters of a run that starts, for the HParams dashboard, and the metrics shown beside them.

    Args:
      flags: name -> value as JSON holds it; a list is shown as text, None is left out.
      headline: name of the metric that chooses checkpoints.
    """
    metrics = (best_tag(headline), f"validation/{headline}", "validation/loss", "train/loss")
    shown = {name: _text(value) if isinstance(value, list) else value for name, value in flags.items()}
    experiment, session_start, _ = summary.hparams(shown, dict.fromkeys(metrics))
    return [experiment, session_start]


def best_tag(headline: str) -> str:
    """Return the tag of the best value of the metric that chooses checkpoints."""
    return f"best/validation_{headline}"


def end(best: float | None, headline: str) -> list[Summary]:
    """Return the end of a run, with the best value of the metric that chooses checkpoints, where one is defined."""
    *_, session_end = summary.hparams({}, {})
    values = [] if best is None else [Summary(value=[Summary.Value(tag=best_tag(headline), simple_value=best)])]
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
