"""Regression and sets of labels, of a cohort that a table lists: trained, evaluated, verified, predicted, exported."""

import csv
import json

import numpy as np
import pytest

from tests.support.runs import STILL, predictions, run
from tfds_mosmed.ct_phantom.generator import make_phantom, write_study

NUM_STUDIES, GRID = 24, "64x64x32"
TINY = ("--model=covidscan_cnn", "--width=4", "--batch_size=6", "--epochs=6", "--log_every=1", *STILL)
NAMES = ("dense", "odd")
PROBABILITIES = [f"probability_{name}" for name in NAMES]
GRADES = ("CT-0", "CT-1", "CT-2", "CT-3", "CT-4")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Phantoms, and the share of their lungs that is diseased, in percent."""
    folder = tmp_path_factory.mktemp("cohort")
    shares = []
    for number in range(NUM_STUDIES):
        phantom = make_phantom(number, GRADES[number % len(GRADES)], 64)
        path = folder / f"s{number:02d}.nii.gz"
        write_study(phantom, path, folder / "mask.nii.gz")
        shares.append((path.name, 100 * phantom.lesion_mask.sum() / phantom.lung_mask.sum()))
    return folder, shares


def _table(cohort, label) -> list[str]:
    folder, shares = cohort
    rows = [f"{name},{label(share)}" for name, share in shares]
    (folder / "table.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return [f"--dataset=ct_table/{GRID}", f"--table={folder / 'table.csv'}", f"--manual_dir={folder}"]


@pytest.mark.sampled
def test_regression_from_a_table_to_an_exported_model(cohort, tmp_path):
    workdir, model = tmp_path / "run", tmp_path / "model"
    data = [*_table(cohort, lambda share: f"{share:.3f}"), f"--data_dir={tmp_path / 'data'}"]
    trained = run("train", "--task=regression", *TINY, *data, f"--workdir={workdir}")
    assert "Best validation mean absolute error" in trained.stdout
    evaluated = run("evaluate", f"--workdir={workdir}")
    (folder,) = (workdir / "evaluations").iterdir()
    rows = predictions(folder)
    label, value = (np.array([float(row[name]) for row in rows.values()]) for name in ("label", "prediction"))
    shares = {name.removesuffix(".nii.gz"): share for name, share in cohort[1]}
    np.testing.assert_allclose(label, [shares[study_id] for study_id in rows], atol=1e-3)
    metrics = json.loads((folder / "metrics.json").read_text())["figures"]
    assert metrics["mae"]["value"] == pytest.approx(np.abs(label - value).mean())
    assert f"{metrics['rmse']['value']:.3f}" in evaluated.stdout
    scaling = json.loads((workdir / "config.json").read_text())["data"]["scaling"]
    assert metrics["rmse"]["baseline"] == pytest.approx(np.sqrt(np.mean((label - scaling["mean"]) ** 2)))
    page = (folder / "report.html").read_text()
    assert "Bland-Altman" in page
    assert "AUROC" not in page.partition("<script")[0]
    run("evaluate", f"--workdir={workdir}", "--verify")
    run("export", f"--workdir={workdir}", f"--output={model}")
    study = next(iter(rows))
    for source in (f"--workdir={workdir}", f"--model={model}"):
        (row,) = csv.DictReader(run("predict", source, str(cohort[0] / f"{study}.nii.gz")).stdout.splitlines())
        assert float(row["value"]) == pytest.approx(float(rows[study]["prediction"]), rel=1e-3, abs=1e-3)
    _refuses_what_has_no_sense(workdir, cohort[0] / f"{study}.nii.gz", "--task=regression")


@pytest.mark.sampled
def test_sets_of_labels_from_a_table_to_an_exported_model(cohort, tmp_path):
    workdir, model = tmp_path / "run", tmp_path / "model"
    data = [*_table(cohort, _set), f"--data_dir={tmp_path / 'data'}"]
    trained = run("train", "--task=multilabel", *TINY, *data, f"--workdir={workdir}")
    assert "Best validation AUROC" in trained.stdout
    run("evaluate", f"--workdir={workdir}")
    (folder,) = (workdir / "evaluations").iterdir()
    rows = predictions(folder)
    sets = {name.removesuffix(".nii.gz"): _set(share) or "none" for name, share in cohort[1]}
    assert {study_id: row["label"] for study_id, row in rows.items()} == {study_id: sets[study_id] for study_id in rows}
    (point,) = json.loads((workdir / "choices.json").read_text()).values()
    assert len(point["grade_thresholds"]) == 2
    for row in rows.values():
        yes = [
            name
            for name, at in zip(NAMES, point["grade_thresholds"], strict=True)
            if float(row[f"probability_{name}"]) >= at
        ]
        assert row["prediction"] == ("|".join(yes) or "none")
    evaluation = json.loads((folder / "metrics.json").read_text())
    assert [label["name"] for label in evaluation["labels"]] == list(NAMES)
    run("evaluate", f"--workdir={workdir}", "--verify")
    run("export", f"--workdir={workdir}", f"--output={model}")
    study = next(iter(rows))
    for source in (f"--workdir={workdir}", f"--model={model}"):
        (row,) = csv.DictReader(run("predict", source, str(cohort[0] / f"{study}.nii.gz")).stdout.splitlines())
        assert row["decision"] == rows[study]["prediction"]
        for name in NAMES:
            assert float(row[f"probability_{name}"]) == pytest.approx(
                float(rows[study][f"probability_{name}"]), abs=1e-4
            )
    _refuses_what_has_no_sense(workdir, cohort[0] / f"{study}.nii.gz", "--task=multilabel")
    shown, path = tmp_path / "shown", str(cohort[0] / f"{study}.nii.gz")
    run("predict", f"--workdir={workdir}", "--explain", "--save_maps", f"--output_dir={shown}", path)
    assert {"0001.html", "0001_lungs.json", "0001_grad_cam.nii.gz"} <= {path.name for path in shown.iterdir()}
    assert any(f"P({name}) = " in (shown / "0001.html").read_text() for name in NAMES)


@pytest.mark.sampled
@pytest.mark.parametrize(("task", "columns"), [("regression", ["prediction"]), ("multilabel", PROBABILITIES)])
def test_folds_seeds_and_views_of_a_task_are_pooled_averaged_and_compared(cohort, task, columns, tmp_path):
    label = _set if task == "multilabel" else lambda share: f"{share:.3f}"
    data = [*_table(cohort, label), f"--data_dir={tmp_path / 'data'}", f"--task={task}", "--epochs=2"]
    folds, *seeds = (str(tmp_path / name) for name in ("folds", "a", "b"))
    run("train", *TINY, *data, "--protocol=kfold", "--num_folds=3", "--fold=all", f"--workdir={folds}")
    (pooled,) = (tmp_path / "folds/evaluations").iterdir()
    assert len(predictions(pooled)) == NUM_STUDIES
    told = json.loads((pooled / "metrics.json").read_text())["operating_point"]["described"]
    page = (pooled / "report.html").read_text().partition("<script")[0]
    if task == "regression":
        assert told == "The prediction is the network's output; there is no threshold."
        for words in ("own threshold", "scores and thresholds", "own fold", "temperature"):
            assert words not in page, words
    else:
        assert "Each fold has its own threshold" in told
    run("evaluate", f"--workdir={folds}", "--verify")
    for seed, workdir in enumerate(seeds):
        run("train", *TINY, *data, f"--seed={seed}", f"--workdir={workdir}")
        run("evaluate", f"--workdir={workdir}", "--tta=mirror")
    both = f"--workdir={','.join(seeds)}"
    run("evaluate", both, "--tta=mirror")
    found = {path.name.partition("mirror")[2]: path for path in (tmp_path / "a/evaluations").iterdir()}
    (ensemble,) = (path for end, path in found.items() if "ensemble" in end)
    members = [
        predictions(path) for name in "ab" for path in (tmp_path / name / "evaluations").iterdir() if path != ensemble
    ]
    for study_id, row in predictions(ensemble).items():
        for column in columns:
            mean = np.mean([float(one[study_id][column]) for one in members])
            assert float(row[column]) == pytest.approx(mean, abs=1e-6)
    exported = tmp_path / "model"
    run("export", both, "--tta=mirror", f"--output={exported}")
    study = next(iter(predictions(ensemble)))
    row = predictions(ensemble)[study]
    for source in ((both, "--tta=mirror"), (f"--model={exported}",)):
        (shown,) = csv.DictReader(run("predict", *source, str(cohort[0] / f"{study}.nii.gz")).stdout.splitlines())
        for column in columns:
            name = "value" if column == "prediction" else column
            assert float(shown[name]) == pytest.approx(float(row[column]), rel=1e-3, abs=1e-3)
    (other,) = (tmp_path / "b/evaluations").iterdir()
    compared = run("compare", f"--output_dir={tmp_path / 'out'}", str(ensemble), str(other))
    assert {"regression": "Mean absolute error", "multilabel": "AUROC of dense"}[task] in compared.stdout


def _set(share: float) -> str:
    return "|".join(name for name, yes in zip(NAMES, (share > 20, int(10 * share) % 2), strict=True) if yes)


def _refuses_what_has_no_sense(workdir, study, named: str) -> None:
    explains = ("predict", "--explain", f"--output_dir={workdir / 'out'}", str(study))
    for command, *refused in (
        *([explains] if named == "--task=regression" else []),
        ("evaluate", "--prevalence=0.1"),
        ("localise",),
        ("detectability", str(study)),
    ):
        done = run(command, f"--workdir={workdir}", *refused, check=False)
        assert done.returncode == 1, command
        assert named in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
