"""Experiment trackers, Weights & Biases and MLflow: the metrics, the configuration and the report of a run.

WORKDIR/tracker.json holds the id that the run has there, so that a resumed training and an evaluation continue it.
"""

import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from etils import epath

from covidscan.metrics import metrics_json
from covidscan.runs.workdir import read_run, run_id, write_text
from tfds_mosmed import storage
from tfds_mosmed.errors import NOT_AS_WRITTEN, UserError, first_line

FILE, PROJECT = "tracker.json", "covidscan"
PACKAGES = {"wandb": "wandb", "mlflow": "mlflow-skinny"}
SENT = ("report.html", "model_card.md", "checklist.md")  # of an evaluation: those without names of studies


class Tracker:
    """No tracker, to which nothing is sent; base of the others.

    A tracker that fails after it was opened costs one warning, and not the run.
    """

    def __init__(self) -> None:
        self._has_failed = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send metrics, by SPLIT/NAME, after `step` steps."""
        self._guard(self._log, step, metrics)

    def send(self, name: str, metrics: Mapping[str, float], files: Sequence[Path]) -> None:
        """Send an evaluation: its name, its metrics and its files, which must be local."""
        self._guard(self._send, name, metrics, files)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._guard(self._close, kind is None)

    def _log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def _send(self, name: str, metrics: Mapping[str, float], files: Sequence[Path]) -> None: ...

    def _close(self, succeeded: bool) -> None: ...

    def _guard(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._has_failed:
            return
        try:
            call(*arguments)
        except Exception as error:  # of the tracker's package: many types
            self._has_failed = True
            logging.warning("The tracker takes no more (%s); the files in the workdir are complete", first_line(error))


class _Wandb(Tracker):
    def __init__(self, workdir: epath.PathLike, ident: str | None, settings: Mapping[str, Any]):
        import wandb  # pyright: ignore[reportMissingImports] - an extra

        super().__init__()
        self.ident = ident or secrets.token_hex(4)
        self._wandb = wandb
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=self.ident,
            name=epath.Path(workdir).name,
            config=dict(settings),
            resume="allow",
            dir=None if storage.is_remote(workdir) else str(workdir),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.place = self._run.dir if self._run.offline else self._run.url

    def _log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def _send(self, name: str, metrics: Mapping[str, float], files: Sequence[Path]) -> None:
        self._run.summary.update({f"{name}/{metric}": value for metric, value in metrics.items()})
        artifact = self._wandb.Artifact(f"{name}-{self.ident}", type="evaluation")
        for path in files:
            artifact.add_file(str(path))
            if path.suffix == ".html":
                self._run.log({f"{name}/{path.stem}": self._wandb.Html(path.read_text(), inject=False)})
        self._run.log_artifact(artifact)

    def _close(self, succeeded: bool) -> None:
        self._run.finish(exit_code=0 if succeeded else 1)


class _Mlflow(Tracker):
    def __init__(self, workdir: epath.PathLike, ident: str | None, settings: Mapping[str, Any]):
        # A server that is away must not hold up the training for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports] - an extra
        from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]

        super().__init__()
        self._client, self._metric, self._pending = MlflowClient(), Metric, []
        if ident is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            experiment = self._client.get_experiment_by_name(name)
            number = experiment.experiment_id if experiment else self._client.create_experiment(name)
            ident = self._client.create_run(number, run_name=epath.Path(workdir).name).info.run_id
            self._client.log_batch(ident, params=[Param(name, str(value)) for name, value in settings.items()])
        else:
            self._client.update_run(ident, status="RUNNING")
        self.ident = ident
        self.place = f"run {ident} of {os.environ.get('MLFLOW_TRACKING_URI', 'the default of MLflow')}"

    def _log(self, step: int, metrics: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        found = [self._metric(name, value, now, step) for name, value in metrics.items()]
        self._pending.append(self._client.log_batch(self.ident, metrics=found, synchronous=False))

    def _send(self, name: str, metrics: Mapping[str, float], files: Sequence[Path]) -> None:
        self._log(0, {f"{name}/{metric}": value for metric, value in metrics.items()})
        for path in files:
            self._client.log_artifact(self.ident, str(path), name)

    def _close(self, succeeded: bool) -> None:
        for sent in self._pending:
            sent.wait()
        self._client.set_terminated(self.ident, "FINISHED" if succeeded else "FAILED")


def check(name: str | None) -> None:
    """Raise UserError where the package of a tracker is not installed."""
    if name:
        try:
            __import__(name)
        except ImportError as error:
            raise UserError(f"--tracker={name} needs one more package: pip install {PACKAGES[name]}") from error


def open_tracker(name: str | None, workdir: epath.PathLike) -> Tracker:
    """Open the run of a workdir in a tracker, which continues if it is known there.

    Args:
      name: "wandb", "mlflow" or None.
      workdir: with a config.json.

    Raises:
      UserError: the package is missing, or the tracker cannot be reached.
    """
    if not name:
        return Tracker()
    check(name)
    path, run = epath.Path(workdir) / FILE, read_run(workdir)
    try:
        known = json.loads(path.read_bytes()) if path.exists() else {}
        ident = known.get(name)
    except (AttributeError, *NOT_AS_WRITTEN) as error:
        raise UserError(f"{path} is not as it was written ({error!r}): remove it, and a new run is opened") from error
    data = {key: run["data"][key] for key in ("fingerprint", "split_hash")}
    try:
        opened = (_Wandb if name == "wandb" else _Mlflow)(workdir, ident, {**run["config"], **data})
    except Exception as error:  # of the tracker's package: many types
        remedy = {
            "wandb": "log in with wandb login, or set WANDB_MODE=offline",
            "mlflow": "set MLFLOW_TRACKING_URI to that of your server",
        }[name]
        raise UserError(f"--tracker={name}: no run can be opened ({first_line(error)}): {remedy}") from error
    write_text(path, json.dumps({**known, name: opened.ident}) + "\n")
    print(f"Tracker: {opened.place}")
    return opened


def send_evaluation(name: str | None, workdir: epath.PathLike, folder: epath.PathLike) -> None:
    """Send metrics and report of an evaluation to the run of a workdir in a tracker.

    Raises:
      UserError: see `open_tracker`; or the evaluation cannot be read.
    """
    evaluated = metrics_json.read(folder, run_id(workdir)) if name else None
    if evaluated is None:
        return
    metrics = {key: metric.value for key, metric in evaluated[0].metrics.items() if metric.value is not None}
    with tempfile.TemporaryDirectory() as local, open_tracker(name, workdir) as tracker:
        files = [Path(local) / file for file in SENT]
        for file in files:
            file.write_bytes(metrics_json.read_file(folder, file.name))
        tracker.send(epath.Path(folder).name, metrics, files)
