"""Version of the package and of the code that runs."""

import subprocess
from pathlib import Path

__version__ = "0.1.0"


def code_version() -> str:
    """Return the package's version, with `git describe` of the commit where the code is in a git work tree."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return __version__
    return f"{__version__}+{commit}"
