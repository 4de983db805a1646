"""Several runs compared: tested on the same studies, side by side on others, refused where it makes no sense."""

import dataclasses
import functools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from covidscan.evaluation import multilabel, regression
from covidscan.evaluation.comparison import compare, read_evaluation
from covidscan.evaluation.run_comparison import compare_runs
from covidscan.metrics import metrics_json, paired_tests
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.provenance import Provenance
from covidscan.metrics.results import OperatingPoint
from covidscan.report import run_comparison as report
from covidscan.runs.workdir import run_id
from tests.support import in_process, runs
from tests.support.chromium import ARGUMENTS, CHROMIUM, leaves
from tests.support.evaluations import binary, context, evaluated
from tfds_mosmed.errors import UserError

STORED = runs.ROOT / "tests" / "support" / "stored_run" / "run"
GOOD = binary((0.9, 0.8, 0.7, 0.6, 0.3, 0.75), (0.65, 0.4, 0.2, 0.1, 0.15, 0.05))
OTHER = binary((0.9, 0.2, 0.1, 0.6, 0.3, 0.4), (0.7, 0.4, 0.5, 0.05, 0.6, 0.2))
POOR = binary((0.2, 0.3, 0.1, 0.6, 0.3, 0.1), (0.9, 0.8, 0.7, 0.9, 0.6, 0.7))


@pytest.fixture
def run(tmp_path):
    """Write a run that was evaluated: predictions, flags and provenance as given."""

    def run(name, predictions=GOOD, *, flags=(), keys=None, threshold=0.5, summarize=evaluated, **changes):
        workdir = tmp_path / name
        described = json.loads((STORED / "config.json").read_text())
        dataset = changes.setdefault("dataset", described["config"]["dataset"])
        described["config"] |= {} if changes.get("external") else {"dataset": dataset}
        described["config"] |= dict(flags)
        workdir.mkdir()
        (workdir / "config.json").write_text(json.dumps(described))
        shutil.copy(STORED / "metrics.jsonl", workdir)
        if keys is not None:
            study = {"signature": json.loads((STORED / "studies.json").read_text())["test"][0]["signature"]}
            listed = [{"study_id": study_id, "voxels_sha256": keys[study_id], **study} for study_id in keys]
            (workdir / "studies.json").write_text(json.dumps({"train": [], "validation": [], "test": listed}))
        changes = {"config": described["config"], "seconds": {"inference": 2.0}, **changes}
        folder = workdir / "evaluations" / f"{dataset.replace('/', '_')}-test-best"
        folder.mkdir(parents=True)
        files = {"predictions.csv": predictions.to_csv(threshold).encode()}
        made_from = metrics_json.load(Provenance, context(**changes))
        (folder / "predictions.csv").write_bytes(files["predictions.csv"])
        (folder / "metrics.json").write_text(
            metrics_json.to_text(summarize(predictions), made_from, files, run_id(workdir))
        )
        return str(folder if changes.get("external") else workdir)

    return run


@pytest.fixture
def without_pictures(monkeypatch):
    monkeypatch.setattr(report, "draw", lambda runs: {})


