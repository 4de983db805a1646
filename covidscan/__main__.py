"""The console command: `covidscan COMMAND` is `python -m covidscan.COMMAND`."""

import os
import runpy
import sys
from typing import IO

from covidscan import __version__
from tfds_mosmed.errors import did_you_mean

COMMANDS = {
    "inspect": "inspect a cohort: what is in it, what cannot be used, likely shortcuts",
    "build": "build the records of a data set, as training does where they are missing",
    "train": "train a network, or resume its training",
    "evaluate": "evaluate a trained run: metrics with intervals, and a report",
    "compare": "compare evaluated runs: paired tests, curves, flags that differ",
    "predict": "predict studies: NIfTI files, DICOM series, folders of these",
    "export": "export trained networks for CPU, CUDA and TPU; JAX alone runs them",
    "detectability": "measure how small a lesion a network detects in your own scans",
    "localise": "test whether saliency maps lie on lesions",
    "benchmark": "measure a network's speed and memory on this machine",
}
USAGE = "\n".join(
    [
        "Train and evaluate 3D networks on chest CT.",
        "",
        "  covidscan COMMAND [FLAGS …]",
        "",
        *(f"  {name:15}{about}" for name, about in COMMANDS.items()),
        "",
        "covidscan COMMAND --help lists the flags of a command.",
    ]
)


def main() -> None:
    """Run the command that the first argument names, as if Python had been started with its module."""
    name = sys.argv[1] if len(sys.argv) > 1 else None
    if name in COMMANDS:
        del sys.argv[1]
        sys.path.append(os.getcwd())  # of the user's own network; last, so that no file there takes a package's place
        runpy.run_module(f"covidscan.{name}", run_name="__main__", alter_sys=True)
    elif name in ("--help", "-help", "-h", "-?", "help"):
        _print(USAGE)
    elif name == "--version":
        _print(f"covidscan {__version__}")
    else:
        _print(USAGE if name is None else f"error: {_refusal(name)}", sys.stderr)
        sys.exit(2)


def _refusal(name: str) -> str:
    if name.startswith("-"):
        return f"{name} comes before a command: covidscan COMMAND {name} … (covidscan --help lists the commands)"
    return f"{name!r} is no command.{did_you_mean(name, COMMANDS)} (covidscan --help lists the commands)"


def _print(text: str, stream: IO[str] | None = None) -> None:
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:  # the reader, such as head, has enough
        os._exit(0)


if __name__ == "__main__":
    main()
