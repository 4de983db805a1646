"""Catalog of the data sets by name."""

import importlib
from pathlib import Path

from tfds_mosmed import storage
from tfds_mosmed.building.builder import StudyBuilder
from tfds_mosmed.errors import UserError

DATASETS = ("ct_folder", "ct_phantom", "mosmed")


def load_builder(dataset: str, data_dir: str | Path) -> StudyBuilder:
    """Return the builder of a data set.

    Args:
      dataset: NAME/CONFIG, as in "mosmed/128x128x32" or "ct_phantom/demo".
      data_dir: folder of the records; may be in an object store (gs://, s3://).

    Raises:
      UserError: if there is no such data set (the message lists those that exist), or `data_dir` cannot be reached.
    """
    name, _, config = dataset.partition("/")
    if name not in DATASETS:
        raise UserError(
            f"--dataset={dataset}: there is no {name!r}; choose NAME/CONFIG, NAME one of {', '.join(DATASETS)}"
        )
    builder_class = importlib.import_module(f"tfds_mosmed.{name}.{name}_dataset_builder").Builder
    if config not in builder_class.builder_configs:
        configs = ", ".join(builder_class.builder_configs)
        raise UserError(
            f"--dataset={dataset}: {name} has no configuration {config!r}; choose {name}/ and one of {configs}"
        )
    storage.check(data_dir)
    return builder_class(config=config, data_dir=str(data_dir))
