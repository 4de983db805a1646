"""Catalog of the data sets by name."""

import importlib
from pathlib import Path

from tfds_mosmed import storage
from tfds_mosmed.building.builder import StudyBuilder
from tfds_mosmed.dataset_names import check_name


def load_builder(
    dataset: str, data_dir: str | Path, manual_dir: str | Path | None = None, table: str | Path | None = None
) -> StudyBuilder:
    """Return the builder of a data set.

    Args:
      dataset: NAME/CONFIG, as in "mosmed/128x128x32" or "ct_phantom/demo".
      data_dir: folder of the records; may be in an object store (gs://, s3://). Of several cohorts in it, each has
        records of its own, see `StudyBuilder.place`.
      manual_dir: folder of the raw studies, by which the cohort is told; None where there is one.
      table: CSV file that lists the studies.

    Raises:
      UserError: there is no such data set, `data_dir` cannot be reached, or holds several cohorts.
    """
    name, config = check_name(dataset)
    storage.check(data_dir)
    builder_class = importlib.import_module(f"tfds_mosmed.{name}.{name}_dataset_builder").Builder
    builder = builder_class(config=config, data_dir=str(data_dir))
    place = builder.place(manual_dir, table)
    return builder if place is None else builder_class(config=config, data_dir=str(place))
