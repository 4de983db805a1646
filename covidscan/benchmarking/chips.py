"""TPU slices by name, as in v5e:4x4, and the specifications of their chips."""

import math
import re
from typing import NamedTuple

from tfds_mosmed.errors import UserError

MOST_CHIPS = 256


class Chip(NamedTuple):
    """The stated specifications of a TPU chip.

    Attributes:
      generation: as in the names of slices.
      bfloat16: peak, TFLOP/s.
      memory: of HBM, GB.
      memory_bandwidth: of HBM, GB/s.
      interconnect_bandwidth: that a chip sends to its neighbours over all links together, GB/s: half of the
        bidirectional bandwidth, an eighth of the Gbit/s that older pages state.
      dimensions: of the torus.
      chips_per_host: the most chips that one host feeds.
      source: of the values.
    """

    generation: str
    bfloat16: float
    memory: float
    memory_bandwidth: float
    interconnect_bandwidth: float
    dimensions: int
    chips_per_host: int
    source: str


CHIPS = (
    Chip("v4", 275, 32, 1200, 300, 3, 4, "cloud.google.com/tpu/docs/v4"),
    Chip("v5p", 459, 95, 2765, 600, 3, 4, "cloud.google.com/tpu/docs/v5p"),
    Chip("v5e", 197, 16, 819, 200, 2, 8, "cloud.google.com/tpu/docs/v5e"),
    Chip("v6e", 918, 32, 1640, 448, 2, 8, "cloud.google.com/tpu/docs/v6e"),
)


class Slice(NamedTuple):
    """A slice of TPU chips.

    Attributes:
      chip: its kind.
      shape: chips along each dimension of the torus.
    """

    chip: Chip
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """As in v5e:4x4."""
        return f"{self.chip.generation}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(self.shape)


def parse_slice(name: str) -> Slice:
    """Parse GENERATION:SHAPE.

    Raises:
      UserError: there is no such slice, or it has more than 256 chips.
    """
    matched = re.fullmatch(r"(\w+):(\d{1,3}(?:x\d{1,3}){1,2})", name)
    chip = next((chip for chip in CHIPS if matched and chip.generation == matched[1]), None)
    shape = tuple(map(int, matched[2].split("x"))) if matched else ()
    # Hosts of a slice hold 2 x 2 chips.
    even = all(size > 0 and size % 2 == 0 for size in shape[:2]) and all(size > 0 for size in shape[2:])
    if chip is None or len(shape) != chip.dimensions or not even or math.prod(shape) > MOST_CHIPS:
        raise UserError(
            f"--topology={name}: write v5e or v6e and an even number of rows and columns, as in v5e:4x4, or v4 or v5p "
            f"and three sizes, the first two even, as in v5p:2x2x2, of at most {MOST_CHIPS} chips"
        )
    return Slice(chip, shape)
