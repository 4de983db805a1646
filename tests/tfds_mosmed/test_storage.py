"""Files that several processes write, and what killed ones leave behind."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from etils import epath

from tfds_mosmed import storage


def _write_often(path, letter):
    for _ in range(200):
        storage.write_whole(epath.Path(path), letter * 10_000)


def _add_often(path):
    for _ in range(100):
        with storage.exclusive(path):
            text = path.read_text() if path.exists() else ""
            storage.write_whole(path, (text + "x").encode())


def _make_folders(parent):
    for _ in range(300):
        with storage.partial_folder(parent) as folder:
            (folder / "file").write_bytes(b"x")


def _run_all(target, *arguments):
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=target, args=each) for each in arguments]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0


def test_folders_in_the_making_are_not_swept_by_others(tmp_path):
    _run_all(_make_folders, *[(tmp_path,)] * 4)
    assert not list(tmp_path.iterdir())


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "file"
    _run_all(_write_often, (path, b"a"), (path, b"b"))
    assert path.read_bytes() in (b"a" * 10_000, b"b" * 10_000)
    assert list(tmp_path.iterdir()) == [path]


def test_no_change_under_the_lock_is_lost(tmp_path):
    path = tmp_path / "file"
    _run_all(_add_often, (path,), (path,), (path,))
    assert path.read_text() == 300 * "x"


def _hang(folder, descriptor):
    with storage.partial_folder(folder) as partial:
        (partial / "half").write_text("written")
        os.write(descriptor, b".")
        time.sleep(60)


def test_a_sweep_removes_what_a_killed_process_left_and_nothing_else(tmp_path):
    (tmp_path / ".hidden").touch()
    (tmp_path / "0123.partial").touch()
    (tmp_path / f".0123{storage.PARTIAL}").touch()  # as if the power had been cut
    reader, writer = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=_hang, args=(tmp_path, writer))
    process.start()
    os.read(reader, 1)
    storage.sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3  # the living process keeps its folder
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    storage.write_whole(tmp_path / "file", b"")  # sweeps, too
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "0123.partial", "file"]


def test_a_write_that_fails_names_the_file_and_leaves_nothing(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(5, "Input/output error")

    storage.write_whole(tmp_path / "file", b"before")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="file"):
        storage.write_whole(tmp_path / "file", b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"before"


def test_files_have_the_permissions_that_others_expect(tmp_path):
    before = os.umask(0o022)
    try:
        storage.write_whole(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert Path(tmp_path / "file").stat().st_mode & 0o777 == 0o644
