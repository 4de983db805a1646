"""What makes an evaluation believable: test accesses counted, choices frozen, runs compared, figures computed again."""

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
def judged(evaluated, tmp_path):
    """A copy of a run that was evaluated once."""
    shutil.copytree(evaluated, tmp_path / "run")
    return tmp_path / "run"


def _metrics(workdir, name=TEST):
    return json.loads((workdir / "evaluations" / name / "metrics.json").read_text())


def _last_line(done):
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_each_look_at_the_test_part_is_counted_and_one_at_the_validation_part_is_not(judged):
    runs.run("evaluate", f"--workdir={judged}", "--split=validation")
    runs.run("evaluate", f"--workdir={judged}", "--checkpoint=12")
    openings = _metrics(judged, "ct_phantom_tiny-test-12")["context"]["test_openings"]
    assert [opening["checkpoint"] for opening in openings] == [openings[0]["checkpoint"], 12]
    assert "--checkpoint=12" in openings[1]["command"]
    report = (judged / "evaluations" / "ct_phantom_tiny-test-12" / "report.html").read_text()
    assert "evaluated 2 times" in " ".join(report.split())


def test_a_verification_is_no_look_that_could_have_chosen_anything(judged):
    runs.run("evaluate", f"--workdir={judged}", "--verify")
    openings = [json.loads(line) for line in (judged / "test_openings.jsonl").read_text().splitlines()]
    assert [opening["verify"] for opening in openings] == [False, True]


def test_what_training_froze_on_validation_is_what_the_test_part_sees(trained, judged):
    frozen = json.loads((trained / "choices.json").read_text())
    before = (judged / "choices.json").read_text()
    assert json.loads(before) == frozen
    metrics = _metrics(judged)
    choices = frozen[str(metrics["context"]["checkpoint"])]
    assert metrics["threshold"] == choices["threshold"]
    assert metrics["operating_point"] == choices
    runs.run("evaluate", f"--workdir={judged}", "--split=train")
    assert (judged / "choices.json").read_text() == before


def test_an_evaluation_is_computed_again(judged):
    done = runs.run("evaluate", f"--workdir={judged}", "--verify")
    assert "predictions and metrics are those of checkpoint and records" in done.stdout
    path = judged / "evaluations" / TEST / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["figures"]["auroc"]["value"] += 0.001
    path.write_text(json.dumps(metrics))
    line = _last_line(runs.run("evaluate", f"--workdir={judged}", "--verify", check=False))
    assert "differs in 1 places" in line
    assert "figures.auroc.value" in line


def test_a_threshold_that_was_tuned_on_the_test_part_is_caught(judged):
    choices = json.loads((judged / "choices.json").read_text())
    step = str(_metrics(judged)["context"]["checkpoint"])
    choices[step]["threshold"] += 0.05
    (judged / "choices.json").write_text(json.dumps(choices))
    runs.run("evaluate", f"--workdir={judged}")
    line = _last_line(runs.run("evaluate", f"--workdir={judged}", "--verify", check=False))
    assert "choices.json: threshold" in line
    assert "it was not chosen on the validation studies" in line


@pytest.fixture(scope="module")
def other(trained_with_seed_1):
    """A run of another seed, evaluated."""
    runs.run("evaluate", f"--workdir={trained_with_seed_1}")
    return trained_with_seed_1


def test_two_runs_are_compared_on_the_same_studies_and_seeds_summed_up(judged, other):
    done = runs.run("evaluate", f"--workdir={judged}", f"--compare={other}", f"--repeats={other}")
    metrics, theirs = _metrics(judged), _metrics(other)
    difference = metrics["figures"]["auroc"]["value"] - theirs["figures"]["auroc"]["value"]
    assert metrics["comparison"]["figures"]["auroc"]["difference"] == pytest.approx(difference)
    assert metrics["comparison"]["num_studies"] == 7
    repeats = metrics["repeats"]["figures"]["auroc"]
    mean = (metrics["figures"]["auroc"]["value"] + theirs["figures"]["auroc"]["value"]) / 2
    assert repeats["mean"] == pytest.approx(mean)
    assert repeats["runs"] == 2
    assert "DeLong" in done.stdout
    # What was asked is remembered: the check needs no flags.
    assert "are those of" in runs.run("evaluate", f"--workdir={judged}", "--verify").stdout


def test_runs_that_cannot_be_compared_are_told_of(judged, data_dir, tmp_path):
    line = _last_line(runs.run("evaluate", f"--workdir={judged}", f"--compare={tmp_path}", check=False))
    assert line.startswith(f"error: --compare={tmp_path}: ")
    assert "first python -m covidscan.evaluate" in line
    wider = tmp_path / "wider"
    shutil.copytree(judged, wider)
    metrics = wider / "evaluations" / TEST / "metrics.json"
    metrics.write_text(metrics.read_text().replace('"learning_rate": 0.002', '"learning_rate": 0.1'))
    line = _last_line(runs.run("evaluate", f"--workdir={judged}", f"--repeats={wider}", check=False))
    assert "differs from this run in more than its seed (--learning_rate)" in line
    elsewhere = tmp_path / "elsewhere"
    flags = [*runs.SMALL, "--epochs=1", "--split_seed=1", f"--workdir={elsewhere}", f"--data_dir={data_dir}"]
    runs.run("train", *flags)
    runs.run("evaluate", f"--workdir={elsewhere}")
    line = _last_line(runs.run("evaluate", f"--workdir={judged}", f"--compare={elsewhere}", check=False))
    assert "split in another way" in line


def test_columns_of_a_metadata_file_make_subgroups(judged, tmp_path):
    studies = sorted(runs.predictions(judged / "evaluations" / TEST))
    lines = [f"{study},{'A' if place < 5 else 'B'}" for place, study in enumerate(studies)]
    table = tmp_path / "metadata.csv"
    table.write_text("study_id,scanner\n" + "\n".join(lines) + "\n")
    runs.run("evaluate", f"--workdir={judged}", f"--metadata={table}")
    (groups,) = [table["groups"] for table in _metrics(judged)["subgroups"] if table["by"] == "scanner"]
    assert {group["name"]: group["num_studies"] for group in groups} == {"A": 5, "other": 2}
    table.write_text("name,scanner\n")
    line = _last_line(runs.run("evaluate", f"--workdir={judged}", f"--metadata={table}", check=False))
    assert str(table) in line
    assert "study_id" in line