def _command(*arguments):
    done = in_process.run("compare", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_runs_on_the_same_studies_are_tested_with_holms_correction(run, tmp_path):
    """Also the page is accessible, fetches nothing, and a phone needs no sideways scrolling."""
    given = run("a"), run("b", OTHER, flags={"seed": 7, "windows": [[-600.0, 1500.0]]}), run("c", POOR)
    shown = _command(f"--output_dir={tmp_path / 'out'}", *given)
    written = json.loads((tmp_path / "out" / "compare.json").read_text())
    tests = [
        compare(one, other, one.label * 0 + (one.probability[:, 1] >= 0.5), other.probability[:, 1] >= 0.5, "")
        for one, other in ((GOOD, OTHER), (GOOD, POOR), (OTHER, POOR))
    ]
    for name in ("auroc", "accuracy"):
        corrected = paired_tests.holm([test.metrics[name].p_value for test in tests])
        for pair, test, value in zip(written["pairs"], tests, corrected, strict=True):
            assert pair["differences"][name]["difference"] == test.metrics[name].difference
            assert pair["differences"][name]["p_value"] == test.metrics[name].p_value
            assert pair["corrected"][name] == value
    assert written["flags"] == {
        "windows": [written["flags"]["windows"][0], [[-600.0, 1500.0]], written["flags"]["windows"][0]],
        "seed": [1, 7, 1],
    }
    assert [each["inference_rate"] for each in written["runs"]] == [6.0] * 3
    page = (tmp_path / "out" / "compare.html").read_text()
    differing = sum(pair["corrected"]["auroc"] < 0.05 for pair in written["pairs"])
    assert differing
    verdict = f"AUROC differs at 5 % after Holm's correction in {differing} of 3 pairs: "
    for text in ("a − b: AUROC", "a − c: Accuracy", verdict):
        assert text in shown
    for text in ('<th scope="row">--seed</th><td>1</td><td>7</td><td>1</td>', "-600:1500", "--windows"):
        assert text in page
    assert "--epochs" not in page
    assert page.count('<img class="drawing" src="data:image/svg+xml;base64,') == page.count("<figure>") > 3
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"roc.png", "calibration.png", "precision_recall.png", "learning_loss.png", "learning_auroc.png"}
    assert {Path(name).with_suffix(".svg").name for name in names if name.endswith(".png")} <= names
    if CHROMIUM or "CI" in os.environ:
        _assert_readable(tmp_path / "out" / "compare.html")


def _assert_readable(path):
    wrong = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.on("console", lambda message: wrong.append(message.text))
        page.on("request", lambda request: wrong.append(request.url) if leaves(request.url) else None)
        page.goto(f"file://{path}")
        found = Axe().run(page)
        assert page.evaluate("() => document.documentElement.scrollWidth") == 390
        browser.close()
    assert (found.violations_count, wrong) == (0, []), found.generate_report()


@pytest.mark.usefixtures("without_pictures")
def test_runs_on_other_studies_stand_side_by_side(run, tmp_path):
    fewer = dataclasses.replace(OTHER, study_id=[*OTHER.study_id[:-2], "study_0098", "study_0099"])
    comparison = compare_runs([run("a"), run("b", fewer)], tmp_path / "out")
    (pair,) = comparison.pairs
    assert (pair.differences, pair.num_shared, pair.num_alone) == ({}, 10, (2, 2))
    assert pair.alone == (["study_0011", "study_0012"], ["study_0098", "study_0099"])
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "Not tested, as the studies differ: 10 are shared" in page
    assert "study_0098, study_0099" in page
    assert f"{comparison.runs[1].metrics['auroc'].value:.3f}" in page


IDS, RNG = [f"study_{number:04d}" for number in range(1, 31)], np.random.default_rng(0)
NUMBERS, SETS = RNG.uniform(0, 60, 30), (RNG.random((30, 2)) < 0.5).astype(int)


@pytest.mark.usefixtures("without_pictures")
def test_how_the_studies_were_predicted_is_told(run, tmp_path):
    """Also that a checkpoint was evaluated that is no longer the best."""
    wishes = {"metadata": None, "compare": None, "repeats": [], "tta": "mirror", "prevalence": 0.1}
    given = run("a"), run("b", OTHER, wishes=wishes, arrangement="ensemble")
    shutil.copytree(STORED / "checkpoints", tmp_path / "a" / "checkpoints")
    comparison = compare_runs(given, tmp_path / "out")
    assert comparison.flags == {"prevalence": [None, 0.1], "tta": [None, "mirror"]}
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "<td>one</td><td>the mean of several</td>" in page
    outdated = "It was evaluated at step 1200, which is no longer the best checkpoint."
    assert [outdated in each.warnings for each in comparison.runs] == [True, False]
    assert outdated in page


