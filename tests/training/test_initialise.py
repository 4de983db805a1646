"""Initialisation with an earlier network: what is taken from it, and studies that must not be on both sides."""

import json
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covidscan.config import Config
from covidscan.data import leakage
from covidscan.data.leakage import StudyKeys
from covidscan.evaluation.evaluation_set import check_leaks
from covidscan.runs.checkpoints import Checkpoints
from covidscan.trained_models import restore, transfer
from covidscan.training import initialise
from covidscan.training.experiment import create_experiment
from tests.support import in_process, runs
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing import signature

SHAPE = (8, 16, 16)


def _filled(experiment, value):
    """The state of an experiment with that value in all its parameters; compiles nothing."""
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, value, leaf.dtype), experiment.abstract_state())


def _source(config, studies=None):
    state = _filled(create_experiment(config, 2, SHAPE, 8), 1.0)
    variables = {name: np.asarray(leaf) for name, leaf in initialise._flat(state).items()}
    return initialise.Source("runs/a", variables, "ct_folder/64x64x32", "…", studies)


TESTED: Any = SimpleNamespace(  # a data set with one test study
    name="ct_folder/64x64x32",
    parts={"test": np.array([0]), "validation": np.array([], int)},
    keys=leakage.StudyKeys(["a"], ["0" * 64], [""]),
)


def test_tensors_of_the_same_name_and_shape_are_taken_and_all_others_are_named():
    experiment = create_experiment(Config(width=4, seed=1, windows=((40.0, 400.0),)), 2, SHAPE, 8)
    source = _source(Config(width=4, seed=0))  # three windows: the stem has another shape
    del source.variables["params/Dense_0/kernel"]
    planned = initialise.plan(source, experiment.abstract_state(), TESTED)
    assert planned.absent == ["params/Dense_0/kernel"]
    assert [text.partition(" ")[0] for text in planned.other_shape] == ["params/Conv3D_0/kernel"]
    before = _filled(experiment, 2.0)
    after = initialise.apply(source, planned, before)
    for name, leaf in initialise._flat(after).items():
        expected = source.variables[name] if name in planned.loaded else initialise._flat(before)[name]
        np.testing.assert_array_equal(leaf, expected)
    assert jax.tree.all(jax.tree.map(np.array_equal, after.params, after.ema_params))
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((after.params, after.ema_params))]
    assert len(set(buffers)) == len(buffers)  # the training step takes each over
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert planned.describe().count("\n") == len(source.variables) + 1


def test_a_network_of_which_nothing_fits_is_refused():
    source = _source(Config(width=4))
    abstract = create_experiment(Config(width=8, windows=((40.0, 400.0),)), 3, SHAPE, 8).abstract_state()
    source = source._replace(variables={name: source.variables[name] for name in ("params/Conv3D_0/kernel",)})
    with pytest.raises(UserError, match=r"--init_from=runs/a: none of its 1 tensors fits this network .* 4\) there"):
        initialise.plan(source, abstract, TESTED)


def test_a_folder_that_does_not_exist_is_refused_before_records_are_built(tmp_path):
    flags = [*runs.SMALL, f"--init_from={tmp_path / 'nowhere'}"]
    for folds in ([], ["--protocol=kfold", "--fold=all"]):
        refused = in_process.run(
            "train", *flags, *folds, f"--workdir={tmp_path / f'run{len(folds)}'}", f"--data_dir={tmp_path / 'data'}"
        )
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert refused.stderr.startswith(f"error: --init_from={tmp_path / 'nowhere'} is no folder: name the workdir")
        assert not (tmp_path / "data").exists()


@pytest.mark.sampled
def test_a_run_goes_on_as_a_new_one_and_a_leak_into_its_test_part_is_refused(trained, data_dir, tmp_path):
    flags = [*runs.SMALL, "--epochs=1", "--seed=3", f"--data_dir={data_dir}", f"--init_from={trained}"]
    done = runs.run("train", *flags, f"--workdir={tmp_path / 'next'}")
    source = transfer.read_source(str(trained))
    count = len(source.variables)
    assert f"{count} of {count} tensors are those of {trained}" in done.stdout
    stored = json.loads((tmp_path / "next" / "config.json").read_text())["initialisation"]
    assert len(stored["loaded"]) == count
    assert stored["trained_on"] == "ct_phantom/tiny"
    again = runs.run("train", *flags, f"--workdir={tmp_path / 'next'}")  # it resumes, and begins with nothing
    assert "tensors are those of" not in again.stdout
    # With another split, a study that trained the first run would test the second.
    refused = in_process.run("train", *flags, "--split_seed=1", f"--workdir={tmp_path / 'leaking'}")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert refused.stderr.startswith(f"error: --init_from={trained}: it was developed on test studies of this run")
    assert not (tmp_path / "leaking" / "config.json").exists()
    # An external test on studies that developed the first run alone is refused too.
    member = restore.restore(tmp_path / "next")
    began = member.run["initialisation"]
    assert leakage.read_pretraining(member.workdir, began).keys() == {"train", "validation"}  # type: ignore[union-attr]


