"""A host's clock that a test sets forward, as a time server does. Monotonic clocks go on."""

import subprocess
from pathlib import Path

SOURCE = """
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int status = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME && syscall(SYS_access, getenv("CLOCK_IS_SET"), F_OK) == 0) now->tv_sec += 3600;
    return status;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec, now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now) *now = precise.tv_sec;
    return precise.tv_sec;
}
"""


def environment(folder: Path, signal: Path) -> dict[str, str]:
    """Return the variables of a process whose clock is an hour ahead from when the file `signal` exists."""
    (folder / "clock.c").write_text(SOURCE)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "clock.so", folder / "clock.c"], check=True)
    return {"LD_PRELOAD": str(folder / "clock.so"), "CLOCK_IS_SET": str(signal)}
