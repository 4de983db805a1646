"""Test accesses are counted, operating points frozen, runs compared, and evaluations computed again."""

import json
import shutil

import pytest

from tests.support import runs

TEST = "ct_phantom_tiny-test-best"


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """A run that was evaluated once."""
    workdir = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(trained, workdir)
    shutil.rmtree(workdir / "evaluations", ignore_errors=True)
    (workdir / "test_openings.jsonl").unlink(missing_ok=True)
    runs.run("evaluate", f"--workdir={workdir}")
    return workdir


@pytest.fixture
def workdir_copy(evaluated, tmp_path):
    """A copy of a run that was evaluated once."""
    shutil.copytree(evaluated, tmp_path / "run")
    return tmp_path / "run"


def _metrics(workdir, name=TEST):
    return json.loads((workdir / "evaluations" / name / "metrics.json").read_text())


def _last_line(done):
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_each_evaluation_of_the_test_part_is_counted_and_one_of_the_validation_part_is_not(workdir_copy):
    runs.run("evaluate", f"--workdir={workdir_copy}", "--split=validation")
    runs.run("evaluate", f"--workdir={workdir_copy}", "--checkpoint=12")
    accesses = _metrics(workdir_copy, "ct_phantom_tiny-test-12")["context"]["test_openings"]
    assert [access["checkpoint"] for access in accesses] == [accesses[0]["checkpoint"], 12]
    assert "--checkpoint=12" in accesses[1]["command"]
    report = (workdir_copy / "evaluations" / "ct_phantom_tiny-test-12" / "report.html").read_text()
    assert "evaluated 2 times" in " ".join(report.split())


def test_a_verification_is_logged_as_such(workdir_copy):
    runs.run("evaluate", f"--workdir={workdir_copy}", "--verify")
    accesses = [json.loads(line) for line in (workdir_copy / "test_openings.jsonl").read_text().splitlines()]
    assert [access["verify"] for access in accesses] == [False, True]


def test_the_operating_point_that_training_froze_is_applied_to_the_test_part(trained, workdir_copy):
    frozen = json.loads((trained / "choices.json").read_text())
    before = (workdir_copy / "choices.json").read_text()
    assert json.loads(before) == frozen
    metrics = _metrics(workdir_copy)
    choices = frozen[str(metrics["context"]["checkpoint"])]
    del choices["sha256"], choices["parameters_crc32"]
    assert metrics["threshold"] == choices["threshold"]
    assert metrics["operating_point"] == choices
    runs.run("evaluate", f"--workdir={workdir_copy}", "--split=train")
    assert (workdir_copy / "choices.json").read_text() == before


def test_an_evaluation_is_computed_again(workdir_copy):
    done = runs.run("evaluate", f"--workdir={workdir_copy}", "--verify")
    assert "predictions and metrics are those of checkpoint and records" in done.stdout
    path = workdir_copy / "evaluations" / TEST / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["figures"]["auroc"]["value"] += 0.001
    path.write_text(json.dumps(metrics))
    line = _last_line(runs.run("evaluate", f"--workdir={workdir_copy}", "--verify", check=False))
    assert "differs in 1 places" in line
    assert "figures.auroc.value" in line


def test_a_threshold_tuned_on_the_test_part_is_found(workdir_copy):
    choices = json.loads((workdir_copy / "choices.json").read_text())
    step = str(_metrics(workdir_copy)["context"]["checkpoint"])
    choices[step]["threshold"] += 0.05
    (workdir_copy / "choices.json").write_text(json.dumps(choices))
    line = _last_line(runs.run("evaluate", f"--workdir={workdir_copy}", check=False))
    assert (
        f"choices.json is not as training wrote it (what was chosen for step {step} was edited, or is of another run)"
        in line
    )
    del choices[step]["sha256"]  # of an earlier version, which wrote none
    (workdir_copy / "choices.json").write_text(json.dumps(choices))
    runs.run("evaluate", f"--workdir={workdir_copy}")
    line = _last_line(runs.run("evaluate", f"--workdir={workdir_copy}", "--verify", check=False))
    assert "choices.json: threshold" in line
    assert "it was not chosen on the validation studies" in line


