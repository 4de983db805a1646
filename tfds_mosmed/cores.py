"""Cores that this process may use."""

import contextlib
import math
import os
from pathlib import Path

CPU_QUOTAS = (  # quota and period of a container: cgroup v2, v1
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


def usable_cores() -> int:
    """Return the number of cores that this process may use, by its CPU affinity and its container's quota."""
    cores = len(os.sched_getaffinity(0))
    for files in CPU_QUOTAS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or no quota ("max")
            quota, period = (int(text) for file in files for text in Path(file).read_text().split())
            if quota > 0:
                cores = min(cores, math.ceil(quota / period))
    return cores
