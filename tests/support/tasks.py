"""Tasks for worker processes in tests: some succeed, some crash, hang or take all memory."""

import ctypes
import dataclasses
import os
import sys
import time
from typing import Any

import numpy as np

from tests.support.chest import SPACING_MM, chest
from tfds_mosmed.building.study import LoadedStudy, SourceFile
from tfds_mosmed.scans.scan import Scan


@dataclasses.dataclass(frozen=True)
class TaskStudy:
    """Study that performs a task when it is read; its id is the task."""

    study_id: str
    category: str = "CT-0"

    def load(self) -> LoadedStudy:
        """Perform the task, and return a chest."""
        behave(self.study_id)
        return LoadedStudy(Scan(chest(len(self.study_id)), SPACING_MM, np.eye(4)), None, ())

    def files(self) -> list[tuple[str, SourceFile]]:
        """Return none."""
        return []


def behave(task: str) -> Any:
    """Perform a task by name; an unknown one succeeds."""
    match task.split():
        case ["crash"]:
            ctypes.string_at(0)
        case ["abort"]:
            os.abort()
        case ["vanish"]:
            os.kill(os.getpid(), 9)
        case ["hang"]:
            while True:
                time.sleep(1)
        case ["hang", "natively"]:
            ctypes.PyDLL(None).sleep(60)  # holds the interpreter's lock
        case ["rest", seconds]:
            time.sleep(float(seconds))
        case ["eat"]:
            return np.ones(3 << 30, np.uint8).sum()
        case ["fail"]:
            raise ValueError("Planted^Name")
        case ["speak"]:
            print("Planted^Name", flush=True)
            os.write(2, b"Planted^Name\n")
        case ["large"]:
            return np.arange(50 << 20, dtype=np.uint8)
        case ["modules"]:
            return sorted({name.partition(".")[0] for name in sys.modules})
        case ["process"]:
            return os.getpid()
    return task
