"""What a run says while it goes: metrics.jsonl, TensorBoard's event files, a progress bar."""

import json
import math
import time
from typing import Any

from etils import epath
from tensorboardX import SummaryWriter, record_writer
from tqdm import tqdm

from tfds_mosmed import storage

UPLOAD_EVERY_S = 10.0


class _RemoteEventFiles:
    """TensorBoard's event files in an object store; tensorboardX's own ways there need yet other packages."""

    @staticmethod
    def directory_check(path: str) -> None:
        """Do nothing: there are no folders to make."""

    open = storage.GrowingFile


for _scheme in storage.PACKAGES:
    record_writer.register_writer_factory(_scheme, _RemoteEventFiles)


def read_log(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Read the lines of a run's metrics.jsonl so far; the last one may have been cut by a kill."""
    path, lines = epath.Path(workdir) / "metrics.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


class RunLog:
    """Writes each line to metrics.jsonl and TensorBoard, and the last figures beside a progress bar on stderr.

    A resumed run takes out the lines after the step at which it resumes: they are about to be written again.

    Args:
      workdir: the run.
      step: the step at which the run begins or resumes.
      num_steps: the step at which it ends.
      writes: whether this process does so; of several, one.
    """

    def __init__(self, workdir: epath.PathLike, step: int, num_steps: int, *, writes: bool):
        self.path = epath.Path(workdir) / "metrics.jsonl"
        self._writes = writes
        if not writes:
            return
        kept = [line for line in read_log(workdir) if line["step"] <= step] if step else []
        text = "".join(json.dumps(line) + "\n" for line in kept).encode()
        self.path.write_bytes(text)
        self._file: Any = storage.GrowingFile(self.path, text) if storage.is_remote(workdir) else self.path.open("ab")
        self._flush_every_s = UPLOAD_EVERY_S if storage.is_remote(workdir) else 0.0
        self._flushed = time.monotonic()
        self._events = SummaryWriter(str(workdir), purge_step=step + 1 if step else None)
        self._postfix: dict[str, str] = {}
        self._bar = tqdm(initial=step, total=num_steps, unit="step", dynamic_ncols=True, smoothing=0.1)

    def advance(self, num_steps: int) -> None:
        """Move the bar."""
        if self._writes:
            self._bar.update(num_steps)

    def flush(self) -> None:
        """Have all lines so far in the file, before a checkpoint that follows them."""
        if self._writes:
            self._file.flush()
            self._flushed = time.monotonic()

    def write(self, step: int, split: str, figures: dict[str, float | None]) -> None:
        """Write one line.

        Args:
          step: steps taken.
          split: "train" or "validation".
          figures: what was measured; what is None or not finite is written as null.
        """
        if not self._writes:
            return
        defined = {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}
        rounded = {name: float(f"{defined[name]:.6g}") if name in defined else None for name in figures}
        try:
            self._file.write((json.dumps({"step": step, "split": split, **rounded}) + "\n").encode())
            if time.monotonic() - self._flushed >= self._flush_every_s:
                self.flush()
            for name in defined:
                self._events.add_scalar(f"{split}/{name}", rounded[name], step)
        except OSError as error:
            raise OSError(
                error.errno, error.strerror or str(error), str(self.path)
            ) from error  # Python does not name the file
        shown = ("loss", "auroc", "volumes_per_second") if split == "train" else ("auroc",)
        beside = {"volumes_per_second": "volumes/s"}
        prefix = "" if split == "train" else "val "
        self._postfix |= {
            prefix + beside.get(name, name): f"{rounded[name]:.3g}" for name in shown if rounded.get(name) is not None
        }
        self._bar.set_postfix(self._postfix)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        if not self._writes:
            return
        self._bar.close()
        try:
            self._file.close()
            self._events.close()
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(self.path)) from error
