"""TPU slices and hosts with GPUs by name, as in v5e:4x4 and h100:8, and the specifications of their chips."""

import math
import re
from typing import NamedTuple

from tfds_mosmed.errors import UserError

MOST_CHIPS = 256  # TPUs in a slice


class Chip(NamedTuple):
    """The stated specifications of a TPU chip or a GPU.

    Attributes:
      generation: as in the names of slices.
      bfloat16: peak, TFLOP/s.
      memory: of HBM, GB.
      memory_bandwidth: of HBM, GB/s.
      interconnect_bandwidth: that a chip sends to its neighbours over all links together, GB/s: half of the
        bidirectional bandwidth, an eighth of the Gbit/s that older pages of TPUs state.
      dimensions: of the torus; 1 for GPUs, which a switch connects.
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

    @property
    def is_gpu(self) -> bool:
        """True of GPUs."""
        return self.generation in GPU_TARGETS

    @property
    def most_chips(self) -> int:
        """The most chips that the links connect."""
        return self.chips_per_host if self.is_gpu else MOST_CHIPS


CHIPS = (
    Chip("v4", 275, 32, 1200, 300, 3, 4, "cloud.google.com/tpu/docs/v4"),
    Chip("v5p", 459, 95, 2765, 600, 3, 4, "cloud.google.com/tpu/docs/v5p"),
    Chip("v5e", 197, 16, 819, 200, 2, 8, "cloud.google.com/tpu/docs/v5e"),
    Chip("v6e", 918, 32, 1640, 448, 2, 8, "cloud.google.com/tpu/docs/v6e"),
    Chip("h100", 989, 80, 3350, 450, 1, 8, "NVIDIA's data sheet of H100 SXM"),
)
# What XLA asks the driver of a GPU that is there (xla/stream_executor/device_description.proto), in bytes and bytes a
# second: values of NVIDIA's H100 whitepaper and of the table of compute capabilities in its CUDA programming guide.
GPU_TARGETS = {
    "h100": """
        platform_name: "CUDA"
        gpu_device_info {
          cuda_compute_capability { major: 9 }
          core_count: 132
          device_memory_size: 80000000000
          memory_bandwidth: 3350000000000
          l2_cache_size: 52428800
          shared_memory_per_core: 233472
          shared_memory_per_block: 49152
          shared_memory_per_block_optin: 232448
          registers_per_core_limit: 65536
          registers_per_block_limit: 65536
          fpus_per_core: 128
          clock_rate_ghz: 1.98
          threads_per_warp: 32
          threads_per_block_limit: 1024
          threads_per_core_limit: 2048
          block_dim_limit_x: 2147483647
          block_dim_limit_y: 65535
          block_dim_limit_z: 65535
        }
        dnn_version_info { major: 9 minor: 10 }
    """,
}


class Slice(NamedTuple):
    """A slice of TPU chips, or GPUs of a host.

    Attributes:
      chip: its kind.
      shape: chips along each dimension of the torus; (number,) of GPUs.
    """

    chip: Chip
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """As in v5e:4x4 and h100:8."""
        return f"{self.chip.generation}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(self.shape)


def parse_slice(name: str) -> Slice:
    """Parse GENERATION:SHAPE.

    Raises:
      UserError: there is no such slice, or it has more than 256 TPUs or 8 GPUs.
    """
    matched = re.fullmatch(r"(\w+):(\d{1,3}(?:x\d{1,3}){0,2})", name)
    chip = next((chip for chip in CHIPS if matched and chip.generation == matched[1]), None)
    shape = tuple(map(int, matched[2].split("x"))) if matched else ()
    # Hosts of a slice hold 2 x 2 chips.
    even = len(shape) == 1 or all(size % 2 == 0 for size in shape[:2])
    if chip is None or len(shape) != chip.dimensions or not even or not 0 < math.prod(shape) <= chip.most_chips:
        raise UserError(
            f"--topology={name}: write v5e or v6e and an even number of rows and columns, as in v5e:4x4, or v4 or v5p "
            f"and three sizes, the first two even, as in v5p:2x2x2, of at most {MOST_CHIPS} chips; or h100 "
            "and 1 to 8 GPUs of a host, as in h100:8"
        )
    return Slice(chip, shape)
