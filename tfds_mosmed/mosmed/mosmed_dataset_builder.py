"""TFDS builder of MosMedData: chest CT with COVID-19-related findings."""

import dataclasses
import logging
import sys
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader

# TFDS's command line imports this file from its folder, without the package's root.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from tfds_mosmed.building.builder import StudyBuilder
from tfds_mosmed.building.grid_config import GRIDS, GridConfig
from tfds_mosmed.building.study import ALTERED, MASK_ALTERED, FileStudy, Study
from tfds_mosmed.errors import UserError, one_line
from tfds_mosmed.mosmed import mosmed_files
from tfds_mosmed.progress import announce
from tfds_mosmed.scans.find import log_left_out

SAMPLE_URL = "https://github.com/hasibzunair/3D-image-classification-tutorial/releases/download/v0.2"
SAMPLE_FILES = ("CT-0.zip", "CT-23.zip")
SAMPLE_STUDIES = 200
downloader.MAX_RETRIES = 2  # of TFDS: ten of them, further and further apart, take minutes without a network
HOW_TO_GET = (
    "get MosMedData (1110 studies; free account) from "
    "kaggle.com/datasets/mathurinache/mosmeddata-chest-ct-scans-with-covid19 "
    "and give the folder with its archive, or with studies/CT-0 … CT-4, as --manual_dir; "
    "--dataset=mosmed/sample_128x128x32 downloads a public sample of 200 by itself"
)


@dataclasses.dataclass(eq=False, kw_only=True)
class MosMedConfig(GridConfig):
    """Builder config of all of MosMedData, or of its public sample, on a grid.

    Attributes:
      grid: grid of the records.
      sample_url: address of the sample's archives; None for all of MosMedData, from --manual_dir.
    """

    sample_url: str | None = None


class Builder(StudyBuilder):
    """Builder of MosMedData."""

    BUILDER_CONFIGS = [  # noqa: RUF012
        *(MosMedConfig(name=str(grid), grid=grid) for grid in GRIDS),
        *(MosMedConfig(name=f"sample_{grid}", grid=grid, sample_url=SAMPLE_URL) for grid in GRIDS),
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "128x128x32"
    MANUAL_DOWNLOAD_INSTRUCTIONS = HOW_TO_GET
    HAS_MASKS = True

    @property
    def IS_FROM_FOLDER(self) -> bool:  # type: ignore[override]  # noqa: N802 - it depends on the configuration
        """True but for the sample, which is downloaded."""
        return self._sample_url is None

    @property
    def _sample_url(self) -> str | None:
        config: Any = self.builder_config
        return config.sample_url

    def published_split(self) -> dict[str, str]:
        """Return CovidNet3D's 779/331 split: study id -> "train" or "test"."""
        return {study_id: study.covidnet3d_split for study_id, study in mosmed_files.read_list().items()}

    def checks(self) -> dict[str, int]:
        """Return how many files differ from studies.csv, and how.

        Returns:
          Numbers of missing, extra, other_category, altered, masks_altered, unreadable.
        """
        return dict(self._metadata_of("checks"))

    def _list_studies(self, dl_manager: tfds.download.DownloadManager) -> list[Study]:
        listed = mosmed_files.read_list()
        if self._sample_url is None:
            studies = self._list_folder(self._manual_dir(dl_manager))
            expected = len(listed)
        else:
            studies = self._sample_studies(dl_manager, listed)
            expected = SAMPLE_STUDIES
        self._counts = mosmed_files.compare(studies, listed, expected)
        return list(studies)

    def _list_folder(self, root: Path) -> list[FileStudy]:
        listed = mosmed_files.read_list()
        files = mosmed_files.find_files(root, Path(self.data_dir_root) / "downloads" / "unpacked")
        studies, left_out = mosmed_files.match_studies(files, listed)
        self._own_metadata["left_out"] = left_out
        log_left_out(root, left_out, "name volumes CT-0/study_0001.nii.gz and masks study_0255_mask.nii.gz")
        if not studies:
            raise UserError(f"--manual_dir={root}: holds no studies/CT-*/study_*.nii.gz; {HOW_TO_GET}")
        return studies

    def _sample_studies(self, dl_manager, listed) -> list[FileStudy]:
        urls = [f"{self._sample_url}/{name}" for name in SAMPLE_FILES]
        announce(f"Downloading {' and '.join(SAMPLE_FILES)}, about 2 GB: minutes, unless they are there already")
        if not sys.stderr.isatty():
            tfds.disable_progress_bar()  # TFDS would write thousands of bars to the file
        try:
            archives = [Path(path) for path in dl_manager.download(urls)]
        except Exception as error:  # of requests, TFDS or the operating system
            reason = one_line(error)
            raise UserError(
                f"{urls[0]} and {SAMPLE_FILES[1]}: cannot be downloaded ({reason}); check the network"
            ) from error
        files = (pair for archive in archives for pair in mosmed_files.archive_files(archive, archive.parent))
        return mosmed_files.match_studies(files, listed)[0]

    def _finish(self, index, skipped) -> None:
        warnings = [line for lines in index.warnings.values() for line in lines]
        self._counts.update(
            altered=warnings.count(ALTERED), masks_altered=warnings.count(MASK_ALTERED), unreadable=len(skipped)
        )
        self._own_metadata["checks"] = self._counts
        if any(self._counts.values()):
            logging.getLogger(__name__).warning("mosmed: %s", mosmed_files.describe(self._counts, len(index)))
