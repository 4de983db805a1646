"""Settings that must stand before JAX is imported: four CPU devices, so that pmap has something to map over."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["NPROC"] = "16"
os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis  # noqa: E402

# A first example compiles: its time says nothing.
hypothesis.settings.register_profile("covidscan", deadline=None)
hypothesis.settings.load_profile("covidscan")