def _numbers(noise, label=NUMBERS):
    value = label + np.random.default_rng(1).normal(0, noise, 30)
    return Predictions(IDS, [""] * 30, label, value[:, None], ("value",), "regression")


def _sets(noise, label=SETS):
    score = np.clip(0.25 + 0.5 * label + np.random.default_rng(1).normal(0, noise, label.shape), 0, 1)
    return Predictions(IDS, [""] * 30, label, score, ("a_b", "none of these"), "multilabel")


def test_numbers_are_compared_by_their_errors(run, tmp_path):
    point = OperatingPoint("default", "There is no threshold.", None, 1.0, 30, 1200)
    evaluate = functools.partial(regression.summarize, point=point, constant=29.0)
    given = [run(name, _numbers(noise), threshold=None, summarize=evaluate) for name, noise in (("a", 2), ("b", 15))]
    shown = _command(f"--output_dir={tmp_path / 'out'}", *given)
    written = json.loads((tmp_path / "out" / "compare.json").read_text())
    (pair,) = written["pairs"]
    for name in ("mae", "rmse"):
        first, second = (run["metrics"][name]["value"] for run in written["runs"])
        each = pair["differences"][name]
        assert each["difference"] == pytest.approx(first - second)
        assert each["interval"][0] < each["difference"] < each["interval"][1] < 0
        assert each["p_value"] < 0.01
    assert "Root mean squared error differs at 5 %: a −" in shown
    assert not {path.name for path in (tmp_path / "out").iterdir()} & {"roc.png", "calibration.png"}
    page = (tmp_path / "out" / "compare.html").read_text()
    assert '<th scope="row">Studies</th><td>30</td><td>30</td>' in page
    assert not [text for text in ("Metrics as bars", "operating point") if text in page]
    other = run("c", _numbers(2, NUMBERS + 1), threshold=None, summarize=evaluate)
    done = in_process.run("compare", f"--output_dir={tmp_path / 'out'}", given[0], other)
    assert f"study study_0001 is {NUMBERS[0] + 1:.6g} there and {NUMBERS[0]:.6g} in" in done.stderr


@pytest.mark.usefixtures("without_pictures")
def test_sets_of_labels_are_compared_by_label_and_on_average(run, tmp_path):
    point = OperatingPoint("youden", "Each label has its own.", None, 1.0, 30, 1200, grade_thresholds=[0.5, 0.5])
    threshold = np.asarray([[0.5, 0.5]])
    evaluate = functools.partial(multilabel.summarize, threshold=threshold, operating_point=point)
    given = [run(name, _sets(noise), threshold=threshold, summarize=evaluate) for name, noise in (("a", 0.1), ("b", 1))]
    shown = _command(f"--output_dir={tmp_path}/out", *given)
    written = json.loads((tmp_path / "out" / "compare.json").read_text())
    (pair,) = written["pairs"]
    labels = [f"auroc:{name}" for name in ("a_b", "none of these")]
    assert list(pair["differences"]) == ["macro_auroc", *labels, "exact_match"]
    for name, each in pair["differences"].items():
        first, second = (run["metrics"][name]["value"] for run in written["runs"])
        assert each["difference"] == pytest.approx(first - second)
        assert each["interval"][0] <= each["difference"] <= each["interval"][1]
    p_values = [pair["differences"][name]["p_value"] for name in labels]
    assert [pair["corrected"][name] for name in labels] == paired_tests.holm(p_values)
    assert "a − b: AUROC of none of these" in shown
    assert "AUROC of a label differs at 5 % after Holm's correction in 2 of 2 tests: a_b: a +" in shown
    assert "one for each label" in (tmp_path / "out" / "compare.html").read_text()
    other = run("c", _sets(1, 1 - SETS), threshold=threshold, summarize=evaluate)
    done = in_process.run("compare", f"--output_dir={tmp_path}/out", given[0], other)
    assert "give runs with the same --negative_categories on the same records" in done.stderr


FOLDER = {"dataset": "ct_folder/32x32x16"}


