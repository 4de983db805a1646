"""How long compilation takes, with and without programs kept from an earlier start."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax


@contextlib.contextmanager
def empty_cache() -> Iterator[None]:
    """Keep compiled programs in an empty folder as long as the body lasts: none of the user's are found or changed.

    To be entered before anything is compiled.
    """
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        yield


class Compilation(NamedTuple):
    """The compilation of a program.

    Attributes:
      tracing_seconds: from Python to what is compiled; every start needs them.
      without_cache_seconds: to compile it.
      with_cache_seconds: to find it in the persistent cache instead.
      compiled: the program.
    """

    tracing_seconds: float
    without_cache_seconds: float
    with_cache_seconds: float
    compiled: Any


def time_compilation(lower: Callable[[], Any]) -> Compilation:
    """Compile a program twice, the second time from the persistent cache, which must not hold it at first.

    Args:
      lower: gives the program traced and lowered, ready to be compiled.
    """
    start = time.perf_counter()
    lowered = lower()
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    jax.clear_caches()  # those in memory
    again = lower()
    restart = time.perf_counter()
    again.compile()
    return Compilation(traced - start, done - traced, time.perf_counter() - restart, compiled)
