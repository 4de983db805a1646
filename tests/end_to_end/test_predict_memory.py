"""Memory of predicting many studies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import runs

REAL_CT = os.environ.get("COVIDSCAN_REAL_CT")


def resident_mib(*command):
    """Peak resident MiB of a process."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=runs.ROOT,
        env=runs.environment() | {"XLA_FLAGS": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return usage.ru_maxrss / 1024


def studies(count):
    """The real studies, repeated: three NIfTI files and one compressed DICOM series."""
    folder = Path(REAL_CT or "")
    each = [*sorted(folder.glob("nifti/*/*.nii.gz")), folder / "dicom/P001"]
    return [str(each[number % len(each)]) for number in range(count)]


@pytest.mark.skipif(not REAL_CT, reason="COVIDSCAN_REAL_CT is not set")
def test_memory_does_not_grow_with_the_number_of_studies(trained):
    predict = ("-m", "covidscan.predict", f"--workdir={trained}")
    few, many = (resident_mib(*predict, *studies(count)) for count in (20, 100))
    assert many <= 1.1 * few
