"""TFDS builder of chest CT that a table lists."""

import sys
from collections.abc import Sequence
from pathlib import Path

# TFDS's command line imports this file from its folder, without the package's root.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from tfds_mosmed.building.builder import StudyBuilder
from tfds_mosmed.building.grid_config import GRIDS, GridConfig
from tfds_mosmed.building.study import Study
from tfds_mosmed.ct_table.studies import list_studies
from tfds_mosmed.errors import UserError


class Builder(StudyBuilder):
    """Builder of the studies in a table."""

    BUILDER_CONFIGS = [GridConfig(name=str(grid), grid=grid) for grid in GRIDS]  # noqa: RUF012
    DEFAULT_BUILDER_CONFIG_NAME = "128x128x32"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give --manual_dir=ROOT, the folder of the studies, and --table=studies.csv"
    HAS_MASKS = True
    IS_FROM_FOLDER = True
    IS_FROM_TABLE = True

    def _list_folder(self, root: Path) -> Sequence[Study]:
        if self._table is None:
            name = f"{self.name}/{self.builder_config_name}"
            raise UserError(f"--dataset={name} needs --table=FILE, a CSV file with a row for each study")
        return list_studies(self._table, root)
