"""Real CT studies, in the folder that the environment variable COVIDSCAN_REAL_CT names."""

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("COVIDSCAN_REAL_CT", "not set"))
needed = pytest.mark.skipif("COVIDSCAN_REAL_CT" not in os.environ, reason="COVIDSCAN_REAL_CT is not set")
