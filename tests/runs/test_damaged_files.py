"""Files of a run that were damaged or edited: one line that names the file and the way out."""

import json
from typing import Any, NamedTuple

import pytest

from covidscan.config import Config, DataPaths
from covidscan.data import leakage
from covidscan.metrics import metrics_json
from covidscan.metrics.provenance import TestAccess
from covidscan.runs import operating_points, test_log, workdir
from covidscan.runs.checkpoints import Checkpoints
from tests.support import share
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
POINT = {"criterion": "youden", "description": "d", "threshold": 0.4, "temperature": 1.2, "num_studies": 5, "step": 14}


def _description():
    paths = {"data_dir": "records", "manual_dir": None, "on_bad_study": "stop"}
    assert DataPaths(**paths)
    return {"config": Config().to_json(), "paths": paths, "data": DATA}


FILES = {
    "config.json": (workdir.read_run, json.dumps(_description())),
    "cross_validation.json": (workdir.read_cross_validation, json.dumps({"config": Config().to_json()})),
    "choices.json": (lambda folder: operating_points.read(folder, 14), json.dumps({"14": POINT})),
    "test_openings.jsonl": (test_log.read, json.dumps(vars(TestAccess("2026", "a/b", 14, "evaluate"))) + "\n"),
    "studies.json": (leakage.read, json.dumps({"train": [MARK], "validation": [MARK]})),
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
