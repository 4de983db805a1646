"""The grid that every study is resampled to."""

import dataclasses
import re

from tfds_mosmed.errors import UserError

FIELDS = ("lungs", "full")


@dataclasses.dataclass(frozen=True)
class Grid:
    """A grid that studies are resampled to.

    Attributes:
      rows: front to back.
      columns: right to left.
      slices: feet to head.
      field: "lungs" crops to the box of both lungs with a margin, "full" keeps the whole field of view.
    """

    rows: int
    columns: int
    slices: int
    field: str = "lungs"

    def __post_init__(self):
        if min(self.rows, self.columns, self.slices) < 1 or self.field not in FIELDS:
            raise UserError(f"grid {self}: give positive sizes and a field of {' or '.join(FIELDS)}")

    @classmethod
    def parse(cls, name: str) -> "Grid":
        """Parse ROWSxCOLUMNSxSLICES, as in 128x128x32, or ROWSxCOLUMNSxSLICES_full for the whole field of view."""
        match = re.fullmatch(r"(\d+)x(\d+)x(\d+)(_full)?", name)
        if not match:
            raise UserError(f"grid {name!r}: write ROWSxCOLUMNSxSLICES or ROWSxCOLUMNSxSLICES_full, as in 128x128x32")
        rows, columns, slices = (int(size) for size in match.groups()[:3])
        return cls(rows, columns, slices, "full" if match[4] else "lungs")

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}x{self.slices}" + ("_full" if self.field == "full" else "")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns), the axis order of volumes in memory."""
        return (self.slices, self.rows, self.columns)
