"""Builder configs of the data sets, a grid each."""

import dataclasses

import tensorflow_datasets as tfds

from tfds_mosmed import dataset_names
from tfds_mosmed.preprocessing.grid import Grid


@dataclasses.dataclass(eq=False, kw_only=True)
class GridConfig(tfds.core.BuilderConfig):
    """Builder config that sets the grid.

    Attributes:
      grid: grid of the records; may be given as text, as in "128x128x32".
    """

    grid: Grid

    def __post_init__(self):
        if isinstance(self.grid, str):
            self.grid = Grid.parse(self.grid)


GRIDS = tuple(map(Grid.parse, dataset_names.GRIDS))
