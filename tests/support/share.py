"""The share of the long tests that a run takes: all with COVIDSCAN_FULL_TESTS=1, otherwise a random tenth.

COVIDSCAN_TEST_SEED=NUMBER repeats the choices of the run whose summary names that seed.
"""

import math
import os
import random
from collections.abc import Sequence

FULL, SEED = "COVIDSCAN_FULL_TESTS", "COVIDSCAN_TEST_SEED"


def is_full() -> bool:
    """Return whether the long tests run in full."""
    return os.environ.get(FULL) == "1"


def generator(name: str) -> random.Random:
    """Return a random generator for the test of that name."""
    return random.Random(f"{os.environ[SEED]} {name}")


def sample(name: str, everything: Sequence[int]) -> list[int]:
    """Return the share of the numbers that the test of that name is to try, in their order."""
    if is_full():
        return list(everything)
    return sorted(generator(name).sample(everything, math.ceil(len(everything) / 10)))
