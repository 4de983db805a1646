"""Small studies in a folder, and a builder of their records."""

from tfds_mosmed.building.grid_config import GridConfig
from tfds_mosmed.ct_folder.ct_folder_dataset_builder import Builder

STUDIES = {f"{kind}/s{number}": number for number in range(12) for kind in (["covid", "normal"][number % 2],)}


def small_builder(data_dir, grid="24x32x12"):
    """Return a builder of any folder of studies on a small grid."""
    return Builder(config=GridConfig(name=grid, grid=grid), data_dir=data_dir)
