"""Power cuts: a small ext4 disk in a file, which loses all that was not yet written to it."""

import contextlib
import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN of linux/ext4.h
WITHOUT_FLUSH = 2  # neither data nor the journal in memory are written


class Disk:
    """A disk that is mounted on a folder.

    Attributes:
      folder: the place.
    """

    def __init__(self, folder: Path, image: Path):
        self.folder = folder
        self._image = image

    def mount(self) -> None:
        """Mount the disk; its journal is replayed."""
        # No commit of the journal by itself within a test: only what was synced is there after a cut.
        subprocess.run(["mount", "-o", "loop,commit=300", self._image, self.folder], check=True, capture_output=True)

    def cut(self) -> None:
        """Cut the power: from now on nothing reaches the disk."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        """Unmount the disk, whatever state it is in, and wait until nothing of it is left in the kernel.

        As long as another mount namespace has it, mounting the image again would give the same disk, cut off.
        """
        subprocess.run(["umount", self.folder], check=True, capture_output=True)
        deadline = time.monotonic() + 60
        while subprocess.run(["losetup", "-j", self._image], check=True, capture_output=True).stdout:
            assert time.monotonic() < deadline, "the disk is still in use"
            time.sleep(0.02)


@contextlib.contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """Make a disk; the test is skipped where that is not possible."""
    image = folder.with_suffix(".image")
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    made = Disk(folder, image)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, capture_output=True)
        made.mount()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk of its own for power cuts ({type(error).__name__}): needs root, mkfs.ext4, loop devices")
    try:
        yield made
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            made.unmount()


def settle(folder: Path) -> None:
    """Wait until all that was written to a disk is there."""
    subprocess.run(["sync", "-f", folder], check=True)
