"""Runs a function in worker processes that no input can take down with it: what crashes, hangs or eats all memory costs
its own item.

Every worker is a fresh interpreter with a pipe of its own. So the main program, and JAX with it, is not imported again,
and no lock is shared that would be lost with a worker that dies while it holds it.
"""

import collections
import contextlib
import itertools
import os
import pickle
import queue
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from multiprocessing.connection import Connection, Pipe
from typing import Any, NamedTuple, TypeVar

from tfds_mosmed.building.prepare_studies import ONE_THREAD, end_with_parent
from tfds_mosmed.errors import UserError

MEMORY_GIB = 2
START_SECONDS = 120.0  # to import what a worker needs, on a slow or busy machine
END_SECONDS = 5.0  # a process that waits for a dead file server cannot be killed

Item = TypeVar("Item")
Result = TypeVar("Result")


class Failure(NamedTuple):
    """Why an item has no result.

    Attributes:
      reason: one line with the way out, to be put after the item's name.
      seconds: that it took to fail.
    """

    reason: str
    seconds: float = 0.0


@contextlib.contextmanager
def isolated_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    seconds: Callable[[Item], float],
    workers: int,
    *,
    in_flight: int = 2,
) -> Iterator[Iterator[Result | Failure]]:
    """Run a function over items in worker processes, from the moment that the context is entered.

    Args:
      function: importable from its module, or a `functools.partial` of such a one; it takes an item and gives something
        that can be pickled. At most 2 GiB of memory are its own.
      items: taken one by one, a few ahead.
      seconds: how long an item may take.
      workers: processes.
      in_flight: items a worker that are in work or wait to be taken.

    Yields:
      The results in the order of the items, with a `Failure` where there is none. Leaving the context ends the
      processes at once.

    Raises:
      UserError: if a process cannot be started.
    """
    ours = [_Worker(function) for _ in range(workers)]
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in ours:
        idle.put(worker)

    def run(item: Item) -> Result | Failure:
        worker, started = idle.get(), time.perf_counter()
        try:
            result = worker.run(item, seconds(item))
            return result._replace(seconds=time.perf_counter() - started) if isinstance(result, Failure) else result
        finally:
            idle.put(worker)

    # A thread a worker, which only waits: results are taken while the main thread computes.
    threads = ThreadPoolExecutor(workers)
    remaining = iter(items)
    pending = collections.deque(threads.submit(run, item) for item in itertools.islice(remaining, in_flight * workers))

    def results() -> Iterator[Result | Failure]:
        while pending:
            first = pending.popleft()
            # Not for ever: Ctrl-C may have come to another thread, and is seen by this one when it wakes.
            while not wait([first], timeout=1.0).done:
                pass
            result = first.result()
            pending.extend(threads.submit(run, item) for item in itertools.islice(remaining, 1))
            yield result

    try:
        yield results()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in ours:
            worker.close()
        threads.shutdown()


class _Worker:
    """A worker process, which is started again when it is lost."""

    def __init__(self, function: Callable):
        self._function = function
        self._process: subprocess.Popen | None = None
        self._pipe: Any = None
        self._closed = False
        self._lock = threading.Lock()  # between a start and the end of all

    def run(self, item: Any, seconds: float) -> Any:
        """Run the function over one item."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        try:
            self._pipe.send((item, seconds))
            if self._pipe.poll(seconds):
                return self._pipe.recv()
        except (EOFError, OSError):
            return Failure(_crash(self._end()))
        self._kill()
        self._end()
        return Failure(f"took longer than {seconds:.0f} s to read; export it again, or leave it out")

    def close(self) -> None:
        """End the process; whoever waits for it sees it end."""
        with self._lock:
            self._closed = True
            self._kill()

    def _start(self) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("closed")  # to a thread for whose result nobody waits any more
            self._pipe, theirs = Pipe()
            with theirs:
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        "-c",
                        f"from tfds_mosmed import workers; workers.serve({theirs.fileno()}, {os.getpid()})",
                    ],
                    env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
                    stdin=subprocess.DEVNULL,
                    # Native decoders quote what they choke on, which may be the patient's.
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    process_group=0,  # the terminal's Ctrl-C is for the main process
                )
        try:
            self._pipe.send(self._function)
            if self._pipe.poll(START_SECONDS):
                return self._pipe.recv()
        except (EOFError, OSError):
            pass
        self._kill()
        raise UserError(
            f"a process that reads studies did not start ({_status(self._end())}); allow {MEMORY_GIB} GiB for each"
        )

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _end(self) -> int | None:
        """Wait for the end of the process; its exit status, negative for a signal's number."""
        self._pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)  # type: ignore[union-attr]
        return self._process.returncode  # type: ignore[union-attr]


def _status(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit status {code}"
    return signal.Signals(-code).name


def _crash(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "its reader was killed, as happens where memory is short; allow more memory, or leave it out"
    return f"crashed its reader ({_status(code)}); export it again, or leave it out"


def serve(handle: int, parent: int) -> None:
    """Be a worker: take the function, then items, until the parent leaves.

    Args:
      handle: of the pipe's own end.
      parent: process id.
    """
    end_with_parent(parent)
    _limit(resource.RLIMIT_CORE, 0)  # a core file would hold the patient's data
    _limit(resource.RLIMIT_DATA, MEMORY_GIB << 30)
    with Connection(handle) as pipe, contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        function = pipe.recv()
        pipe.send(None)
        while True:
            item, seconds = pipe.recv()
            # Ends what hangs in native code also where there is no parent left to do so.
            signal.setitimer(signal.ITIMER_REAL, seconds + END_SECONDS)
            pipe.send_bytes(_pickled_result(function, item))
            signal.setitimer(signal.ITIMER_REAL, 0)


def _limit(what: int, most: int) -> None:
    _, allowed = resource.getrlimit(what)
    if allowed == resource.RLIM_INFINITY or allowed > most:
        resource.setrlimit(what, (most, most))


def _pickled_result(function: Callable, item: Any) -> bytes:
    try:
        return pickle.dumps(function(item), pickle.HIGHEST_PROTOCOL)
    except MemoryError:
        failure = Failure(f"needs more than {MEMORY_GIB} GiB of memory; crop it or take thicker slices")
    except Exception as error:  # whatever it is, the other items go on
        failure = Failure(f"cannot be read ({type(error).__name__}); export it again, or leave it out")
    return pickle.dumps(failure)
