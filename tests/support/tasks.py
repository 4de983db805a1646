"""What worker processes are asked to do in tests."""

import ctypes
import os
import sys
import time
from typing import Any

import numpy as np


def behave(task: str) -> Any:
    """Do well or badly."""
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
