"""Pictures of validation studies for TensorBoard."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from covidscan.config import Config
from covidscan.training.validation_summaries import ValidationSummaries


@pytest.mark.parametrize("long", ["b", "community_acquired_pneumonia"])
def test_slices_have_their_proportions_and_captions_do_not_overlap(long):
    volume = np.full((4, 96, 96), 600, np.int16)
    mask = np.zeros_like(volume)
    mask[2, 40:56, 40:56] = 1
    record = {"volume": volume, "spacing_mm": np.array([8.0, 2.0, 4.0]), "lesion_mask": mask}
    dataset = SimpleNamespace(
        labels=SimpleNamespace(values=np.array([0, 1, 2, 2]), is_set=False, names=("normal", "a", long)),
        parts={"validation": np.arange(4)},
        records=[record] * 4,
    )
    summaries = ValidationSummaries(Config(task="classes"), dataset)
    *_, summary = summaries.of(np.full((4, 3), 1 / 3))
    picture = np.asarray(Image.open(io.BytesIO(summary.value[0].image.encoded_image_string)).convert("RGB"))
    height, width = picture.shape[0] - 34, picture.shape[1] // 4
    tiles = picture[:height].reshape(height, 4, width, 3)
    assert (tiles.max((1, 2, 3)) > 200).all()
    assert (height, (tiles[0, 0] > 200).all(1).sum()) == (96, 192)  # half as many millimetres high as wide
    captions = picture[height:].reshape(34, 4, width, 3)
    assert (captions.max((0, 2, 3)) > 100).all()
    assert captions[:, :, -4:].max() < 40  # a caption ends before the next; JPEG blurs
