"""Log of a run: metrics.jsonl, TensorBoard's event files, progress on stderr."""

import json
import math
import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from etils import epath
from tensorboardX import event_file_writer, record_writer
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue] - generated
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue] - generated

from covidscan.runs.tracking import Tracker
from tfds_mosmed import storage
from tfds_mosmed.progress import Progress

SYNC_EVERY_S = 10.0

# Shown on stderr, in this order; a narrow terminal has room for the first ones.
_NOTES = {
    "validation/auroc": "val AUROC {:.3f}",
    "validation/mae": "val MAE {:.3g}",
    "train/loss": "loss {:.3g}",
    "train/auroc": "AUROC {:.3f}",
    "train/mae": "MAE {:.3g}",
    "train/learning_rate": "learning rate {:.2g}",
    "train/volumes_per_second": "{:.3g} volumes/s",
}

# Event files in an object store: tensorboardX's own writers need further packages.
for _scheme in storage.PACKAGES:
    record_writer.register_writer_factory(_scheme, SimpleNamespace(open=storage.GrowingFile))


def read_log(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Read the lines of a run's metrics.jsonl; a last line that a kill cut off is ignored."""
    path, lines = epath.Path(workdir) / "metrics.jsonl", []
    for text in path.read_bytes().splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except (RecursionError, ValueError):
            break
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            break
        lines.append(line)
    return lines


class RunLog:
    """Writes metrics to metrics.jsonl and TensorBoard, and the latest ones to stderr.

    On a terminal they are beside a progress bar; elsewhere they are in a line at each validation and every minute.

    A resumed run removes the lines after the step at which it resumes, because they will be written again.

    Args:
      workdir: the run.
      step: at which the run begins or resumes.
      num_steps: at which it ends.
      num_epochs: passes over the training studies that these are.
      writes: whether this process writes; of several processes, one does.
      tracker: to which the metrics are sent too.

    Attributes:
      writes: the same.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        step: int,
        num_steps: int,
        num_epochs: int,
        *,
        writes: bool,
        tracker: Tracker | None = None,
    ):
        self.path = epath.Path(workdir) / "metrics.jsonl"
        self.writes = writes
        self._tracker = tracker or Tracker()
        if not writes:
            return
        kept = [line for line in read_log(workdir) if line["step"] <= step] if step else []
        text = "".join(json.dumps(line) + "\n" for line in kept).encode()
        storage.write_whole(self.path, text)  # over the old lines, which a power cut would otherwise leave cut
        self._remote = storage.is_remote(workdir)
        self._file: Any = storage.GrowingFile(self.path, text) if self._remote else self.path.open("ab")
        self._synced = time.monotonic()
        # Not SummaryWriter: its thread ends when the disk is full, and the next write to its queue blocks forever.
        self._events = event_file_writer.EventsWriter(str(epath.Path(workdir) / "events"))
        if step:
            start = SessionLog(status=SessionLog.START)  # TensorBoard discards this and later steps
            self._events.write_event(Event(wall_time=time.time(), step=step + 1, session_log=start))
        self._step, self._start, self._num_steps, self._num_epochs = step, step, num_steps, num_epochs
        self._latest: dict[str, Any] = {}
        self._progress: Progress | None = None  # until the first steps: what comes before is announced

    def _epoch(self) -> str:
        return f"Epoch {max(1, -(-self._step * self._num_epochs // self._num_steps))}/{self._num_epochs}"

    def advance(self, num_steps: int) -> None:
        """Count steps that were taken."""
        if not self.writes:
            return
        if self._progress is None:
            self._progress = Progress(self._epoch(), self._num_steps, unit="steps", done=self._step)
        is_first, self._step = self._step == self._start, self._step + num_steps
        self._progress.title = self._epoch()
        self._progress.advance(num_steps, is_typical=not is_first)  # the first step is compiled

    def flush(self) -> None:
        """Write buffered lines to the files; call it before a checkpoint is saved."""
        if not self.writes:
            return
        with storage.naming(self.path):
            self._file.flush()
            self._events.flush()
        self._synced = time.monotonic()

    def write(self, step: int, split: str, metrics: dict[str, float | None]) -> None:
        """Write one line.

        Args:
          step: steps taken.
          split: "train" or "validation".
          metrics: name -> value; None and values that are not finite are written as null.
        """
        if not self.writes:
            return
        defined = {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}
        rounded = {name: float(f"{value:.6g}") for name, value in defined.items()}
        line = {"step": step, "split": split, **{name: rounded.get(name) for name in metrics}}
        values = [Summary.Value(tag=f"{split}/{name}", simple_value=rounded[name]) for name in defined]
        with storage.naming(self.path):
            self._file.write((json.dumps(line) + "\n").encode())
            self._events.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
            if not self._remote:
                self._file.flush()
        if time.monotonic() - self._synced >= SYNC_EVERY_S:
            self.flush()
        sent = {f"{split}/{name}": value for name, value in rounded.items()}
        self._tracker.log(step, sent)
        self._latest |= sent
        if self._progress is None:
            return
        self._progress.note(*(form.format(self._latest[tag]) for tag, form in _NOTES.items() if tag in self._latest))
        if split == "validation":
            self._progress.print_line()

    def write_summaries(self, step: int, summaries: Iterable[Summary]) -> None:
        """Write what TensorBoard shows beside the metrics; see `tensorboard`."""
        if not self.writes:
            return
        with storage.naming(self.path):
            for summary in summaries:
                self._events.write_event(Event(wall_time=time.time(), step=step, summary=summary))

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        if not self.writes:
            return
        if self._progress is not None:
            self._progress.close()
        with storage.naming(self.path):
            self._file.close()
            self._events.close()
