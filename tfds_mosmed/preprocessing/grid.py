"""The grid that every study is resampled to."""

import dataclasses
import re

from tfds_mosmed.errors import UserError

FIELDS = ("lungs", "full", "fixed")
FIXED_MM = (320.0, 384.0, 384.0)  # of a fixed field, (slice, row, column): nearly all lungs with their margins fit


@dataclasses.dataclass(frozen=True)
class Grid:
    """A grid that studies are resampled to.

    Attributes:
      rows: front to back.
      columns: right to left.
      slices: feet to head.
      field: "lungs" crops to the box of both lungs with a margin, "full" keeps the whole field of view, "fixed" crops
        and pads to FIXED_MM about the middle of the lungs' box, so that voxels have the same size in all studies.
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
        """Parse ROWSxCOLUMNSxSLICES, as in 128x128x32; other fields than the lungs follow, as in 128x128x32_full."""
        match = re.fullmatch(r"(\d+)x(\d+)x(\d+)(?:_(full|fixed))?", name)
        if not match:
            raise UserError(
                f"grid {name!r}: write ROWSxCOLUMNSxSLICES, as in 128x128x32, and _full or _fixed behind it"
            )
        rows, columns, slices = (int(size) for size in match.groups()[:3])
        return cls(rows, columns, slices, match[4] or "lungs")

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}x{self.slices}" + ("" if self.field == "lungs" else f"_{self.field}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns), the axis order of volumes in memory."""
        return (self.slices, self.rows, self.columns)
