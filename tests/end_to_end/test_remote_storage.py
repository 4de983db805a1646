"""Runs and records in gs:// and s3://, against servers of these protocols on loopback."""

import contextlib
import http.server
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import Any, NamedTuple

import numpy as np
import pytest
from etils import epath

from covidscan.runs.checkpoints import Checkpoints, Validation
from tests.support import runs
from tfds_mosmed import catalog, storage
from tfds_mosmed.building import remote as remote_records
from tfds_mosmed.errors import UserError

RECORDS = "ct_phantom/tiny/1.1.0"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def _serving(port: int, *command: str):
    """A server that answers on a port for as long as the body lasts."""
    process = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert time.monotonic() < deadline, f"{command[0]} did not start"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/")
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.1)
            else:
                break
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """S3 and Google Cloud Storage, each with a bucket "bucket", as this process and what it starts see them."""
    s3, gcs = _free_port(), _free_port()
    with (
        _serving(s3, "moto.server", "-H", "127.0.0.1", "-p", str(s3)),
        _serving(
            gcs, "gcp_storage_emulator", "start", "--host=127.0.0.1", f"--port={gcs}", "--in-memory",
            "--default-bucket=bucket",
        ),
        pytest.MonkeyPatch.context() as patch,
    ):  # fmt: skip
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}",
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{gcs}",
            "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),
        }.items():
            patch.setenv(name, value)
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{s3}/bucket", method="PUT"))
        yield


@pytest.fixture(params=["s3", "gs"])
def bucket(request, servers) -> epath.Path:
    return epath.Path(f"{request.param}://bucket")


@pytest.fixture(scope="module")
def evaluated(trained):
    """The predictions of the uninterrupted run in a local folder."""
    runs.run("evaluate", f"--workdir={trained}")
    return runs.predictions(trained / "evaluations" / "ct_phantom_tiny-test-best")


@pytest.mark.sampled
def test_a_killed_run_in_a_bucket_ends_as_an_uninterrupted_local_run(bucket, trained, evaluated, data_dir, tmp_path):
    storage.copy_folder(epath.Path(data_dir) / RECORDS, bucket / "run-data" / RECORDS)
    workdir = bucket / "run"
    flags = [*runs.SMALL, "--checkpoint_every=4", f"--workdir={workdir}", f"--data_dir={bucket / 'run-data'}"]
    command = [sys.executable, "-m", "covidscan.train", *flags]
    with subprocess.Popen(command, cwd=runs.ROOT, env=runs.environment(), stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (workdir / "checkpoints" / "4" / "commit_success.txt").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    resumed = runs.run("train", *flags)
    assert "damaged" not in resumed.stderr
    runs.run("evaluate", f"--workdir={workdir}")
    assert not [path for path in runs.ROOT.iterdir() if path.name in ("s3:", "gs:")]

    storage.copy_folder(workdir, epath.Path(tmp_path))  # a run is its workdir, wherever that is
    runs.assert_equal_states(runs.saved_state(tmp_path, 14), runs.saved_state(trained, 14))
    for split in ("train", "validation"):
        mine, theirs = runs.log_lines(tmp_path, split), runs.log_lines(trained, split)
        assert [(line["step"], line["loss"]) for line in mine] == [(line["step"], line["loss"]) for line in theirs]
    shown = runs.tensorboard_scalars(tmp_path)["train/loss"]
    assert shown[14] == pytest.approx(runs.log_lines(trained, "train")[-1]["loss"], rel=1e-5)
    assert runs.predictions(tmp_path / "evaluations" / "ct_phantom_tiny-test-best") == evaluated
    for name in ("config.json", "curves.png", "evaluations/ct_phantom_tiny-test-best/report.html"):
        assert (tmp_path / name).stat().st_size > 1000


def test_records_are_built_into_a_bucket_and_read_from_it_on_other_machines(bucket, data_dir, monkeypatch, tmp_path):
    def on_another_machine(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        builder = catalog.load_builder("ct_phantom/tiny", bucket / "data")
        builder.prepare()
        return builder

    built = on_another_machine("one")
    monkeypatch.setattr(type(built), "_generate_splits", None)  # nothing is built from here on
    fetched = on_another_machine("two")
    local = catalog.load_builder("ct_phantom/tiny", data_dir)
    assert fetched.fingerprint() == local.fingerprint()
    for row in (0, 23):
        np.testing.assert_array_equal(fetched.open_records()[row]["volume"], local.open_records()[row]["volume"])
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").rglob("*.array_record*")}
    assert files
    on_another_machine("two")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "two").rglob("*.array_record*")} == files


def test_a_local_copy_of_records_follows_the_bucket(bucket, tmp_path):
    remote, local = bucket / "followed", epath.Path(tmp_path / "1.1.0")
    assert not remote_records.fetch(remote, local)
    local.mkdir()
    for name in (*remote_records.MARKS, "shard"):
        (local / name).write_text("one")
    remote_records.publish(local, remote)
    assert not remote_records.fetch(remote, local)
    (remote / "metadata.json").write_text("two")
    (remote / "shard").write_text("two")
    assert remote_records.fetch(remote, local)
    assert (local / "shard").read_text() == "two"
    (remote / "dataset_info.json").unlink()  # as a publication that was killed
    assert remote_records.fetch(remote, local)
    assert not local.exists()


