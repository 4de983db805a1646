"""Files of the records: random access, and a streaming writer.

TFDS's own writer holds up to 1 GB in memory, and beyond that needs TensorFlow.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from tfds_mosmed.building.metadata import check_record
from tfds_mosmed.errors import UserError, one_line

SHARD_BYTES = 128 << 20


class StudyRecords(Sequence):
    """Random access to the records, with texts as str; safe to read from several threads, and can be pickled.

    Args:
      source: the records as they are stored.
      rows: of the index, which the records must agree with.
      message: of the error if one does not, or cannot be read, with {} for the reason.
    """

    def __init__(self, source: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], message: str):
        self._source, self._rows, self._message = source, rows, message

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row):  # type: ignore[override]
        """Read record `row`, an integer from 0: a dict of the fields. Raises UserError."""
        if not 0 <= row < len(self):
            raise IndexError(f"there is no record {row}; there are {len(self)}")
        try:
            stored = self._source[row].items()
            record = {name: value.decode() if isinstance(value, bytes) else value for name, value in stored}
            check_record(record, self._rows[row])
        except Exception as error:  # of array_record: many types
            reason = f"record {row}, {self._rows[row]['study_id']}, cannot be read ({one_line(error)})"
            raise UserError(self._message.replace("{}", reason)) from error
        return record


def write_shards(records: Iterator[dict[str, Any]], features: Any, template: Any, writer: Any) -> tfds.core.SplitInfo:
    """Write the records of a split, in their order.

    Args:
      records: records to write; one is held in memory at a time.
      features: features of the data set.
      template: template of the split's file names.
      writer: TFDS's writer of examples to one file.

    Returns:
      TFDS's description of the split. Without records no file is written.
    """
    sizes: list[list[int]] = []
    examples = (features.serialize_example(record) for record in records)

    def shard(first: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield examples until the shard is full, beginning with one that was already taken."""
        example: bytes | None = first
        while example is not None:
            sizes[-1].append(len(example))
            yield len(sizes[-1]), example
            full = sum(sizes[-1]) + len(example) > SHARD_BYTES
            example = None if full else next(examples, None)

    for first in examples:
        sizes.append([])
        writer.write(f"{_unnamed(template)}-{len(sizes) - 1}", shard(first))
    for index in range(len(sizes)):  # the number of shards, a part of their names, is only known now
        unnamed = template.data_dir / f"{_unnamed(template).name}-{index}"
        unnamed.rename(template.sharded_filepath(shard_index=index, num_shards=len(sizes)))
    return tfds.core.SplitInfo(
        name=template.split,
        shard_lengths=[len(shard) for shard in sizes],
        num_bytes=sum(map(sum, sizes)),
        filename_template=template,
    )


def _unnamed(template: Any) -> Any:
    return template.data_dir / f"{template.split}-unnamed"
