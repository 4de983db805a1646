"""Evaluation by its command: any split, any checkpoint, another data set, each study exactly once."""

import dataclasses
import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from covidscan.config import DataPaths
from covidscan.data.dataset import Dataset
from covidscan.evaluation import evaluate, evaluation_set
from covidscan.metrics.predictions import Predictions
from tests.support import runs
from tests.support.evaluations import FILES, files_in
from tfds_mosmed.ct_phantom import generator


@pytest.fixture(scope="module")
def evaluated(trained):
    """The command's output and folder, for a relative workdir."""
    workdir = os.path.relpath(trained, runs.ROOT)
    done = runs.run("evaluate", f"--workdir={workdir}")
    assert done.stderr.splitlines()[-1].startswith("Drawing and writing the report")  # nothing after where it lies
    return done.stdout, trained / "evaluations" / "ct_phantom_tiny-test-best"


def test_the_workdir_suffices_to_write_all_files(evaluated):
    printed, folder = evaluated
    assert files_in(folder) == FILES | {"figures/learning_curves.svg"}
    for word in ("AUROC", "always positive", "CT scans", f"{folder.name}/report.html"):
        assert word in printed


def test_patients_with_several_studies_are_numbered_and_told():
    dataset = Dataset.__new__(Dataset, *[None] * len(Dataset._fields))
    ids, values = np.array(["s0", "s1", "s2", "s3", "s4"]), np.array([0, 1, 1, 0, 1])
    dataset = dataset._replace(
        study_ids=ids,
        categories=ids,
        labels=SimpleNamespace(values=values, names=("no", "yes")),
        index=SimpleNamespace(patients=lambda: ["", "a", "a", "b", ""]),
    )
    of = lambda *rows: dataset.predictions(np.array(rows), np.full((len(rows), 2), 0.5), "binary")  # noqa: E731
    several = of(0, 1, 2, 3)
    assert several.patient.tolist() == [0, 1, 1, 2]
    (note,) = evaluate._repeated_patients(several)
    assert note.startswith("The 4 studies are of 3 patients")
    assert of(0, 2, 3, 4).patient is None
    assert not evaluate._repeated_patients(of(0, 2, 3, 4))
    again = Predictions.from_csv(several.to_csv(), "binary")
    assert several.to_csv().splitlines()[0].endswith(",patient")
    assert again.patient.tolist() == [0, 1, 1, 2]
    alone = dataclasses.replace(of(0, 4), study_id=["s5", "s6"])
    assert Predictions.pool([alone, several]).patient.tolist() == [0, 1, 2, 3, 3, 4]
    assert Predictions.pool([alone]).patient is None


def test_folder_and_table_of_the_training_are_not_those_of_another_data_set(monkeypatch):
    seen = []
    monkeypatch.setattr(evaluation_set, "load_dataset", lambda _, paths, **__: seen.append(paths) or 1 / 0)
    run = {
        "data": {"dataset": "ct_table/64x64x32", "label_names": []},
        "paths": vars(DataPaths("d", "raw", "stop", "t")),
    }
    network = SimpleNamespace(run=run, experiment=SimpleNamespace(config=None))
    for dataset in ("ct_folder/64x64x32", "ct_table/64x64x32"):
        with pytest.raises(ZeroDivisionError):
            evaluation_set.load_evaluation_set(network, "test", "best", dataset, None)  # type: ignore[arg-type]
    assert seen == [DataPaths("d"), DataPaths("d", "raw", "stop", "t")]


@pytest.mark.parametrize(
    ("categories", "told"),
    [
        (["covid", "healthy"], "healthy are"),
        (["normal", "Control_group", "covid"], "Control_group are"),
        (["Normal", "abnormal", "CT-0", "covid"], ""),
    ],
)
def test_healthy_studies_that_count_as_positive_are_told(categories, told, caplog):
    dataset = SimpleNamespace(name="ct_folder/64x64x32", categories=categories)
    evaluation_set._warn_of_healthy(dataset, ("CT-0", "normal"))  # type: ignore[arg-type]
    assert told in caplog.text if told else not caplog.text


def test_stored_metrics_are_those_of_the_stored_predictions(evaluated):
    _, folder = evaluated
    rows = runs.predictions(folder).values()
    label = [row["label"] == "positive" for row in rows]
    probability = [float(row["probability_positive"]) for row in rows]
    stored = json.loads((folder / "metrics.json").read_text())["figures"]
    assert stored["auroc"]["value"] == pytest.approx(roc_auc_score(label, probability))
    decisions = [row["prediction"] == "positive" for row in rows]
    assert stored["accuracy"]["value"] == pytest.approx(np.mean(np.equal(label, decisions)))


