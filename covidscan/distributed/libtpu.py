"""Arguments of libtpu, the compiler for TPUs, which reads them from the environment when JAX first uses it."""

import importlib.metadata
import os

VARIABLE = "LIBTPU_INIT_ARGS"
# An argument that libtpu does not know ends the process, so versions that were not tried get none.
TRIED = "0.0.42"
# With fewer than 8 studies a chip libtpu would move parts of the plane into the batch, with copies of their edges.
_KEEP_PLANE = "--xla_tpu_run_space_to_batch=false --xla_tpu_run_space_to_batch_on_new_platforms=false"


def set_arguments() -> None:
    """Put this project's arguments before the user's, where a version that knows them is installed."""
    given = os.environ.get(VARIABLE, "")
    try:
        version = importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        return
    if f"{version}.".startswith(f"{TRIED}.") and _KEEP_PLANE not in given:
        os.environ[VARIABLE] = f"{_KEEP_PLANE} {given}".strip()
