"""Pool of worker processes in which an item that crashes, hangs or takes all memory costs only itself.

Every worker is a fresh interpreter with a pipe of its own. So the main program, and JAX with it, is not imported again,
and no lock is shared that would be lost with a worker that dies while it holds it.
"""

import collections
import contextlib
import ctypes
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
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tfds_mosmed import early_exit
from tfds_mosmed.errors import UserError
from tfds_mosmed.scans.folders import walk

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
BYTES_PER_SECOND = 1.5e6  # for time limits: reading JPEG 2000 from a slow disk on a busy machine
MEMORY_GIB = 2
START_SECONDS = 120.0  # to import what a worker needs, on a slow or busy machine
PR_SET_PDEATHSIG = 1
END_SECONDS = 5.0  # for a killed process to end; one that waits for a dead file server does not

Item = TypeVar("Item")
Result = TypeVar("Result")


class Failure(NamedTuple):
    """Outcome of an item without a result.

    Attributes:
      reason: one line with cause and remedy, to be put after the item's name.
      seconds: time until it failed.
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
    """Run a function over items in worker processes, starting when the context is entered.

    Args:
      function: a function of a module, a `functools.partial` of one, or a method of an object that can be pickled. It
        takes an item and returns something that can be pickled. A process may allocate 2 GiB.
      items: read lazily, at most `in_flight * workers` ahead.
      seconds: time limit of an item, without the time in which a busy machine has no core for it.
      workers: number of processes.
      in_flight: items per worker that are being processed, or whose results have not been taken yet.

    Yields:
      An iterator over the results in the order of the items, with a `Failure` for an item that has none. Leaving the
      context ends the processes at once.

    Raises:
      UserError: if a process cannot be started.
    """
    pool = [_Worker(function) for _ in range(workers)]
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in pool:
        idle.put(worker)

    def run(item: Item) -> Result | Failure:
        worker, started = idle.get(), time.perf_counter()
        try:
            result = worker.run(item, seconds(item))
            return result._replace(seconds=time.perf_counter() - started) if isinstance(result, Failure) else result
        finally:
            idle.put(worker)

    # One thread per worker, which only waits, so that results are received while the main thread computes.
    threads = ThreadPoolExecutor(workers)
    remaining = iter(items)
    pending = collections.deque(threads.submit(run, item) for item in itertools.islice(remaining, in_flight * workers))

    def results() -> Iterator[Result | Failure]:
        while pending:
            first = pending.popleft()
            # With a timeout: a Ctrl-C that another thread received is handled only when the main thread wakes.
            while not wait([first], timeout=1.0).done:
                pass
            result = first.result()
            pending.extend(threads.submit(run, item) for item in itertools.islice(remaining, 1))
            yield result

    def end_processes() -> None:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in pool:
            worker.kill()
        threads.shutdown()
        for worker in pool:
            worker.join()

    with early_exit.registered(end_processes):
        try:
            yield results()
        finally:
            end_processes()


class _Worker:
    """Worker process that is started again when it has died."""

    def __init__(self, function: Callable):
        self._function = function
        self._process: subprocess.Popen | None = None
        self._pipe: Any = None
        self._closed = False
        self._lock = threading.Lock()  # `kill` must not miss a process that is being started

    def run(self, item: Any, seconds: float) -> Any:
        """Run the function on one item; returns its result or a `Failure`."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        try:
            self._pipe.send((item, seconds))
            if self._answers_within(seconds):
                return self._pipe.recv()
        except (EOFError, OSError):
            return Failure(_crash(self.join()))
        self._kill()
        self.join()
        return Failure(f"took longer than {seconds:.0f} s to read; export it again, or leave it out")

    def _answers_within(self, seconds: float) -> bool:
        """Wait for an answer; time in which a busy machine had no core for the process does not count."""
        assert self._process is not None
        begin = time.monotonic() - _seconds_without_core(self._process.pid)
        while (left := begin + seconds + _seconds_without_core(self._process.pid) - time.monotonic()) > 0:
            if self._pipe.poll(left):
                return True
        return False

    def kill(self) -> None:
        """Kill the process for good; a thread blocked on its pipe wakes with EOFError."""
        with self._lock:
            self._closed = True
            self._kill()

    def join(self) -> int | None:
        """Wait until the process has ended; returns its exit status, negative for a signal, None if it still runs."""
        if self._process is None:
            return None
        self._pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        return self._process.returncode

    def _start(self) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("closed")  # in a thread whose result nobody reads any more
            self._pipe, worker_end = Pipe()
            with worker_end:
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        "-c",
                        f"from tfds_mosmed import workers; workers.serve({worker_end.fileno()}, {os.getpid()})",
                    ],
                    env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
                    stdin=subprocess.DEVNULL,
                    # Native decoders print the bytes that they fail on, which may identify the patient.
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[worker_end.fileno()],
                    process_group=0,  # Ctrl-C in the terminal goes to the main process only
                )
        try:
            self._pipe.send(self._function)
            if self._pipe.poll(START_SECONDS):
                return self._pipe.recv()
            self._kill()
            reason = f"within {START_SECONDS:.0f} s; run the same command again when the machine is less busy"
        except (EOFError, OSError):
            self._kill()
            reason = f"({_status(self.join())}); allow {MEMORY_GIB} GiB for each"
        raise UserError(f"a process that reads studies did not start {reason}")

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()