@pytest.fixture(scope="module")
def other(trained_with_seed_1):
    """A run of another seed, evaluated."""
    runs.run("evaluate", f"--workdir={trained_with_seed_1}")
    return trained_with_seed_1


def test_two_runs_are_compared_on_the_same_studies_and_seeds_summarized(workdir_copy, other):
    done = runs.run("evaluate", f"--workdir={workdir_copy}", f"--compare={other}", f"--repeats={other}")
    metrics, theirs = _metrics(workdir_copy), _metrics(other)
    difference = metrics["figures"]["auroc"]["value"] - theirs["figures"]["auroc"]["value"]
    assert metrics["comparison"]["figures"]["auroc"]["difference"] == pytest.approx(difference)
    assert metrics["comparison"]["num_studies"] == 7
    repeats = metrics["repeats"]["figures"]["auroc"]
    mean = (metrics["figures"]["auroc"]["value"] + theirs["figures"]["auroc"]["value"]) / 2
    assert repeats["mean"] == pytest.approx(mean)
    assert repeats["runs"] == 2
    assert "DeLong" in done.stdout
    # What was asked is remembered: the check needs no flags.
    assert "are those of" in runs.run("evaluate", f"--workdir={workdir_copy}", "--verify").stdout


def test_runs_that_cannot_be_compared_are_refused(workdir_copy, data_dir, tmp_path):
    line = _last_line(runs.run("evaluate", f"--workdir={workdir_copy}", f"--compare={tmp_path}", check=False))
    assert line.startswith(f"error: --compare={tmp_path}: ")
    assert "first python -m covidscan.evaluate" in line
    wider = tmp_path / "wider"
    shutil.copytree(workdir_copy, wider)
    metrics = wider / "evaluations" / TEST / "metrics.json"
    content = json.loads(metrics.read_text().replace('"learning_rate": 0.002', '"learning_rate": 0.1'))
    del content["sha256"]  # as earlier versions wrote it
    metrics.write_text(json.dumps(content))
    line = _last_line(runs.run("evaluate", f"--workdir={workdir_copy}", f"--repeats={wider}", check=False))
    assert "differs from this run in more than its seed (--learning_rate)" in line
    elsewhere = tmp_path / "elsewhere"
    flags = [*runs.FAST, "--epochs=1", "--split_seed=1", f"--workdir={elsewhere}", f"--data_dir={data_dir}"]
    runs.run("train", *flags)
    runs.run("evaluate", f"--workdir={elsewhere}")
    line = _last_line(runs.run("evaluate", f"--workdir={workdir_copy}", f"--compare={elsewhere}", check=False))
    assert "split in another way" in line


def test_columns_of_a_metadata_file_make_subgroups(workdir_copy, tmp_path):
    studies = sorted(runs.predictions(workdir_copy / "evaluations" / TEST))
    lines = [f"{study},{'A' if place < 5 else 'B'}" for place, study in enumerate(studies)]
    table = tmp_path / "metadata.csv"
    table.write_text("study_id,scanner\n" + "\n".join(lines) + "\n")
    runs.run("evaluate", f"--workdir={workdir_copy}", f"--metadata={table}")
    (groups,) = [table["groups"] for table in _metrics(workdir_copy)["subgroups"] if table["by"] == "scanner"]
    assert {group["name"]: group["num_studies"] for group in groups} == {"A": 5, "other": 2}
    table.write_text("name,scanner\n")
    line = _last_line(runs.run("evaluate", f"--workdir={workdir_copy}", f"--metadata={table}", check=False))
    assert str(table) in line
    assert "study_id" in line
