"""Arguments of the compilers, XLA for CPUs and libtpu for TPUs, which they read from the environment when JAX starts.

An argument that a compiler does not know ends the process, so only versions that were tried get any.
"""

import importlib.metadata
import os
from pathlib import Path
from typing import NamedTuple

PROCESSOR = Path("/proc/cpuinfo")


class Arguments(NamedTuple):
    """Arguments of a compiler.

    Attributes:
      package: that the compiler is part of.
      tried: version that knows them.
      variable: of the environment, from which the compiler reads them.
      arguments: separated by spaces.
    """

    package: str
    tried: str
    variable: str
    arguments: str


# With fewer than 8 studies a chip libtpu would move parts of the plane into the batch, with copies of their edges.
KEEP_PLANE = Arguments(
    "libtpu",
    "0.0.42",
    "LIBTPU_INIT_ARGS",
    "--xla_tpu_run_space_to_batch=false --xla_tpu_run_space_to_batch_on_new_platforms=false",
)
# With AVX-512 YNNPACK's sums over an axis are several times as fast as XLA's own, but its convolutions take twice as
# long as Eigen's: without them the default network's inference takes 15 to 30 % less time.
SUMS_BY_YNNPACK = Arguments(
    "jaxlib", "0.10.2", "XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE"
)


def set_arguments() -> None:
    """Put this project's arguments before the user's, where a version that knows them is installed."""
    _put_first(KEEP_PLANE)
    if _has_avx512():
        _put_first(SUMS_BY_YNNPACK)


def _has_avx512() -> bool:
    if not PROCESSOR.exists():
        return False
    with PROCESSOR.open() as lines:  # up to the first core's: a host has hundreds, and Linux asks each for its clock
        return "avx512f" in next((line for line in lines if line.startswith("flags")), "")


def _put_first(ours: Arguments) -> None:
    given = os.environ.get(ours.variable, "")
    try:
        version = importlib.metadata.version(ours.package)
    except importlib.metadata.PackageNotFoundError:
        return
    if f"{version}.".startswith(f"{ours.tried}.") and ours.arguments not in given:
        os.environ[ours.variable] = f"{ours.arguments} {given}".strip()
