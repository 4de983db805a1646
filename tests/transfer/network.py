"""One network of the benchmark: its training and its predictions, each of which is done once."""

import csv
import dataclasses
import datetime
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from covidscan.cli import flagfiles
from covidscan.config import DataPaths
from covidscan.distributed.exits import RunAgain, StoppedByUser
from covidscan.metrics import detectability
from covidscan.metrics.csv_cells import unescape
from covidscan.metrics.detectability import Detectability, Inserted
from covidscan.metrics.predictions import Predictions
from covidscan.predict import SOME_FAILED
from covidscan.runs.log import read_log
from covidscan.runs.workdir import read_run, run_id
from tests.support.machine import machine
from tests.transfer.results import RealStudy, Training
from tfds_mosmed import catalog, storage
from tfds_mosmed.errors import UserError
from tfds_mosmed.scans.nifti import is_nifti_name

RECIPES = Path(__file__).with_name("recipes")
BEGINS_WITH = {"whole": "crops"}  # recipe -> that of the networks that its networks begin with, seed by seed
LESIONS = ("--diameters=5,10,15,20,30", "--densities=-700,-550")


class Phantoms(NamedTuple):
    """A set of phantoms that networks are evaluated on.

    Attributes:
      dataset: NAME/CONFIG.
      fingerprint: of its records.
      details: study id -> findings and lesion diameters.
    """

    dataset: str
    fingerprint: str
    details: Mapping[str, Mapping[str, Any]]


def load_phantoms(dataset: str, data_dir: str) -> Phantoms:
    """Load a set of phantoms; records that do not exist are built."""
    builder = catalog.load_builder(dataset, data_dir)
    builder.prepare()
    return Phantoms(dataset, builder.fingerprint(), builder.index().details)


class Network:
    """A network of a recipe and a seed. Everything of it is in its workdir, OUTPUT/RECIPE/seed_SEED.

    Args:
      recipe: name of a file in `RECIPES`.
      seed: of the training.
      data_dir: folder of the records.
      output: folder of the benchmark.
    """

    def __init__(self, recipe: str, seed: int, data_dir: str, output: str):
        self.recipe, self.seed, self.data_dir = recipe, seed, data_dir
        self.workdir = Path(output, recipe, f"seed_{seed}")
        self.folder = self.workdir / "transfer"
        first = BEGINS_WITH.get(recipe)
        self.first = Network(first, seed, data_dir, output) if first else None

    def train(self) -> Training:
        """Train to the end, from the last checkpoint if there is one; a trained network is left as it is.

        The network that it begins with is trained before.

        Raises:
          UserError: the recipe or the records have changed since, or the training failed.
          RunAgain: the training was asked to stop, and has saved.
        """
        flagfile, path = RECIPES / f"{self.recipe}.flags", self.folder / "training.json"
        flags = flagfiles.expand([f"--flagfile={flagfile}"])
        begins = []
        if self.first:
            self.first.train()
            begins = [f"--init_from={self.first.workdir}"]
        if not path.exists():
            _run(f"--flagfile={flagfile}", f"--seed={self.seed}", *begins, *self._folders(), command="train")
            here, now = machine(), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            done = Training(flags, now, f"{here['cores']} cores of {here['processor']}")
            self.folder.mkdir(exist_ok=True)
            storage.write_whole(path, json.dumps(dataclasses.asdict(done), indent=1).encode())
        training = Training(**json.loads(path.read_text()))
        self._check(training.flags == flags, f"with other flags than {flagfile} has now")
        data = self.run["data"]
        builder = catalog.load_builder(data["dataset"], self.data_dir)
        same_records = not builder.is_built() or builder.fingerprint() == data["fingerprint"]
        self._check(same_records, f"on other records of {data['dataset']} than --data_dir={self.data_dir} holds")
        return training

    def _folders(self) -> list[str]:
        return [f"--workdir={self.workdir}", f"--data_dir={self.data_dir}"]

    def _check(self, same: bool, difference: str) -> None:
        if not same:
            remedy = "give another --output, or remove that folder to train again"
            raise UserError(f"{self.workdir} was trained {difference}: {remedy}")

    @property
    def run(self) -> dict[str, Any]:
        """The content of the run's config.json."""
        return read_run(self.workdir)

    def training_minutes(self) -> float:
        """Return the minutes of training steps, those of the first network too, from their speeds in the log."""
        before, size = 0, self.run["config"]["batch_size"]
        seconds = 60 * self.first.training_minutes() if self.first else 0.0
        for line in read_log(self.workdir):
            if line.get("volumes_per_second"):
                seconds += (line["step"] - before) * size / line["volumes_per_second"]
                before = line["step"]
        return seconds / 60

    def predict(self, phantoms: Phantoms) -> Predictions:
        """Predict phantoms: the test part of those that it was trained on, or all of another set.

        Raises:
          UserError: they do not fit the network, or some of them trained or chose it.
        """
        path = self._predictions_path(phantoms)
        if not path.exists():
            text = predictions_csv(self.workdir, phantoms.dataset, self.data_dir)
            storage.write_whole(path, text.encode())
        return self.stored_predictions(phantoms)

    def stored_predictions(self, phantoms: Phantoms) -> Predictions:
        """Read the predictions of phantoms.

        Raises:
          UserError: they are not there.
        """
        path = self._predictions_path(phantoms)
        if not path.exists():
            raise UserError(
                f"{path} does not exist: first run this command with --recipe={self.recipe} and --seeds={self.seed}, "
                f"and with --data_dir={self.data_dir}"
            )
        return Predictions.from_csv(path.read_text(), self.run["config"]["task"])

    def _predictions_path(self, phantoms: Phantoms) -> Path:
        """Return the file of the predictions; records that were built anew have another one."""
        name = phantoms.dataset.rpartition("/")[2]
        return self.folder / f"{name}-{phantoms.fingerprint[:12]}.csv"

    def predict_real(self, studies: Sequence[Path]) -> list[RealStudy]:
        """Predict real studies, see `find_real`."""
        folder = self._on_real(studies, "--format=json", command="predict", name="real")
        lines = (folder / "predictions.jsonl").read_text().splitlines()
        return [_real_study(json.loads(line)) for line in lines]

    def insert_lesions(self, studies: Sequence[Path]) -> tuple[Detectability, list[Inserted]]:
        """Insert `LESIONS` into real studies; returns what `covidscan.detectability` wrote of them."""
        folder = self._on_real(studies, *LESIONS, command="detectability", name="insertions")
        measured = detectability.read(folder, run_id(self.workdir))
        assert measured is not None
        with (folder / "insertions.csv").open() as file:
            return measured, [_inserted(row) for row in csv.DictReader(file)]

    def _on_real(self, studies: Sequence[Path], *flags: str, command: str, name: str) -> Path:
        """Run a command on real studies, once; returns the folder of its output. Studies may be refused."""
        files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in studies]
        folder = self.folder / f"{name}-{hashlib.sha256(json.dumps([flags, files]).encode()).hexdigest()[:12]}"
        if not folder.exists():
            with storage.partial_folder(self.folder) as partial:
                output = partial / name  # the folder around it is locked, and so will be this one by the command
                given = [f"--workdir={self.workdir}", f"--output_dir={output}", *flags]
                _run(*given, *map(str, studies), command=command, allowed=SOME_FAILED)
                output.rename(folder)
        return folder


