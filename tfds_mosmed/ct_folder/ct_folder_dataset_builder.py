"""TFDS builder of any folder of chest CT, with a sub-folder for each class."""

import sys
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

# TFDS's command line imports this file from its folder, without the package's root.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from tfds_mosmed.building.builder import GRIDS, GridConfig, StudyBuilder
from tfds_mosmed.building.study import Study
from tfds_mosmed.ct_folder.study_folder import LAYOUT, list_studies, listing_sha256
from tfds_mosmed.errors import UserError


class Builder(StudyBuilder):
    """Builder of a folder of studies."""

    BUILDER_CONFIGS = [GridConfig(name=str(grid), grid=grid) for grid in GRIDS]  # noqa: RUF012
    DEFAULT_BUILDER_CONFIG_NAME = "128x128x32"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Give your own folder of studies, laid out as {LAYOUT}: --manual_dir=ROOT."

    def prepare(self, manual_dir: str | Path | None = None, *args: Any, **kwargs: Any) -> None:
        """See `StudyBuilder.prepare`; refuses a folder other than the one that the records were made from."""
        if manual_dir is not None and self.is_built():
            studies = list_studies(Path(manual_dir))
            if listing_sha256(studies) != self._metadata_of("listing_sha256"):
                listed = self._metadata_of("num_listed")
                raise UserError(
                    f"--manual_dir={manual_dir}: does not hold the studies that {self.data_dir} was built from "
                    f"({len(studies)} here, {listed} there); give another --data_dir, or delete it"
                )
        super().prepare(manual_dir, *args, **kwargs)

    def _list_studies(self, dl_manager: tfds.download.DownloadManager) -> list[Study]:
        studies = list_studies(self._manual_dir(dl_manager))
        self._own_metadata = {"listing_sha256": listing_sha256(studies), "num_listed": len(studies)}
        return list(studies)
