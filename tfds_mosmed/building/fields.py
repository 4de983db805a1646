"""Fields of the records."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds


def record_fields(shape: tuple[int, int, int], has_masks: bool) -> dict[str, Any]:
    """Return the features of a record on a grid of that shape (slice, row, column)."""
    fields: dict[str, Any] = {
        # Without the encoding integers are stored one by one.
        "volume": tfds.features.Tensor(shape=shape, dtype=np.int16, encoding="bytes", doc="HU, -1024 to 1500"),
        "study_id": tfds.features.Text(),
        "category": tfds.features.Text(doc="the class, as the data set calls it"),
        "fold": tfds.features.Scalar(np.int32, doc="0 to 9, stratified by category"),
        "spacing_mm": tfds.features.Tensor(shape=(3,), dtype=np.float32, doc="of the grid: slice, row, column"),
        "source_shape": tfds.features.Tensor(shape=(3,), dtype=np.int32, doc="slices, rows, columns"),
        "source_spacing_mm": tfds.features.Tensor(shape=(3,), dtype=np.float32, doc="slice, row, column"),
        "source_box": tfds.features.Tensor(shape=(3, 2), dtype=np.int32, doc="the source's voxels under the grid"),
        "lungs_found": tfds.features.Scalar(np.bool_, doc="whether the grid covers the lungs' box"),
        "has_lesion_mask": tfds.features.Scalar(np.bool_),
        "voxels_sha256": tfds.features.Text(doc="of the source's shape and voxels"),
        "signature": tfds.features.Text(doc="perceptual hash of the source's voxels, base64"),
    }
    if has_masks:
        doc = "1 in lesions; all 0 without a mask"
        fields["lesion_mask"] = tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="zlib", doc=doc)
    return fields