def find_real(root: Path) -> list[Path]:
    """Return the real studies ROOT/GROUP/CLASS/STUDY, NIfTI files or folders of DICOM files; UserError without any."""
    studies = [path for path in sorted(root.glob("*/*/*")) if path.is_dir() or is_nifti_name(path.name)]
    if not studies:
        raise UserError(f"COVIDSCAN_REAL_CT={root}: holds no study GROUP/CLASS/STUDY: name the folder of the groups")
    return studies


def _real_study(row: Mapping[str, Any]) -> RealStudy:
    kind, name = Path(row["path"]).parts[-2:]
    name = name.removesuffix(".gz").removesuffix(".nii")
    return RealStudy(f"{kind}/{name}", kind, row["probability"], row["error"] or "")


def _inserted(row: Mapping[str, str]) -> Inserted:
    return Inserted(
        scan=unescape(row["scan"]),
        place=int(row["place"]),
        slice_mm=float(row["slice_mm"]),
        row_mm=float(row["row_mm"]),
        column_mm=float(row["column_mm"]),
        kind=row["kind"],
        density_hu=float(row["density_hu"]),
        diameter_mm=float(row["diameter_mm"]),
        probability_without=float(row["probability_without"]),
        probability=float(row["probability"]),
        detected=row["detected"] == "True",
    )


def _run(*arguments: str, command: str, allowed: int = 0) -> None:
    """Run one of the product's commands to its end, stdout to stderr; SIGTERM and Ctrl-C let a training save."""
    stderr = 2  # sys.stderr may be something without a file, as in notebooks and tests
    process = subprocess.Popen([sys.executable, "-m", f"covidscan.{command}", *arguments], stdout=stderr)
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        status = process.wait()
    except KeyboardInterrupt:  # the command got it too
        status = process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    if status in (RunAgain.status, StoppedByUser.status):
        raise RunAgain("stopped; the same command continues")
    if status not in (0, allowed):
        raise UserError(f"python -m covidscan.{command} ended with status {status}, see above")


def predictions_csv(workdir: Path, dataset: str, data_dir: str) -> str:
    """Predict a data set with a run's best checkpoint; return what predictions.csv of an evaluation holds."""
    # Imported lazily: JAX is slow to import, and unused where everything is predicted.
    from covidscan.distributed import devices
    from covidscan.evaluation.evaluate import score, training_dataset
    from covidscan.evaluation.evaluation_set import load_evaluation_set
    from covidscan.trained_models.restore import restore

    devices.enable_compilation_cache()
    network = restore(workdir)
    evaluation_set = load_evaluation_set(network, "test", "best", dataset, DataPaths(data_dir))
    point = network.operating_point(lambda: training_dataset(network, evaluation_set))
    scored = score(network, evaluation_set, point)
    return scored.predictions.to_csv(scored.threshold)
