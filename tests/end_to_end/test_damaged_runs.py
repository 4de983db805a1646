"""Whole commands on runs, exported models and records of which one file or folder is damaged: right, or one line."""

import contextlib
import json
import shutil
import subprocess
import zlib
from pathlib import Path
from unittest import mock

import jax
import matplotlib.figure
import numpy as np
import pytest

from covidscan.evaluation.baselines import BaselineResults
from covidscan.evaluation.localisation import Localisation
from covidscan.report import plots
from tests.support import in_process, runs, share
from tests.support.damage import as_nobody, damage_one
from tfds_mosmed.ct_phantom import generator

TRIES = 400
CHEAP = ("predict", "predict_model", "verify", "localise", "export")
COMMANDS = (*CHEAP, *CHEAP, "evaluate", "train")
EVALUATION = "evaluations/ct_phantom_tiny-test-best"


class Bench:
    """A folder with a run, a model and records, and what the commands answer on them.

    Args:
      folder: of all.
      trained: an evaluated run.
      data_dir: its records.
      other: another run.
    """

    def __init__(self, folder: Path, trained: Path, data_dir: Path, other: Path):
        self._folder, self._data_dir, self._trained = folder, data_dir, trained
        self._models = {workdir: folder.parent / f"model of {workdir.name}" for workdir in (trained, other)}
        self.others = {"run": other, "model": self._models[other], "records": data_dir}
        self._scan = folder.parent / "scan.nii.gz"
        generator.write_study(generator.make_phantom(901, "CT-2", matrix=128), self._scan)
        for workdir, model in self._models.items():
            _run("export", f"--workdir={workdir}", f"--output={model}")
        self._answers: dict[str, str] = {}

    def restore(self, command: str) -> None:
        """Put everything in order again; a training has its last steps before it."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._folder)
        self._folder.mkdir()
        for name, source in (
            ("run", self._trained),
            ("model", self._models[self._trained]),
            ("records", self._data_dir),
        ):
            shutil.copytree(source, self._folder / name)
        config = self._folder / "run" / "config.json"
        config.write_text(config.read_text().replace(str(self._data_dir), str(self._folder / "records")))
        if command == "train":
            shutil.rmtree(self._folder / "run" / "checkpoints" / "14")
        subprocess.run(["chmod", "-R", "a+rwX", self._folder], check=True)

    def right_answer(self, command: str) -> str:
        """Return a command's answer where nothing is damaged."""
        if command not in self._answers:
            self.restore(command)
            done = self.run(command)
            assert done.returncode == 0, done.stderr
            self._answers[command] = self.answer(command, done)
        return self._answers[command]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        here = self._folder
        workdir = f"--workdir={here / 'run'}"
        return _run(
            *{
                "predict": ("predict", workdir, str(self._scan)),
                "predict_model": ("predict", f"--model={here / 'model'}", str(self._scan)),
                "evaluate": ("evaluate", workdir),
                "verify": ("evaluate", workdir, "--verify"),
                "localise": ("localise", workdir),
                "export": ("export", workdir, f"--output={here / 'exported'}"),
                "train": ("train", *runs.SMALL, workdir, f"--data_dir={here / 'records'}"),
            }[command]
        )

    def answer(self, command: str, done: subprocess.CompletedProcess[str]) -> str:
        """Return what must be the same whenever a command succeeds."""
        run = self._folder / "run"
        if command == "evaluate":
            metrics = json.loads((run / EVALUATION / "metrics.json").read_text())
            results = {name: part for name, part in metrics.items() if name not in ("context", "files", "sha256")}
            return json.dumps(results) + (run / EVALUATION / "predictions.csv").read_text()
        if command == "train":
            history = json.loads((run / "checkpoints" / "14" / "history" / "metadata").read_text())
            return f"{history['crc32']} {(run / 'choices.json').read_text()}"
        if command == "export":
            model = json.loads((self._folder / "exported" / "model.json").read_text())
            return json.dumps([model["model"], model["files"]["weights.npz"], model["files"]["model.stablehlo"]])
        if command.startswith("predict"):  # without the seconds
            return "\n".join(",".join(np.delete(line.split(","), 7)) for line in done.stdout.splitlines())
        return done.stdout


def _run(command: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run a command without what takes long: pictures, baselines, saliency maps and processes that read studies."""
    picture = plots.to_png(matplotlib.figure.Figure(figsize=(1, 1)))
    with (
        mock.patch("covidscan.report.plots.to_png", return_value=picture),
        mock.patch("covidscan.evaluation.evaluate.evaluate_baselines", return_value=BaselineResults([], [], [])),
        mock.patch("covidscan.explanation.scale.compute", return_value=[]),
        mock.patch("covidscan.evaluation.localisation.localise", _checksum),
        mock.patch("covidscan.prediction.reading.isolated_map", _serial_map),
    ):
        return in_process.run(command, *flags)


def _checksum(trained, shuffled, dataset) -> Localisation:
    del shuffled
    volumes = [dataset.records[int(row)]["volume"] for row in dataset.parts["test"]]
    arrays = [*jax.tree.leaves(trained.members[0].variables), *volumes]
    return Localisation(float(sum(zlib.crc32(np.ascontiguousarray(array).data) for array in arrays)), {})


@contextlib.contextmanager
def _serial_map(function, items, *_, **__):
    yield map(function, items)


@pytest.fixture(scope="module")
def bench(trained_with_seed_1, data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    subprocess.run(["chmod", "a+rx", *folder.parents, folder], check=True)
    # Trained in the process that goes on with it: on another number of devices the last bits would differ.
    trained = folder / "trained"
    for flags in (
        ("train", *runs.SMALL, f"--data_dir={data_dir}", f"--workdir={trained}"),
        ("evaluate", f"--workdir={trained}"),
        ("evaluate", f"--workdir={trained_with_seed_1}"),
    ):
        done = _run(*flags)
        assert done.returncode == 0, done.stderr
    return Bench(folder / "all", trained, data_dir, trained_with_seed_1)


def test_a_command_on_something_damaged_is_right_or_one_line(bench, tmp_path):
    chance = share.generator("damaged runs")
    wrong = []
    for _ in range(TRIES if share.is_full() else 8):
        command = chance.choice(COMMANDS)
        right = bench.right_answer(command)
        bench.restore(command)
        part = "model" if command == "predict_model" else chance.choice(("run", "run", "records"))
        damage = damage_one(bench._folder / part, bench.others[part], chance)
        with as_nobody() if damage.kind == "forbidden" else contextlib.nullcontext():
            done = bench.run(command)
        tried = f"{command}, {damage.kind} {damage.path}: "
        if done.returncode == 0:
            # Runs of earlier versions have no such file: each prediction is then flagged "not_compared".
            no_ranges = damage.path.name == "typical.json" and not damage.path.exists()
            if bench.answer(command, done) != right and not no_ranges:
                wrong.append(f"{tried}another answer; {done.stderr}")
        elif problem := _problem(done, damage.path):
            wrong.append(f"{tried}{problem}: {done.stderr}")
    assert not wrong, "\n".join(wrong)


def _problem(done: subprocess.CompletedProcess[str], path: Path) -> str | None:
    """Return why an error is not one line that names what is damaged and the way out."""
    last = done.stderr.splitlines()[-1]
    names = [path.name, *(str(folder) for folder in path.parents[:-3])]
    if done.returncode != 1 or not last.startswith("error: ") or "Traceback" in done.stderr:
        return f"status {done.returncode}"
    if not any(name in last for name in names):
        return "no name"
    return None if last.count(": ") + last.count("; ") >= 2 and "[Errno" not in last else "no way out"
