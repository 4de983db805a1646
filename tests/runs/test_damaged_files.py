"""Files of a run that were damaged or edited: one line that names the file and the way out."""

import json
import os
import shutil
import subprocess
import threading
from typing import Any, NamedTuple

import jax
import pytest

from covidscan.config import Config, DataPaths
from covidscan.data import domain_shift, leakage
from covidscan.data.domain_shift import Range, ReferenceRanges
from covidscan.metrics import metrics_json
from covidscan.metrics.provenance import TestAccess
from covidscan.metrics.results import OperatingPoint
from covidscan.metrics.signed_json import sign
from covidscan.runs import operating_points, test_log, workdir
from covidscan.runs.checkpoints import Checkpoints
from tests.support import share
from tests.support.damage import as_nobody
from tests.support.mutations import mutated
from tfds_mosmed.errors import UserError

DATA = {
    "dataset": "ct_phantom/tiny",
    "fingerprint": "f",
    "split_hash": "s",
    "label_names": ["no", "yes"],
    "num_train": 14,
    "volume_shape": [16, 32, 32],
}
MARK = {"study_id": "a", "voxels_sha256": "0", "signature": ""}
POINT = {"criterion": "youden", "described": "d", "threshold": 0.4, "temperature": 1.2, "num_studies": 5, "step": 14}


def _description(seed=0):
    paths = {"data_dir": "records", "manual_dir": None, "on_bad_study": "stop"}
    assert DataPaths(**paths)
    return {"config": Config(seed=seed).to_json(), "paths": paths, "data": DATA}


FILES = {
    "config.json": (workdir.read_run, json.dumps(_description())),
    "cross_validation.json": (workdir.read_cross_validation, json.dumps({"config": Config().to_json()})),
    "choices.json": (lambda folder: operating_points.read(folder, 14), json.dumps({"14": POINT})),
    "test_openings.jsonl": (test_log.read, json.dumps(vars(TestAccess("2026", "a/b", 14, "evaluate"))) + "\n"),
    "studies.json": (leakage.read, json.dumps({"train": [MARK], "validation": [MARK]})),
    "typical.json": (
        domain_shift.read,
        json.dumps(sign(ReferenceRanges(3, {"air_hu": Range(-1000.0, 25.0, -1010.0, -990.0)}).to_json())),
    ),
    "metrics.json": (metrics_json.read, json.dumps({"figures": {}})),
}


@pytest.mark.parametrize("name", FILES)
def test_no_mutation_ends_in_anything_but_one_line(name, tmp_path):
    read, content = FILES[name]
    chance = share.generator(f"mutations of {name}")
    messages = []
    for _ in range(150 if share.is_full() else 30):
        (tmp_path / name).write_bytes(mutated(content.encode(), chance))
        try:
            read(tmp_path)
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert all(str(tmp_path / name) in message and ": " in message for message in messages)


@pytest.mark.parametrize("name", ["choices.json", "studies.json", "typical.json"])
def test_a_file_of_another_run_is_refused(name, tmp_path):
    read, content = FILES[name]
    one, another = tmp_path / "one", tmp_path / "another"
    for seed, folder in enumerate((one, another)):
        folder.mkdir()
        workdir.open_run(folder, _description(seed))
        owner, signed = workdir.run_id(folder), json.loads(content)
        if name == "choices.json":
            signed["14"] = sign(POINT, owner)
        else:
            signed = sign({key: value for key, value in signed.items() if key != "sha256"}, owner)
        (folder / name).write_text(json.dumps(signed))
        assert read(folder)
    shutil.copy(another / name, one)
    with pytest.raises(UserError, match=rf"{name} is not as training wrote it .* was edited, or is of another run"):
        read(one)


@pytest.fixture
def run(tmp_path):
    """A run with a checkpoint."""
    import jax.numpy as jnp

    workdir.open_run(tmp_path, _description())
    with Checkpoints(tmp_path, keep=1, passed_on=lambda error: False) as checkpoints:
        checkpoints.save(_State(jnp.int32(14), jnp.ones(3)), [])
    return tmp_path


