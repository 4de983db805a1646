"""Progress of counted work on stderr: one bar on a terminal; elsewhere, as in a log file, a line now and then."""

import os
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from typing import IO, Any, TypeVar

FIRST_LINE_S, LINE_EVERY_S = 5.0, 60.0  # elsewhere than on a terminal
LEAST_S = 2.0  # before the time left is estimated: the first steps may only have been dispatched
COLUMNS = 80  # of a terminal whose width is not known
COLUMNS_OF_BAR = 10  # at least, with its margins

Item = TypeVar("Item")


def duration(seconds: float) -> str:
    """Return a duration in words of two units at most: "0.44 s", "12 s", "3 min 5 s", "2 h 10 min"."""
    whole = round(seconds)
    if whole < 10:
        return f"{seconds:.2g} s"
    for name, size, smaller, fraction in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // fraction
            return f"{whole // size} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def terminal_columns(stream: IO[str] | None) -> int | None:
    """Return the width of the terminal that a stream is; None if it is none."""
    if stream is None or not stream.isatty():
        return None
    return os.get_terminal_size(stream.fileno()).columns or COLUMNS


def fitted(prose: str, stream: IO[str] | None = None) -> str:
    """Break lines between words if they are wider than the terminal; elsewhere, as in a file, they stay whole.

    Args:
      prose: without tables, or commands that are to be copied.
      stream: on which it is shown; None: stdout.
    """
    columns = terminal_columns(stream or sys.stdout)
    if columns is None:
        return prose

    def broken(line: str) -> str:
        indent = line[: len(line) - len(line.lstrip())]
        return textwrap.fill(line, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)

    return "\n".join(map(broken, prose.split("\n")))


def announce(work: str) -> None:
    """Print what begins, and how long it may take, where nothing can be counted."""
    if sys.stderr is not None:
        clear_bars()
        print(fitted(f"{work} …", sys.stderr), file=sys.stderr, flush=True)


def clear_bars() -> None:
    """Clear the progress bars before a line is printed to the same terminal; they are drawn again when they advance."""
    if "tqdm" in sys.modules:
        for bar in list(getattr(sys.modules["tqdm"].tqdm, "_instances", ())):
            bar.clear()


class Progress:
    """Progress of counted work.

    On a terminal it is a bar. Elsewhere it is a line at the beginning, after 5 seconds, then every minute.

    Attributes:
      title: the work, such as "Preparing mosmed/128x128x32".

    Args:
      title: the work at the beginning.
      total: number of items.
      unit: the items, in the plural.
      done: items that were done before.
      shown: False prints nothing: of the processes of a job, one shows the progress.
    """

    def __init__(self, title: str, total: int, *, unit: str = "studies", done: int = 0, shown: bool = True):
        self.title, self._total, self._done = title, total, done
        self._unit = "study" if total == 1 and unit == "studies" else unit
        self._notes: tuple[str, ...] = ()
        self._shown = shown and total > 0 and sys.stderr is not None
        self._bar: Any = None
        self._started = time.monotonic()
        self._clock, self._done_before = self._started, done
        if self._shown and sys.stderr is not None and sys.stderr.isatty():
            import tqdm  # imported lazily: the benchmark runs without it, and shows no bar

            form = f"{{desc}} |{{bar}}| {{n_fmt}}/{{total_fmt}} {self._unit}{{postfix}}"
            self._bar = tqdm.tqdm(
                desc=title, total=total, initial=done, bar_format=form, dynamic_ncols=True, file=sys.stderr
            )
        elif self._shown:
            self.print_line()
            self._next_line = self._started + FIRST_LINE_S

    def advance(self, count: int = 1, *, is_typical: bool = True) -> None:
        """Count items that are done.

        Args:
          count: of the items.
          is_typical: False where they took longer than others will, as with a compilation: the time left is estimated
            without them.
        """
        self._done += count
        if not is_typical:
            self._clock, self._done_before = time.monotonic(), self._done
        if self._bar is not None:
            self._bar.set_description_str(self.title, refresh=False)
            self._bar.set_postfix_str(self._fitting_notes(), refresh=False)
            self._bar.update(count)
        elif self._shown and time.monotonic() >= self._next_line and self._done < self._total:
            self.print_line()

    def note(self, *notes: str) -> None:
        """Show notes beside the count from now on; a narrow terminal shows the first of them."""
        self._notes = notes

    def print_line(self) -> None:
        """Print a line now, unless the progress is a bar."""
        if self._bar is None and self._shown:
            share = f" ({100 * self._done // self._total} %)" if self._done else ""
            count = f"{self.title}: {self._done} of {self._total} {self._unit}{share}"
            left = self._seconds_left()
            end = [] if left is None else [f"{duration(left)} left"]
            print(", ".join([count, *self._notes, *end]), file=sys.stderr, flush=True)
            self._next_line = time.monotonic() + LINE_EVERY_S

    def _seconds_left(self) -> int | None:
        done, elapsed = self._done - self._done_before, time.monotonic() - self._clock
        if not done or elapsed < LEAST_S or self._done >= self._total:
            return None
        return round(elapsed / done * (self._total - self._done))

    def _fitting_notes(self) -> str:
        """Return the time left and as many notes as the terminal is wide."""
        left, fitting = self._seconds_left(), ""
        room = (self._bar.ncols or COLUMNS) - len(f"{self.title}  {self._done}/{self._total} {self._unit}, ")
        for note in [*([] if left is None else [f"{duration(left)} left"]), *self._notes]:
            longer = f"{fitting}, {note}" if fitting else note
            if len(longer) > room - COLUMNS_OF_BAR:
                break
            fitting = longer
        return fitting

    def finish(self) -> None:
        """Replace the bar by a line with the number of items and the time that they took."""
        if self._bar is not None:
            self._bar.leave = False
        self.close()
        if self._shown:
            took = duration(time.monotonic() - self._started)
            print(f"{self.title}: {self._done} {self._unit} in {took}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End a bar where it is."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def progress(
    items: Iterable[Item], total: int, title: str, *, unit: str = "studies", shown: bool = True
) -> Iterator[Item]:
    """Show the progress while items are read; see `Progress`."""
    with Progress(title, total, unit=unit, shown=shown) as shown_progress:
        for item in items:
            yield item
            shown_progress.advance()
        shown_progress.finish()