@pytest.mark.usefixtures("without_pictures")
def test_names_in_folders_are_studies_by_their_voxels_and_are_not_shown(run, tmp_path):
    voxels = {study_id: f"{number:064x}" for number, study_id in enumerate(GOOD.study_id)}
    others = voxels | {"study_0003": "f" * 64}
    first = run("a", **FOLDER, keys=voxels)
    (pair,) = compare_runs([first, run("b", OTHER, **FOLDER, fingerprint="0" * 64, keys=voxels)], tmp_path).pairs
    assert set(pair.differences) == {"auroc", "accuracy"}  # another grid, the same studies
    (pair,) = compare_runs([first, run("c", OTHER, **FOLDER, keys=others)], tmp_path).pairs
    assert (pair.differences, pair.num_alone, pair.alone) == ({}, (1, 1), ([], []))
    assert "study_0003" not in (tmp_path / "compare.html").read_text() + (tmp_path / "compare.json").read_text()
    external = [
        run(name, **FOLDER, external=True, fingerprint=mark * 64) for name, mark in zip("def", "112", strict=True)
    ]
    one, other, _ = compare_runs(external, tmp_path).pairs
    assert bool(one.differences) > bool(other.differences)


def test_what_makes_no_sense_is_refused_in_one_line(run, tmp_path):
    first, cold = run("a"), tmp_path / "cold"
    cold.mkdir()
    shutil.copy(STORED / "config.json", cold)
    renamed = dataclasses.replace(GOOD, label_names=("CT-0", "CT-1"))
    turned = dataclasses.replace(OTHER, label=np.roll(OTHER.label, 1))
    edited = run("edited")
    path = next((tmp_path / "edited" / "evaluations").glob("*/predictions.csv"))
    path.write_text(path.read_text().replace("0.8", "0.9"))
    refusals = {
        (first, f"{first}/"): f"it is the same evaluation as that of {first}",
        (first, str(tmp_path / "absent")): "config.json does not exist",
        (first, str(cold)): "does not exist: first python -m covidscan.evaluate --workdir=",
        (first, run("b", renamed)): "its task is binary (CT-0, CT-1), that of",
        (first, run("c", turned)): "study study_0001 is negative there and positive in",
        (first, edited): "predictions.csv is not as it was written",
    }
    for given, message in refusals.items():
        done = in_process.run("compare", f"--output_dir={tmp_path / 'out'}", *given)
        line = done.stderr.splitlines()[-1]
        assert (done.returncode, done.stdout) == (1, "")
        assert line.startswith("error: ")
        assert message in line
    assert not (tmp_path / "out").exists()
    folder = next((tmp_path / "a" / "evaluations").iterdir())
    done = in_process.run("compare", f"--output_dir={folder}", first, run("d", OTHER))
    assert "holds an evaluation, whose files would be replaced" in done.stderr
    assert {path.name for path in folder.iterdir()} == {"metrics.json", "predictions.csv"}


@pytest.mark.usefixtures("without_pictures")
def test_an_evaluation_is_named_by_its_folder_too(run, tmp_path):
    first = run("a")
    second = next((tmp_path / "a" / "evaluations").iterdir())
    latest = shutil.copytree(second, second.with_name("ct_phantom_tiny-test-latest"))
    comparison = compare_runs([first, str(latest)], tmp_path / "out")
    assert [each.name for each in comparison.runs] == ["a", "ct_phantom_tiny-test-latest"]
    assert comparison.pairs[0].differences["auroc"].difference == 0


def test_a_table_of_an_earlier_version_that_is_no_text_is_named(run):
    folder = next((Path(run("a")) / "evaluations").iterdir())
    stored = json.loads((folder / "metrics.json").read_text())
    for name in ("files", "sha256"):
        del stored[name]
    (folder / "metrics.json").write_text(json.dumps(stored))
    (folder / "predictions.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"^\S*predictions\.csv is not as it was written"):
        read_evaluation(folder, None)