def _seconds_without_core(pid: int) -> float:
    """Return the seconds that a process was ready to run and had no core; 0 where the kernel does not count them."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _status(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit status {code}"
    return signal.Signals(-code).name


def _crash(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "its reader was killed, as happens where memory is short; allow more memory, or leave it out"
    return f"crashed its reader ({_status(code)}); export it again, or leave it out"


def serve(handle: int, parent: int) -> None:
    """Run a worker: receive the function, then items, until the parent closes the pipe or dies.

    Args:
      handle: file descriptor of the worker's end of the pipe.
      parent: process id.
    """
    _end_with_parent(parent)
    _limit(resource.RLIMIT_CORE, 0)  # a core file would hold the patient's data
    _limit(resource.RLIMIT_DATA, MEMORY_GIB << 30)
    with Connection(handle) as pipe, contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        function = pipe.recv()
        pipe.send(None)
        while True:
            item, seconds = pipe.recv()
            # Ends a call that hangs in native code even when the parent is gone and cannot kill this process. On a busy
            # machine the parent waits for longer than `seconds`.
            signal.setitimer(signal.ITIMER_REAL, 10 * seconds + END_SECONDS)
            pipe.send_bytes(_pickled_result(function, item))
            signal.setitimer(signal.ITIMER_REAL, 0)


def _end_with_parent(parent: int) -> None:
    """Let the kernel end this process with its parent, even in the middle of native code."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _limit(what: int, most: int) -> None:
    _, allowed = resource.getrlimit(what)
    if allowed == resource.RLIM_INFINITY or allowed > most:
        resource.setrlimit(what, (most, most))


def _pickled_result(function: Callable, item: Any) -> bytes:
    try:
        return pickle.dumps(function(item), pickle.HIGHEST_PROTOCOL)
    except MemoryError:
        failure = Failure(f"needs more than {MEMORY_GIB} GiB of memory; crop it or take thicker slices")
    except Exception as error:  # of any kind: the other items are still processed
        failure = Failure(f"cannot be read ({type(error).__name__}); export it again, or leave it out")
    return pickle.dumps(failure)


def bytes_on_disk(path: Path) -> int:
    """Return the size of a file, or of all files below a folder, without holes and what is too large to be read.

    What cannot be listed is not counted: the reader reports it.
    """
    total = 0
    with contextlib.suppress(OSError):
        files = walk(path, lambda _: None) if path.is_dir() else [("", [str(path)])]
        for folder, names in files:
            for status in (os.stat(os.path.join(folder, name)) for name in names):
                on_disk = 512 * status.st_blocks or status.st_size  # some file systems do not count blocks
                total += min(status.st_size, on_disk, MEMORY_GIB << 30)
    return total