class _State(NamedTuple):
    step: Any
    weights: Any


def _state(step: int) -> _State:
    return _State(np.int32(step), np.random.default_rng(step).normal(size=(64, 64)).astype(np.float32))


def _save(workdir: epath.Path, last: int) -> None:
    for steps in (range(1, last // 2 + 1), range(last // 2 + 1, last + 1)):  # with a restart between
        with Checkpoints(workdir, keep=3) as checkpoints:
            for step in steps:
                checkpoints.save(_state(step), [Validation(earlier, 1 / earlier) for earlier in range(1, step + 1)])


def test_the_newest_and_the_best_checkpoints_in_a_bucket_are_kept(bucket):
    _save(bucket / "kept", 6)
    assert sorted(path.name for path in (bucket / "kept" / "checkpoints").iterdir()) == ["1", "4", "5", "6"]
    with Checkpoints(bucket / "kept", keep=None) as checkpoints:
        assert checkpoints.find("best") == 1
        state, history = checkpoints.restore(5, _state(0))
    np.testing.assert_array_equal(state.weights, _state(5).weights)
    assert history[-1] == Validation(5, 0.2)


def test_damaged_and_incomplete_checkpoints_in_a_bucket_are_skipped(bucket):
    workdir = bucket / "damaged-run"
    _save(workdir, 4)
    (workdir / "checkpoints" / "4" / "commit_success.txt").unlink()  # as a save that was killed
    array = max((workdir / "checkpoints" / "3" / "state" / "d").iterdir(), key=lambda path: path.stat().length)
    array.write_bytes(array.read_bytes()[:-100])
    with Checkpoints(workdir, keep=3) as checkpoints:
        found = checkpoints.restore_newest(_state(0))
    assert found is not None
    np.testing.assert_array_equal(found[0].weights, _state(2).weights)
    assert [path.name.split("-")[0] for path in (workdir / "damaged").iterdir()] == ["3"]
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["1", "2"]


def test_a_network_failure_is_not_mistaken_for_a_damaged_checkpoint(bucket, monkeypatch):
    workdir = bucket / "cut-off"
    _save(workdir, 2)

    def fail(*_):
        raise ConnectionError("gone")

    with Checkpoints(workdir, keep=3) as checkpoints:
        monkeypatch.setattr(storage, "copy_folder", fail)
        with pytest.raises(ConnectionError):
            checkpoints.restore_newest(_state(0))
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["1", "2"]


@contextlib.contextmanager
def _forbidding():
    """A server that refuses everything."""

    class Refusal(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _message(path: str, before: str = "") -> str:
    """The one line of the UserError that a fresh process gets, which has no connection yet."""
    code = f"""
import os, sys
{before}
from tfds_mosmed import errors, storage
try:
    storage.check({path!r})
except errors.UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=runs.ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_missing_package_or_bucket_raises_one_line(bucket):
    scheme = str(bucket).partition(":")[0]
    package = storage.PACKAGES[scheme]
    assert _message(f"{bucket}/run") == ""
    assert _message(f"{bucket}/run", f"sys.modules[{package!r}] = None") == (
        f"{bucket}/run: {scheme}:// needs one more package: pip install {package}\n"
    )
    assert _message(f"{scheme}://absent/run") == (
        f"{scheme}://absent/run: there is no bucket {scheme}://absent: create it first\n"
    )
    with _forbidding() as address:
        message = _message(
            f"{bucket}/run", f"os.environ.update(AWS_ENDPOINT_URL={address!r}, STORAGE_EMULATOR_HOST={address!r})"
        )
    assert message.startswith(f"{bucket}/run: {bucket} cannot be listed (Forbidden")
    assert message.count("\n") == 1


def test_other_schemes_and_missing_credentials_raise_one_line(servers):
    with pytest.raises(UserError, match=r"^hdfs://cluster/run: give a folder of this machine, gs://BUCKET/FOLDER or "):
        storage.check("hdfs://cluster/run")
    message = _message("s3://bucket/run", "del os.environ['AWS_ACCESS_KEY_ID'], os.environ['AWS_SECRET_ACCESS_KEY']")
    assert message == (
        "s3://bucket/run: s3://bucket cannot be listed (Unable to locate credentials): check your credentials for it, "
        "and the network\n"
    )


def test_commands_end_with_that_line(servers):
    done = runs.run("train", *runs.SMALL, "--workdir=s3://absent/run", check=False)
    assert done.returncode == 1
    assert done.stderr == "error: s3://absent/run: there is no bucket s3://absent: create it first\n"
    done = runs.run("build", "--dataset=ct_phantom/tiny", "--data_dir=gs://absent/data", check=False)
    assert done.returncode == 1
    assert done.stderr == "error: gs://absent/data: there is no bucket gs://absent: create it first\n"


def test_a_growing_file_in_a_bucket_holds_everything_before_the_last_flush(bucket):
    path = bucket / "log" / "metrics.jsonl"
    file = storage.GrowingFile(path, b'{"step": 1}\n')
    file.write(b'{"step": 2}\n')
    file.flush()
    file.write(b'{"step": 3}\n')
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
    file.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]