def test_the_earlier_network_is_not_edited_out_of_the_run(tmp_path):
    described = json.loads((runs.ROOT / "tests" / "support" / "stored_run" / "run" / "config.json").read_text())
    path = tmp_path / "config.json"
    began = {"identity": f"1234{leakage.OF_RUN}7", "trained_on": "mosmed/64x64x32", "loaded": ["a"], "unknown": []}
    path.write_text(json.dumps(described | {"initialisation": began}))
    checkpoints = Checkpoints(tmp_path, keep=None)
    then = checkpoints._trained_as()
    checkpoints._check_trained_as(7, then)
    for edited in ({}, {"initialisation": began | {"identity": "of an exported model"}}):
        path.write_text(json.dumps(described | edited))
        with pytest.raises(UserError, match=r"config\.json was changed since \S+/7 was trained: identity was "):
            checkpoints._check_trained_as(7, then)


def test_an_exported_model_at_the_beginning_of_the_earlier_network_is_told(caplog):
    """Its studies are not known, however many networks lie between."""
    keys = StudyKeys(["z"], ["f" * 64], [signature.to_text(np.zeros(848, np.int8))])
    tested = SimpleNamespace(**{**vars(TESTED), "keys": keys._replace(study_id=["a"], voxels_sha256=["0" * 64])})
    none = keys._replace(study_id=[], voxels_sha256=[], signature=[])
    source = _source(Config(width=4), {"train": none, "validation": none})
    assert "exported" not in initialise.check_leaks(source, tested)  # type: ignore[arg-type]
    of_exported = {"identity": "f" * 64, "trained_on": "mosmed/64x64x32"}
    of_run = {"identity": f"1234{leakage.OF_RUN}7", "trained_on": "ct_folder/64x64x32", "unknown": ["mosmed/64x64x32"]}
    for began in (of_exported, of_run):
        later = source._replace(unknown=transfer._unknown(began))
        told = "began with an exported model that was trained on mosmed/64x64x32"
        assert told in initialise.check_leaks(later, tested)  # type: ignore[arg-type]
        assert told in caplog.text
    assert transfer._unknown({**of_run, "unknown": []}) == transfer._unknown(None) == ()


def test_what_trained_the_earlier_network_does_not_choose_for_the_next_one(tmp_path, monkeypatch):
    names = ["a", "b", "c", "d", "e"]
    signatures = [
        signature.to_text(np.random.default_rng(n).integers(-90, 90, 848).astype(np.int8)) for n in range(len(names))
    ]
    keys = StudyKeys(names, [name * 64 for name in names], signatures)
    parts = {"test": np.array([0]), "validation": np.array([1, 2]), "train": np.array([3, 4])}
    dataset: Any = SimpleNamespace(name="ct_folder/64x64x32", keys=keys, parts=parts)
    same = {part: keys.take(rows) for part, rows in parts.items()}  # to train it for longer
    told = initialise.check_leaks(_source(Config(width=4), same), dataset)
    assert "None of the 2 validation studies is among those that trained it." in told
    other_fold = {"train": keys.take([1, 2, 3]), "validation": keys.take([4])}
    line = "2 of the 2 validation studies of this run trained it, which would choose checkpoint, recalibration and "
    line += r"threshold: studies b \(train\) and b \(validation\) have the same voxels: .* --protocol, --fold and "
    with pytest.raises(UserError, match=rf"^--init_from=runs/a: {line}--split_seed, or .*"):
        initialise.check_leaks(_source(Config(width=4), other_fold), dataset)
    # Later evaluations, those of ensembles too, check it again.
    leakage.write(tmp_path, keys, parts)
    monkeypatch.setattr(leakage, "run_id", lambda _: None)
    began = {"identity": f"1234{leakage.OF_RUN}7", "trained_on": "ct_folder/64x64x32", "source": "runs/a"}
    network: Any = SimpleNamespace(
        workdir=tmp_path, run={"initialisation": began, "data": {"dataset": "ct_folder/64x64x32"}}
    )
    leakage.write_pretraining(tmp_path, same)
    assert "None of the 1 studies" in check_leaks([network], dataset)
    leakage.write_pretraining(tmp_path, other_fold)
    with pytest.raises(UserError, match=rf"^--workdir=\S+ began with runs/a, and {line}--split_seed of that run$"):
        check_leaks([network], dataset)


def test_what_developed_the_earlier_network_cannot_be_left_out(tmp_path):
    keys = StudyKeys(["a"], ["0" * 64], [signature.to_text(np.zeros(848, np.int8))])
    of_run, exported = {"identity": f"1234{leakage.OF_RUN}7"}, {"identity": "f" * 64}
    assert leakage.read_pretraining(tmp_path, None) is None
    assert leakage.read_pretraining(tmp_path, exported) is None
    with pytest.raises(UserError, match=r"pretraining/studies\.json does not exist"):
        leakage.read_pretraining(tmp_path, of_run)
    leakage.write_pretraining(tmp_path, {"train": keys, "validation": keys})
    path = tmp_path / leakage.PRETRAINING / leakage.FILE
    assert leakage.read_pretraining(tmp_path, of_run) == {"train": keys, "validation": keys}
    path.write_text(path.read_text().replace('"a"', '"b"', 1))
    with pytest.raises(UserError, match=r"pretraining/studies\.json is not as training wrote it.*from a copy"):
        leakage.read_pretraining(tmp_path, of_run)
