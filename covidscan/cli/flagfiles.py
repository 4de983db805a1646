"""Flagfiles: those on the disk, and the presets that are part of the package."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from absl import flags

from tfds_mosmed.errors import did_you_mean

PRESETS = Path(__file__).parents[1] / "presets"
_OPTIONS = ("--flagfile", "-flagfile")


def expand(arguments: Iterable[str], within: Sequence[Path] = ()) -> list[str]:
    """Replace each --flagfile=FILE by the flags in FILE, in which # and // begin comments, to any depth.

    FILE that is only a name, and of no file in the current folder, may be that of a preset.

    Args:
      arguments: of a command, or lines of a flagfile.
      within: the flagfiles that they are from, the outermost first.

    Raises:
      flags.Error: a file cannot be read, or includes itself.
    """
    expanded, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, file = argument.partition("=")
        if argument == "--":
            return [*expanded, argument, *rest]
        if name not in _OPTIONS:
            expanded.append(argument)
            continue
        if not equals:
            file = rest.pop(0) if rest else ""
        path = _find(file.strip(), within)
        if path in within:
            raise flags.Error(f"--flagfile={file}: it includes itself")
        expanded += expand(_read(path, file), (*within, path))
    return expanded


def _find(file: str, within: Sequence[Path]) -> Path:
    """Return the path of a flagfile, and print that it is a preset unless another preset includes it."""
    path, preset = Path(file).expanduser(), PRESETS / Path(file).name
    if path.exists() or path.name != file or not preset.is_file():
        return path.absolute()
    if not (within and within[-1].parent == PRESETS):
        print(f"--flagfile={file}: the preset of covidscan, as there is no such file here", file=sys.stderr)
    return preset


def _read(path: Path, file: str) -> list[str]:
    """Return the lines of a flagfile without comments and empty ones."""
    if not file:
        raise flags.Error("--flagfile: give a file")
    try:
        lines = map(str.strip, path.read_text(encoding="utf-8").splitlines())
    except OSError as error:
        presets = sorted(preset.name for preset in PRESETS.glob("*.flags"))
        raise flags.Error(
            f"--flagfile={file}: {error.strerror}: give a file, or a preset: {', '.join(presets)}."
            f"{did_you_mean(file, presets)}"
        ) from error
    except UnicodeDecodeError as error:
        raise flags.Error(f"--flagfile={file}: it is not a text file") from error
    return [line for line in lines if line and not line.startswith(("#", "//"))]
