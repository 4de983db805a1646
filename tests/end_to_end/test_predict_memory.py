"""Memory of predicting many studies."""

import os
import subprocess
import sys

from tests.support import real_ct, runs


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
    each = [*sorted(real_ct.FOLDER.glob("nifti/*/*.nii.gz")), real_ct.FOLDER / "dicom/P001"]
    return [str(each[number % len(each)]) for number in range(count)]


@real_ct.needed
def test_memory_does_not_grow_with_the_number_of_studies(trained):
    predict = ("-m", "covidscan.predict", f"--workdir={trained}")
    few, many = (resident_mib(*predict, *studies(count)) for count in (20, 100))
    assert many <= 1.1 * few
