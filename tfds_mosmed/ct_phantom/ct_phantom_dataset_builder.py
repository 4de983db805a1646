"""TFDS builder of synthetic chest CT with known lesions."""

import dataclasses
import sys
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

# TFDS's command line imports this file from its folder, without the package's root.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from tfds_mosmed.building.builder import StudyBuilder
from tfds_mosmed.building.grid_config import GRIDS, GridConfig
from tfds_mosmed.building.study import Study
from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.ct_phantom.hospital import HOSPITALS
from tfds_mosmed.ct_phantom.phantom_study import PhantomStudy
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.grid import Grid

MOSMED_STUDIES = 1110
CASES_VERSION = "1.5.0"  # of the phantoms of many scanners and diseases
MOSMED_MASKS = 50


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

    SHARES: ClassVar = ("mosmed", "balanced")

    num_studies: int = MOSMED_STUDIES
    shares: str = "mosmed"
    matrix: int = 512
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.num_studies < 1 or self.matrix < 64 or self.shares not in self.SHARES:
            raise UserError(
                f"ct_phantom/{self.name}: give num_studies of at least 1 (={self.num_studies}), matrix of at least 64 "
                f"(={self.matrix}) and shares of {' or '.join(self.SHARES)} (={self.shares})"
            )


@dataclasses.dataclass(eq=False, kw_only=True)
class CaseConfig(PhantomConfig):
    """Builder config of phantoms of many scanners and diseases.

    Attributes:
      hospital: name of the hospital in `hospital.HOSPITALS`.
      shares: as for `PhantomConfig`, or "classes": COVID-19, other pneumonias, other diseases and normal studies.
      masks: number of studies with lesion masks, CT-1 as in MosMedData; None for all.
    """

    SHARES: ClassVar = (*PhantomConfig.SHARES, "classes")

    hospital: str = "any"
    masks: int | None = None

    def __post_init__(self):
        super().__post_init__()
        hospitals = [name for name in HOSPITALS if name != "mosmed"]  # it has no classes, see PhantomConfig
        if self.hospital not in hospitals:
            raise UserError(
                f"ct_phantom/{self.name}: hospital={self.hospital} must be {' or '.join(hospitals)}; phantoms of "
                "MosMedData's are a PhantomConfig"
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
    return [demo, demo_covidscan, tiny, *like_mosmed, *balanced, *_case_configs()]


def _case_configs() -> list[PhantomConfig]:
    grid, version = Grid.parse("128x128x32"), CASES_VERSION
    return [
        CaseConfig(
            name=f"hard_{grid}", grid=grid, version=version, masks=MOSMED_MASKS,
            description="1110 phantoms of many scanners, most lesions small, among diseases that resemble COVID-19.",
        ),
        CaseConfig(
            name=f"classes_{grid}", grid=grid, version=version, shares="classes", seed=1,
            description="1110 phantoms with COVID-19, other pneumonias, other diseases, or none.",
        ),
        CaseConfig(
            name=f"varied_{grid}", grid=grid, version=version, num_studies=2400, shares="balanced", seed=2,
            description="2400 phantoms of many scanners and diseases, half of them CT-0, to train for real CT.",
        ),
        CaseConfig(
            name=f"external_{grid}", grid=grid, version=version, num_studies=300, shares="balanced",
            hospital="external", description="300 phantoms of a hospital of its own, as an external test.",
        ),
    ]  # fmt: skip


class Builder(StudyBuilder):
    """Builder of the phantoms."""

    BUILDER_CONFIGS = _configs()
    HAS_MASKS = True

    def _list_studies(self, dl_manager: tfds.download.DownloadManager) -> list[Study]:
        config: Any = self.builder_config
        # The phantoms of a set have consecutive seeds, apart from those of any other set.
        first = config.seed * 1_000_000
        if not isinstance(config, CaseConfig):
            categories = generator.categories_for(config.num_studies, config.shares, config.seed)
            return [
                PhantomStudy(f"phantom_{number:04d}", category, first + number, config.matrix)
                for number, category in enumerate(categories, 1)
            ]
        prefix = config.name.partition("_")[0]
        if config.shares == "classes":
            classes = generator.classes_for(config.num_studies, config.seed)
        else:
            classes = [(c, "") for c in generator.categories_for(config.num_studies, config.shares, config.seed)]
        mild = [number for number, (category, _) in enumerate(classes) if category == "CT-1"]
        masked = set(range(len(classes)) if config.masks is None else mild[: config.masks])
        return [
            PhantomStudy(
                f"{prefix}_{number + 1:04d}", category, first + number + 1, config.matrix, config.hospital, grade,
                number in masked,
            )
            for number, (category, grade) in enumerate(classes)
        ]  # fmt: skip
