"""Experiment trackers: W&B without a network, an MLflow server on this machine, and what goes wrong.

The packages of the trackers are heavy, and not part of the locked ones: pip install wandb mlflow.
"""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from covidscan.runs import tracking
from covidscan.runs.log import RunLog
from tests.support import runs
from tfds_mosmed.errors import UserError


@pytest.fixture
def workdir(tmp_path):
    """A run with an evaluation."""
    return shutil.copytree(runs.ROOT / "tests/support/stored_run/run", tmp_path / "run")


def _evaluation(workdir):
    """Its evaluation, as if this version had written it."""
    (folder,) = (workdir / "evaluations").iterdir()
    for name in tracking.SENT:
        if not (folder / name).exists():
            (folder / name).write_text(f"<p>{name}</p>")
    return folder


def _track(name, workdir, capsys):
    """Log two steps, resume, log another, send the evaluation; return its AUROC and the printed lines."""
    for step, loss in ((10, 0.7), (20, 0.5), (30, 0.4)):
        if step != 20:
            tracker = tracking.open_tracker(name, workdir)
            log = RunLog(workdir, step - 10, 40, 4, writes=True, tracker=tracker)
        log.write(step, "train", {"loss": loss, "auroc": None})
        if step != 10:
            with tracker, log:
                log.write(step, "validation", {"auroc": 0.5 + step / 100})
    folder = _evaluation(workdir)
    tracking.send_evaluation(name, workdir, folder)
    return json.loads((folder / "metrics.json").read_text())["figures"]["auroc"]["value"], capsys.readouterr()


def test_wandb_gets_metrics_configuration_and_report_without_a_network(workdir, monkeypatch, capsys, caplog):
    pytest.importorskip("wandb", reason="W&B is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(workdir.parent / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(workdir.parent / "staging"))
    auroc, printed = _track("wandb", workdir, capsys)
    assert caplog.text == ""
    assert "WARNING" not in printed.err
    (ident,) = {path.stem.removeprefix("run-") for path in workdir.glob("wandb/offline-run-*/*.wandb")}
    assert json.loads((workdir / "tracker.json").read_text()) == {"wandb": ident}
    stored = b"".join(path.read_bytes() for path in sorted(workdir.glob("wandb/offline-run-*/*.wandb")))
    for expected in ("train/loss", "validation/auroc", "learning_rate", "fingerprint", f"{auroc:.6g}"[:6]):
        assert expected.encode() in stored, expected
    pages = list(workdir.glob("wandb/offline-run-*/files/media/html/**/*.html"))
    assert [page.read_text() for page in pages] == [(_evaluation(workdir) / "report.html").read_text()]


@pytest.fixture
def mlflow_server(tmp_path):
    """Address of an MLflow server."""
    if importlib.util.find_spec("mlflow") is None or importlib.util.find_spec("sqlalchemy") is None:
        pytest.skip("the server of MLflow is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    store = [f"--backend-store-uri=sqlite:///{tmp_path}/mlflow.db", f"--artifacts-destination={tmp_path}/artifacts"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([*line, *store], start_new_session=True, **quiet)
    deadline = time.monotonic() + 300
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its workers too
        server.wait()


def test_an_mlflow_server_gets_metrics_configuration_and_report(workdir, mlflow_server, monkeypatch, capsys, caplog):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    auroc, printed = _track("mlflow", workdir, capsys)
    assert caplog.text == ""
    ident = json.loads((workdir / "tracker.json").read_text())["mlflow"]
    assert f"Tracker: run {ident} of {mlflow_server}" in printed.out
    client = MlflowClient(mlflow_server)
    run = client.get_run(ident)
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"]
    history = [(each.step, each.value) for each in client.get_metric_history(ident, "train/loss")]
    assert history == [(10, 0.7), (20, 0.5), (30, 0.4)]
    (folder,) = (workdir / "evaluations").iterdir()
    assert run.data.metrics[f"{folder.name}/auroc"] == pytest.approx(auroc)
    assert {each.path for each in client.list_artifacts(ident, folder.name)} == {
        f"{folder.name}/{name}" for name in tracking.SENT
    }


@pytest.mark.parametrize(("name", "package"), [("wandb", "wandb"), ("mlflow", "mlflow-skinny")])
def test_a_tracker_without_its_package_is_refused(name, package, workdir, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=f"^--tracker={name} needs one more package: pip install {package}$"):
        tracking.open_tracker(name, workdir)


class _Broken(tracking.Tracker):
    calls = 0

    def _log(self, step, metrics):
        type(self).calls += 1
        raise ConnectionError("the server is gone\nand so on")


def test_a_tracker_that_fails_costs_one_warning_and_not_the_run(tmp_path, caplog):
    with _Broken() as tracker, RunLog(tmp_path, 0, 40, 4, writes=True, tracker=tracker) as log:
        for step in (10, 20, 30):
            log.write(step, "train", {"loss": 1.0})
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    assert (_Broken.calls, len(caplog.records)) == (1, 1)
    assert "takes no more (the server is gone); the files in the workdir are complete" in caplog.text


def test_a_tracker_that_cannot_be_opened_ends_in_one_line_with_the_way_out(workdir, monkeypatch):
    def refuse(*_):
        raise RuntimeError("no API key\nhelp")

    monkeypatch.setattr(tracking, "_Wandb", refuse)
    monkeypatch.setattr(tracking, "check", lambda name: None)
    with pytest.raises(UserError, match=r"^--tracker=wandb: no run can be opened \(no API key\): log in with wandb"):
        tracking.open_tracker("wandb", workdir)
    (workdir / "tracker.json").write_text("[1]")
    with pytest.raises(UserError, match=r"tracker\.json is not as it was written"):
        tracking.open_tracker("wandb", workdir)
