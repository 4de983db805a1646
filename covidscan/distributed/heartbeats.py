"""Heartbeats of the processes of one job to each other, timed by clocks that nobody sets.

JAX's coordinator times its own heartbeats by the wall clock: setting that forward, as a time server does on a host
whose clock was wrong, would end the job as if all of its processes had died.
"""

import contextlib
import itertools
import socket
import threading
import time

import jax

from covidscan.distributed import watchdog

# A process that sends no heartbeat for this long counts as dead, and all others stop. JAX's default of 100 s is long to
# wait; much less would count a host that swaps as dead.
TIMEOUT_S = 40
INTERVAL_S = 4
# The timeout of JAX's own heartbeats: further than any clock is set.
NEVER_S = 50 * 365 * 24 * 3600
_FOLDER, _FINISHED = "covidscan/heartbeats", "finished"
_REMEDY = "run the same command again on every host"


class Heartbeats:
    """A thread that sends the heartbeats of this process, and ends it where those of another stay away.

    Heartbeats are numbers in the key-value store of JAX's coordinator.
    """

    def __init__(self) -> None:
        from orbax.checkpoint import multihost  # JAX itself has no public way; a single process does without Orbax

        self._client = multihost.get_jax_distributed_client()
        self._name = f"process {jax.process_index()}"
        self._is_finished, self._is_over = False, threading.Event()
        self._thread = threading.Thread(target=self._exchange, name="heartbeats", daemon=True)
        self._thread.start()

    def end_together(self) -> None:
        """Leave the job when all processes have done their part; this one has."""
        self._is_finished = True
        jax.distributed.shutdown()  # waits for the others
        self._is_over.set()
        self._thread.join()  # Python aborts where a thread is inside of JAX at the end

    def _exchange(self) -> None:
        coordinator = watchdog.Watchdog(TIMEOUT_S)
        before, heard = dict[str, str](), dict[str, float]()
        for number in itertools.count():
            # An error is either the end of the job or a coordinator that is gone.
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                received = self._swap(_FINISHED if self._is_finished else str(number))
                now = time.monotonic()
                coordinator.expect(f"{self._name}: process 0, the coordinator, did not answer", _REMEDY)
                heard |= {who: now for who, beat in received.items() if beat == _FINISHED or beat != before.get(who)}
                before = received
                for who, last in heard.items():
                    if now - last > TIMEOUT_S:
                        watchdog.end(f"{self._name}: {who} sent no heartbeat for {TIMEOUT_S} s; {_REMEDY}")
            if self._is_over.wait(INTERVAL_S):
                coordinator.rest()
                return

    def _swap(self, beat: str) -> dict[str, str]:
        """Send a heartbeat, and return the last of each process by its name."""
        self._client.key_value_set(f"{_FOLDER}/{self._name} on {socket.gethostname()}", beat, allow_overwrite=True)
        return {key.rpartition("/")[2]: value for key, value in self._client.key_value_dir_get(_FOLDER)}