@runs.may_mount
def test_a_workdir_and_records_that_cannot_be_written_are_verified(trained, evaluated, data_dir, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    shutil.copytree(data_dir, tmp_path / "records")
    flags = (f"--workdir={tmp_path / 'run'}", f"--data_dir={tmp_path / 'records'}")
    with runs.read_only(tmp_path):
        done = runs.run("evaluate", *flags, "--verify")
    assert "are those of checkpoint and records" in done.stdout
    assert "this verification is not logged (Read-only file system)" in done.stderr


def test_the_three_splits_share_no_study_and_miss_none(trained, evaluated):
    for split in ("train", "validation"):
        runs.run("evaluate", f"--workdir={trained}", f"--split={split}")
    folders = [trained / "evaluations" / f"ct_phantom_tiny-{split}-best" for split in ("train", "validation", "test")]
    ids = [study for folder in folders for study in runs.predictions(folder)]
    assert len(ids) == len(set(ids)) == 24


def test_predictions_do_not_depend_on_the_number_of_devices(trained, evaluated, tmp_path):
    _, folder = evaluated
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    shutil.rmtree(workdir / "evaluations")
    runs.run("evaluate", f"--workdir={workdir}", devices=3)  # 7 test studies, batches of 6
    one, three = runs.predictions(folder), runs.predictions(workdir / "evaluations" / folder.name)
    assert one.keys() == three.keys()
    for study, row in one.items():
        assert float(three[study]["probability_positive"]) == pytest.approx(
            float(row["probability_positive"]), abs=1e-5
        )


def test_a_step_can_be_chosen_and_a_missing_one_is_refused(trained):
    assert "(step 12)" in runs.run("evaluate", f"--workdir={trained}", "--checkpoint=12").stdout
    done = runs.run("evaluate", f"--workdir={trained}", "--checkpoint=7", check=False)
    assert done.returncode == 1
    assert "--checkpoint=7: use best, latest or one of the steps" in done.stderr


def test_another_data_set_is_an_external_test(trained, tmp_path):
    for seed, (name, category) in enumerate([("normal", "CT-0"), ("normal", "CT-0"), ("covid", "CT-3")]):
        (tmp_path / "studies" / name).mkdir(parents=True, exist_ok=True)
        phantom = generator.make_phantom(900 + seed, category, matrix=128)
        generator.write_study(phantom, tmp_path / "studies" / name / f"scan{seed}.nii.gz")
    flags = [f"--manual_dir={tmp_path / 'studies'}", f"--data_dir={tmp_path / 'data'}"]
    for grid in ("64x64x32", "32x32x16_full"):
        done = runs.run("evaluate", f"--workdir={trained}", f"--dataset=ct_folder/{grid}", *flags, check=False)
        assert done.returncode == 1
        assert "choose a configuration of that grid" in done.stderr
        assert not (tmp_path / "data").exists()  # before anything is built
    done = runs.run("evaluate", f"--workdir={trained}", "--dataset=ct_folder/32x32x16", *flags)
    folder = trained / "evaluations" / "ct_folder_32x32x16-test-best"
    assert json.loads((folder / "metrics.json").read_text())["context"]["external"]
    assert len(runs.predictions(folder)) == 3


def test_an_external_test_needs_no_training_records(trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir, ignore=shutil.ignore_patterns("evaluations"))  # of other folders' studies
    config = json.loads((workdir / "config.json").read_text())
    config["paths"]["data_dir"] = str(tmp_path / "gone")
    (workdir / "config.json").write_text(json.dumps(config))
    for seed, category in enumerate(["CT-0", "CT-0", "CT-3"]):
        (tmp_path / "studies" / category).mkdir(parents=True, exist_ok=True)
        phantom = generator.make_phantom(950 + seed, category, matrix=128)
        generator.write_study(phantom, tmp_path / "studies" / category / f"scan{seed}.nii.gz")
    flags = [f"--manual_dir={tmp_path / 'studies'}", f"--data_dir={tmp_path / 'data'}"]
    runs.run("evaluate", f"--workdir={workdir}", "--dataset=ct_folder/32x32x16", *flags)
    metrics = json.loads((workdir / "evaluations" / "ct_folder_32x32x16-test-best" / "metrics.json").read_text())
    assert metrics["baselines"] == []
    assert any("left out" in note for note in metrics["notes"])
    assert not (tmp_path / "gone").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    done = runs.run("evaluate", f"--workdir={tmp_path}", check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {tmp_path}/config.json does not exist")


def test_other_records_than_the_run_was_trained_on_are_refused(tmp_path, data_dir):
    # Version 0.1.0's checkpoints do not hold config.json, so that it can be changed.
    workdir = shutil.copytree(runs.ROOT / "tests/support/stored_run/run", tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["split_hash"] = "0" * 64
    (workdir / "config.json").write_text(json.dumps(config))
    done = runs.run("evaluate", f"--workdir={workdir}", f"--data_dir={data_dir}", check=False)
    assert done.returncode == 1
    assert "holds other studies" in done.stderr