class _State(NamedTuple):
    step: Any
    weights: Any


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("config", "windows", [[-600.0, 1400.0]]),
        ("config", "task", "severity"),
        ("data", "label_names", ["yes", "no"]),
        ("data", "fingerprint", "other"),
    ],
)
def test_an_edited_config_does_not_fit_the_checkpoints(part, name, value, run):
    description = _description()
    description[part] = description[part] | {name: value}
    (run / "config.json").write_text(json.dumps(description))
    with Checkpoints(run, keep=None, passed_on=lambda error: False) as checkpoints:
        for which in ("best", "latest", "14"):
            with pytest.raises(UserError, match=rf"config.json was changed since .*: {name} was .* put it back"):
                checkpoints.find(which)


def test_what_may_change_may_be_edited(run):
    description = _description()
    description["config"] |= {"keep": 5, "log_every": 1}
    (run / "config.json").write_text(json.dumps(description))
    with Checkpoints(run, keep=None, passed_on=lambda error: False) as checkpoints:
        assert checkpoints.find("latest") == 14


def test_a_lost_checkpoint_is_not_replaced_by_an_older_one(run):
    operating_points.freeze(run, metrics_json.load(OperatingPoint, POINT | {"step": 21}))
    with Checkpoints(run, keep=None) as checkpoints:
        for which in ("best", "latest"):
            with pytest.raises(UserError, match=r"checkpoints/21 is missing, .*: put it back, use --checkpoint=14"):
                checkpoints.find(which)
        assert checkpoints.find("14") == 14


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"custom_metadata": Infinity}', '{"init_timestamp_nsecs": "x"}', "[]"]
)
def test_metadata_that_orbax_cannot_load_ends_in_one_line(content, run):
    (run / "checkpoints" / "14" / "_CHECKPOINT_METADATA").write_text(content)
    with pytest.raises(UserError, match=r"checkpoints: a file _CHECKPOINT_METADATA .* is damaged \(.*\): remove"):
        Checkpoints(run, keep=None)


def test_a_checkpoint_that_a_training_removes_meanwhile_is_not_called_damaged(run):
    with Checkpoints(run, keep=None) as checkpoints:
        shutil.rmtree(run / "checkpoints" / "14" / "state")
        removal = threading.Timer(0.1, shutil.rmtree, [run / "checkpoints" / "14"])
        removal.start()
        with pytest.raises(
            UserError, match=r"checkpoints/14 was removed while it was read: .*run the same command again"
        ):
            checkpoints.restore(14, _State(jax.ShapeDtypeStruct((), "int32"), jax.ShapeDtypeStruct((3,), "float32")))
        removal.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(run):
    subprocess.run(["chmod", "a+rx", *run.parents, run], check=True)
    (run / "checkpoints" / "14" / "state").chmod(0)
    refused = pytest.raises(UserError, match=r"checkpoints/14 cannot be read: give yourself permission")
    with as_nobody(), Checkpoints(run, keep=None) as checkpoints, refused:
        checkpoints.restore_newest(_State(jax.ShapeDtypeStruct((), "int32"), jax.ShapeDtypeStruct((3,), "float32")))


def test_a_run_that_was_stopped_before_its_first_checkpoint_is_described_as_it_is_trained(run, tmp_path):
    began = _description() | {"initialisation": {"identity": "another network"}}
    workdir.open_run(run, began)
    assert "initialisation" not in workdir.read_run(run), "it has a checkpoint"
    shutil.rmtree(run / "checkpoints")
    workdir.open_run(run, began)
    assert workdir.read_run(run) == began


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\0" * 100])
def test_a_config_that_a_power_cut_emptied_is_written_anew_where_there_is_no_checkpoint(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    workdir.check_run(tmp_path, Config())
    workdir.open_run(tmp_path, _description())
    assert workdir.read_run(tmp_path) == _description()


def test_a_config_that_checkpoints_need_is_not_replaced(run):
    (run / "config.json").write_bytes(b"")
    with pytest.raises(UserError, match=r"config.json is not as training wrote it .*: put it back from a copy"):
        workdir.check_run(run, Config())
