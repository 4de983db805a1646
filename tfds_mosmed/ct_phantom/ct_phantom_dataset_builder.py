"""TFDS builder of synthetic chest CT with known lesions."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

# TFDS's command line imports this file from its folder, without the package's root.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from tfds_mosmed.building.builder import GRIDS, GridConfig, StudyBuilder
from tfds_mosmed.building.study import Study
from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.ct_phantom.phantom_study import PhantomStudy
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.grid import Grid

MOSMED_STUDIES = 1110
SHARES = ("mosmed", "balanced")


@dataclasses.dataclass(eq=False, kw_only=True)
class PhantomConfig(GridConfig):
    """Builder config of a set of phantoms.

    Attributes:
      grid: grid of the records.
      num_studies: number of phantoms.
      shares: shares of the categories: "mosmed" as in MosMedData, "balanced" with half of them CT-0.
      matrix: rows and columns of the slices that are drawn; MosMedData's are 512.
      seed: seed of the set; sets of different seeds share no phantom.
    """

    num_studies: int = MOSMED_STUDIES
    shares: str = "mosmed"
    matrix: int = 512
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.num_studies < 1 or self.matrix < 64 or self.shares not in SHARES:
            raise UserError(
                f"ct_phantom/{self.name}: give num_studies of at least 1 (={self.num_studies}), matrix of at least 64 "
                f"(={self.matrix}) and shares of {' or '.join(SHARES)} (={self.shares})"
            )


def _configs() -> list[PhantomConfig]:
    demo, demo_covidscan = (
        PhantomConfig(
            name=name, grid=Grid.parse(grid), num_studies=200, shares="balanced", matrix=256,
            description="200 phantoms, half of them without lesions: minutes on two cores.",
        )
        for name, grid in (("demo", "128x128x32"), ("demo_64x64x32_full", "64x64x32_full"))
    )  # fmt: skip
    tiny = PhantomConfig(
        name="tiny", grid=Grid.parse("32x32x16"), num_studies=24, shares="balanced", matrix=128,
        description="24 coarse phantoms for smoke tests.",
    )  # fmt: skip
    like_mosmed = [PhantomConfig(name=str(grid), grid=grid) for grid in GRIDS]
    balanced = [PhantomConfig(name=f"balanced_{grid}", grid=grid, shares="balanced") for grid in GRIDS]
    return [demo, demo_covidscan, tiny, *like_mosmed, *balanced]


class Builder(StudyBuilder):
    """Builder of the phantoms."""

    BUILDER_CONFIGS = _configs()
    HAS_MASKS = True

    def _list_studies(self, dl_manager: tfds.download.DownloadManager) -> list[Study]:
        config: Any = self.builder_config
        categories = generator.categories_for(config.num_studies, config.shares, config.seed)
        return [
            # The phantoms of a set have consecutive seeds, apart from those of any other set.
            PhantomStudy(f"phantom_{number:04d}", category, config.seed * 1_000_000 + number, config.matrix)
            for number, category in enumerate(categories, 1)
        ]
