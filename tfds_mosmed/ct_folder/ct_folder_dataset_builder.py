"""TFDS builder of any folder of chest CT, with a sub-folder for each class."""

import sys
from collections.abc import Sequence
from pathlib import Path

# TFDS's command line imports this file from its folder, without the package's root.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from tfds_mosmed.building.builder import StudyBuilder
from tfds_mosmed.building.grid_config import GRIDS, GridConfig
from tfds_mosmed.building.study import Study
from tfds_mosmed.ct_folder.study_folder import LAYOUT, list_studies
from tfds_mosmed.errors import UserError
from tfds_mosmed.scans.find import log_left_out
from tfds_mosmed.scans.folders import TABLE_SUFFIXES, is_hidden


class Builder(StudyBuilder):
    """Builder of a folder of studies."""

    BUILDER_CONFIGS = [GridConfig(name=str(grid), grid=grid) for grid in GRIDS]  # noqa: RUF012
    DEFAULT_BUILDER_CONFIG_NAME = "128x128x32"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"give your own folder of studies, laid out as {LAYOUT}: --manual_dir=ROOT"
    IS_FROM_FOLDER = True

    @property
    def HAS_MASKS(self) -> bool:  # type: ignore[override]  # noqa: N802 - it depends on the records
        """True but for records of earlier versions, which did not read masks."""
        folders = [self.data_path, *([self._remote_path(self._remote_root)] if self._remote_root else [])]
        built = next((path for folder in folders if (path := folder / "features.json").exists()), None)
        return built is None or '"lesion_mask"' in built.read_text()

    def _list_folder(self, root: Path) -> Sequence[Study]:
        data_dir, resolved = Path(self.data_dir_root).resolve(), root.resolve()
        if data_dir.is_relative_to(resolved) and not any(map(is_hidden, data_dir.relative_to(resolved).parts)):
            raise UserError(
                f"--data_dir={self.data_dir_root}: is in --manual_dir={root}, where it would be taken for a class; "
                "give a folder outside of it"
            )
        studies, left_out = list_studies(root)
        self._own_metadata = {"left_out": left_out}
        images = {kind: count for kind, count in left_out.items() if kind not in TABLE_SUFFIXES}
        log_left_out(root, images)
        tables = {kind: count for kind, count in left_out.items() if kind in TABLE_SUFFIXES}
        log_left_out(root, tables, "if one lists the studies, give it with --dataset=ct_table/… --table=FILE.csv")
        return studies
