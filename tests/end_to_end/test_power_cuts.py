"""Power cuts at random moments: the same command then goes on, with nothing to clean by hand."""

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import time

import pytest

from tests.support import power, runs, share
from tfds_mosmed import catalog

CUTS = 20 if share.is_full() else 1  # of each command


@pytest.fixture
def disk(tmp_path):
    with power.disk(tmp_path / "disk", 300) as made:
        yield made


def _cut_and_repeat(disk, command, flags, source, look):
    """Cut the power while a command runs; repeated, it is to end as it does undisturbed.

    Args:
      disk: the disk.
      command: the command.
      flags: of the command, which writes to a folder "made" of the disk.
      source: what that folder is a copy of before each try; None: it does not exist.
      look: returns what of the folder is to be the same.
    """
    folder = disk.folder / "made"
    chance = share.generator(f"power cuts: {command}")
    _renew(folder, source)
    start = time.monotonic()
    runs.run(command, *flags)
    whole, expected = time.monotonic() - start, look(folder)
    for _ in range(CUTS):
        _renew(folder, source)
        moment = chance.uniform(0.3, 1.05) * whole  # before that, Python imports
        command_line = [sys.executable, "-m", f"covidscan.{command}", *flags]
        with (disk.folder.parent / "output").open("w") as output:
            process = subprocess.Popen(
                command_line, cwd=runs.ROOT, env=runs.environment(), stdout=output, stderr=output
            )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        disk.cut()
        process.kill()
        process.wait()
        disk.unmount()
        disk.mount()
        done = runs.run(command, *flags, check=False)
        told = f"after a cut at {moment:.2f} of {whole:.2f} s: {done.stdout}{done.stderr}"
        assert done.returncode == 0, told
        assert "Traceback" not in done.stderr, told
        assert look(folder) == expected, told
        leftovers = [folder.rglob(pattern) for pattern in (".*.partial", "incomplete*", "*-tmp*", "damaged")]
        assert [path for found in leftovers for path in found] == [], told


def _renew(folder, source):
    shutil.rmtree(folder, ignore_errors=True)
    if source is not None:
        shutil.copytree(source, folder)
    power.settle(folder.parent)


def _hashes(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _trained(workdir):
    lines = {split: runs.log_lines(workdir, split) for split in ("train", "validation")}
    losses = [(split, line["step"], line["loss"]) for split in lines for line in lines[split]]
    return losses, (workdir / "choices.json").read_text(), sorted(p.name for p in (workdir / "checkpoints").iterdir())


def test_training(disk, data_dir):
    flags = [*runs.SMALL, "--epochs=12", "--eval_every=3", "--checkpoint_every=4", "--keep=1"]
    flags += [f"--workdir={disk.folder / 'made'}", f"--data_dir={data_dir}"]
    _cut_and_repeat(disk, "train", flags, None, _trained)


def test_building(disk):
    flags = ["--dataset=ct_phantom/tiny", f"--data_dir={disk.folder / 'made'}"]
    _cut_and_repeat(disk, "build", flags, None, _built)


def _built(data_dir):
    builder = catalog.load_builder("ct_phantom/tiny", data_dir)
    records = {record["study_id"]: hashlib.sha256(record["volume"].tobytes()) for record in builder.open_records()}
    return builder.fingerprint(), {study: digest.hexdigest() for study, digest in records.items()}


def _evaluated(workdir):
    (metrics,) = workdir.glob("evaluations/*/metrics.json")
    openings = (workdir / "test_openings.jsonl").read_text().splitlines()
    assert 1 <= len([json.loads(line) for line in openings]) <= 2
    predictions = metrics.with_name("predictions.csv").read_text()
    return json.loads(metrics.read_text())["figures"], predictions, (workdir / "choices.json").read_text()


def test_evaluating(disk, trained, data_dir):
    flags = [f"--workdir={disk.folder / 'made'}", f"--data_dir={data_dir}"]
    _cut_and_repeat(disk, "evaluate", flags, trained, _evaluated)


def test_exporting(disk, trained):
    flags = [f"--workdir={trained}", f"--output={disk.folder / 'made' / 'model'}"]
    _cut_and_repeat(disk, "export", flags, None, _hashes)
