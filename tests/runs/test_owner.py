"""One job at a time trains in a workdir."""

import json
import multiprocessing
import os
import socket
import threading
import time

import pytest

from covidscan.runs import owner
from covidscan.runs.owner import owned
from tfds_mosmed import storage
from tfds_mosmed.errors import UserError

HERE = socket.gethostname()


def _own(workdir, pipe):
    with owned(workdir):
        pipe.send(os.getpid())
        pipe.recv()


@pytest.fixture
def other(tmp_path):
    """Another process that owns the workdir."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_own, args=(tmp_path, there))
    process.start()
    assert here.poll(60)
    yield process
    process.kill()
    process.join()


@pytest.fixture
def quick(monkeypatch):
    """Heartbeats that come more often."""
    monkeypatch.setattr(owner, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(owner, "STALE_S", 0.6)


def _leave_mark(workdir, host):
    mark = {"host": host, "process": os.getpid() + 1_000_000, "since": "2026-01-01 00:00:00", "token": "a"}
    (workdir / owner.FILE).write_text(json.dumps(mark))


def test_a_second_job_is_refused_and_told_who_owns_the_run(other, tmp_path):
    named = rf"in training by process {other.pid} on {HERE} \(since 20.*\): wait for it, .*give another --workdir$"
    with pytest.raises(UserError, match=named):
        owned(tmp_path).__enter__()


def test_a_killed_owner_blocks_nobody(other, tmp_path):
    other.kill()
    other.join()
    before = time.monotonic()
    with owned(tmp_path):
        assert json.loads((tmp_path / owner.FILE).read_text())["process"] == os.getpid()
    assert time.monotonic() - before < 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}', "\0" * 50])
def test_a_mark_that_a_power_cut_spoilt_blocks_nobody(text, tmp_path):
    (tmp_path / owner.FILE).write_text(text)
    with owned(tmp_path):
        pass


@pytest.mark.parametrize("locks", [True, None])
def test_a_dead_host_blocks_nobody(locks, tmp_path, quick, monkeypatch):
    _leave_mark(tmp_path, "gone.example")
    if locks is None:
        monkeypatch.setattr(storage, "try_lock", _no_locks)
    with owned(tmp_path):
        assert json.loads((tmp_path / owner.FILE).read_text())["host"] == HERE


def test_a_lock_that_the_file_server_keeps_for_a_dead_host_blocks_nobody(tmp_path, quick):
    _leave_mark(tmp_path, "gone.example")
    with (tmp_path / owner.FILE).open("rb") as kept:
        assert storage.try_lock(kept.fileno())
        with owned(tmp_path), pytest.raises(UserError, match="in training"):
            owned(tmp_path).__enter__()


def _no_locks(descriptor):
    raise OSError(95, "Operation not supported")


def test_a_living_owner_on_another_host_is_seen_by_its_heartbeat(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(storage, "try_lock", _no_locks)
    with owned(tmp_path):
        monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere.example")
        with pytest.raises(UserError, match=f"on {HERE}"):
            owned(tmp_path).__enter__()


def test_a_job_whose_run_was_taken_over_ends(tmp_path, quick, monkeypatch, capsys):
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda status: ended.set())
    with owned(tmp_path):
        _leave_mark(tmp_path, "elsewhere.example")
        assert ended.wait(5)
    assert "taken over by process" in capsys.readouterr().err
