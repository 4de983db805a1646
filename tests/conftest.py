"""Settings that must stand before JAX is imported: four CPU devices, so that pmap has something to map over."""

import os
import tempfile

# Compiled programs are shared by the processes of one test run, and by nothing else.
_compiled = tempfile.TemporaryDirectory()
os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
os.environ["JAX_PLATFORMS"] = "cpu"
# Unoptimised code compiles several times faster; the networks of the tests are small.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
os.environ["NPROC"] = "16"
os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis  # noqa: E402

# A first example compiles: its time says nothing.
hypothesis.settings.register_profile("covidscan", deadline=None)
hypothesis.settings.load_profile("covidscan")
