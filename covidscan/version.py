"""Version of the package and of the code that runs."""

import subprocess
from pathlib import Path

__version__ = "0.1.0"


def code_version() -> str:
    """Return the package's version, with `git describe` of the commit where the code is in its own git work tree.

    Installed somewhere below another project's work tree, it has no commit: that of the other project says nothing.
    """
    root = Path(__file__).resolve().parent.parent
    try:
        top = _git(root, "rev-parse", "--show-toplevel")
        if Path(top).resolve() != root:
            return __version__
        _git(root, "ls-files", "--error-unmatch", "--", str(Path(__file__).resolve().relative_to(root)))
        commit = _git(root, "describe", "--always", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return __version__
    return f"{__version__}+{commit}"


def _git(folder: Path, *arguments: str) -> str:
    """Return what git prints."""
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
