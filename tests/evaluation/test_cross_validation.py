"""All folds as one job: every study predicted once by a network that never saw it; elsewhere an ensemble."""

import dataclasses
import json
import os
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest

from covidscan.config import Config, DataPaths
from covidscan.distributed import preemption
from covidscan.distributed.exits import RunAgain
from covidscan.distributed.preemption import StopRequests
from covidscan.evaluation import cross_validation
from covidscan.metrics.results import Baseline, Metric, OperatingPoint
from covidscan.runs import checkpoints
from covidscan.trained_models import restore
from tests.support import runs
from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.errors import UserError

FOLDS = ("--protocol=kfold", "--num_folds=3", "--fold=all")
OUT_OF_FOLD = "ct_phantom_tiny-out_of_fold-best"


@pytest.fixture(scope="module")
def folds(data_dir, tmp_path_factory):
    """The command's output, and a finished cross-validation."""
    workdir = tmp_path_factory.mktemp("folds") / "run"
    done = runs.run("train", *runs.FAST, *FOLDS, f"--workdir={workdir}", f"--data_dir={data_dir}")
    return done.stdout, workdir


def _metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_every_study_is_predicted_once_by_the_fold_that_never_saw_it(folds):
    printed, workdir = folds
    pooled = runs.predictions(workdir / "evaluations" / OUT_OF_FOLD)
    assert len(pooled) == 24
    seen = set()
    for fold in range(3):
        of_fold = runs.predictions(workdir / f"fold_{fold}" / "evaluations" / "ct_phantom_tiny-test-best")
        assert not seen & of_fold.keys()
        seen |= of_fold.keys()
        assert {study: pooled[study] for study in of_fold} == of_fold  # with the decisions of the fold's own threshold
    assert seen == pooled.keys()
    assert "out_of_fold" in printed


def test_folds_are_summarized_by_mean_and_spread(folds):
    _, workdir = folds
    repeats = _metrics(workdir / "evaluations" / OUT_OF_FOLD)["repeats"]
    each = [_metrics(workdir / f"fold_{fold}" / "evaluations" / "ct_phantom_tiny-test-best") for fold in range(3)]
    values = [one["figures"]["accuracy"]["value"] for one in each]
    assert repeats["kind"] == "folds"
    assert [member["figures"]["accuracy"] for member in repeats["members"]] == values
    assert repeats["figures"]["accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert repeats["figures"]["accuracy"]["sd"] == pytest.approx(np.std(values, ddof=1))


def test_choices_on_few_studies_of_each_fold_are_told(folds):
    _, workdir = folds
    pooled = _metrics(workdir / "evaluations" / OUT_OF_FOLD)
    each = [_metrics(workdir / f"fold_{fold}" / "evaluations" / "ct_phantom_tiny-test-best") for fold in range(3)]
    points = [one["operating_point"] for one in each]
    assert pooled["operating_point"]["num_studies"] == sum(point["num_studies"] for point in points) >= 20
    fewest = min(point["num_studies"] for point in points)
    assert any(f"A fold's threshold was chosen on {fewest} validation studies" in line for line in pooled["warnings"])
    assert all(point["described"] in pooled["operating_point"]["described"] for point in points)


def test_a_fold_that_was_evaluated_before_its_best_checkpoint_is_not_pooled(folds, monkeypatch):
    _, workdir = folds
    networks = restore.restore_folds(workdir)
    member, config = workdir / "fold_1", networks[1].experiment.config
    assert cross_validation._is_evaluated(member, config)
    later = [networks[0], networks[1]._replace(step=networks[1].step + 1), networks[2]]
    with pytest.raises(UserError, match=r"fold_1/evaluations/\S+ is not of step \d+, the best checkpoint now: first"):
        cross_validation.pool(later, workdir, None)
    monkeypatch.setattr(checkpoints, "best_step", lambda _: networks[1].step + 1)
    assert not cross_validation._is_evaluated(member, config)


def test_all_folds_are_checked_before_the_first_trains(tmp_path, monkeypatch):
    loaded = []

    def load(config, _):
        loaded.append(config.fold)

        def check_labels(own):
            if own.fold == 2 and own.split_seed:
                raise UserError("no study for validation is of it")

        tested = {"test": [config.fold]}
        return SimpleNamespace(check_labels=check_labels, parts=tested)

    def refuse(source, dataset):
        if dataset.parts["test"] == [1]:
            raise UserError(f"--init_from={source}: it was developed on test studies of this run")

    monkeypatch.setattr(cross_validation, "load_dataset", load)
    monkeypatch.setattr(cross_validation, "check_start", refuse)
    config, paths = Config(protocol="kfold", num_folds=4), DataPaths(str(tmp_path))
    (tmp_path / "fold_0" / "checkpoints" / "7").mkdir(parents=True)  # it is trained
    cross_validation._check_folds(config, paths, str(tmp_path), lambda path: path)  # type: ignore[arg-type, return-value]
    assert loaded == [3, 2, 1]
    for changes, message in (
        ({"split_seed": 1}, "--fold=2: no study for validation"),
        ({"init_from": "runs/a"}, "--fold=1: --init_from=runs/a: it was developed"),
    ):
        changed = dataclasses.replace(config, **changes)
        with pytest.raises(UserError, match=message):
            cross_validation._check_folds(changed, paths, str(tmp_path), lambda path: path)  # type: ignore[arg-type, return-value]


@pytest.mark.sampled
def test_the_same_command_resumes_at_the_fold_where_it_was_stopped(folds, data_dir, tmp_path):
    _, finished = folds
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    shutil.rmtree(workdir / "evaluations")
    shutil.rmtree(workdir / "fold_2")
    kept = (workdir / "fold_1" / "evaluations" / "ct_phantom_tiny-test-best" / "metrics.json").stat().st_mtime_ns
    runs.run("train", *runs.FAST, *FOLDS, f"--workdir={workdir}", f"--data_dir={data_dir}")
    again = (workdir / "fold_1" / "evaluations" / "ct_phantom_tiny-test-best" / "metrics.json").stat().st_mtime_ns
    assert again == kept
    one, other = (runs.predictions(folder / "evaluations" / OUT_OF_FOLD) for folder in (workdir, finished))
    assert one == other


@pytest.mark.sampled
def test_on_another_data_set_the_folds_are_an_ensemble(folds, tmp_path):
    _, workdir = folds
    for seed, (name, category) in enumerate([("normal", "CT-0"), ("normal", "CT-0"), ("covid", "CT-3")]):
        (tmp_path / "studies" / name).mkdir(parents=True, exist_ok=True)
        phantom = generator.make_phantom(900 + seed, category, matrix=128)
        generator.write_study(phantom, tmp_path / "studies" / name / f"scan{seed}.nii.gz")
    flags = ["--dataset=ct_folder/32x32x16", f"--manual_dir={tmp_path / 'studies'}", f"--data_dir={tmp_path / 'data'}"]
    name = "ct_folder_32x32x16-test-best"
    for member in ("fold_0", "fold_1", "fold_2", "."):
        runs.run("evaluate", f"--workdir={workdir / member}", *flags)
    together = runs.predictions(workdir / "evaluations" / name)
    each = [runs.predictions(workdir / f"fold_{fold}" / "evaluations" / name) for fold in range(3)]
    for study, row in together.items():
        mean = np.mean([float(one[study]["probability_positive"]) for one in each])
        assert float(row["probability_positive"]) == pytest.approx(mean, abs=1e-9)
    metrics = _metrics(workdir / "evaluations" / name)
    chosen = json.loads((workdir / "choices.json").read_text())["0"]
    assert chosen["num_studies"] == 24
    assert chosen["parameters_crc32"] == restore.checksums(restore.restore_folds(workdir))
    assert "each predicted by the network of its fold" in chosen["described"]
    assert metrics["threshold"] == chosen["threshold"]
    assert metrics["context"]["num_members"] == 3


@pytest.mark.sampled
def test_a_cross_validation_is_verified_down_to_its_folds(folds, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(folds[1], workdir)
    assert runs.run("evaluate", f"--workdir={workdir}", "--verify").stdout.count("are those of") == 4
    # A fold's predictions are changed: neither are they pooled, nor do they agree with the fold's network.
    table = workdir / "fold_1" / "evaluations" / "ct_phantom_tiny-test-best" / "predictions.csv"
    lines = table.read_text().splitlines()
    cells = lines[1].split(",")
    cells[2], cells[3] = cells[3], cells[2]
    table.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    done = runs.run("evaluate", f"--workdir={workdir}", check=False)
    assert "fold_1/evaluations/ct_phantom_tiny-test-best/predictions.csv is not as it was" in done.stderr
    done = runs.run("evaluate", f"--workdir={workdir}", "--verify", check=False)
    assert done.returncode == 1
    assert "fold_1/evaluations/ct_phantom_tiny-test-best differs" in done.stderr.splitlines()[-1]


@pytest.mark.sampled
def test_two_processes_cross_validate_like_one(folds, data_dir, tmp_path):
    flags = [*runs.FAST, *FOLDS, f"--workdir={tmp_path / 'run'}", f"--data_dir={data_dir}"]
    done = runs.run_job("train", *flags, processes=2, devices=1)
    assert "out_of_fold" in done[0].stdout
    one, two = (runs.predictions(workdir / "evaluations" / OUT_OF_FOLD) for workdir in (folds[1], tmp_path / "run"))
    assert one.keys() == two.keys()
    for study, row in one.items():
        assert float(two[study]["probability_positive"]) == pytest.approx(float(row["probability_positive"]), abs=1e-3)


def test_the_report_has_the_commands_that_reproduce_it(folds):
    _, workdir = folds
    train, evaluate, verify = _metrics(workdir / "evaluations" / OUT_OF_FOLD)["context"]["commands"]
    assert "--fold=all" in train
    assert evaluate == f"python -m covidscan.evaluate --workdir={workdir}"
    assert verify == f"{evaluate} --verify"


def test_flags_that_do_not_fit_a_cross_validation_are_refused(folds, trained):
    _, workdir = folds
    for flags, message in (
        (("--split=validation",), "evaluated out of fold"),
        ((f"--compare={trained}",), "compare runs with runs, cross-validations with cross-validations"),
    ):
        done = runs.run("evaluate", f"--workdir={workdir}", *flags, check=False)
        assert done.returncode == 1
        assert message in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--fold=all",), "--fold=all needs --protocol=kfold or leave_one_site_out or table"),
        (("--fold=2",), "--fold=2 needs --protocol=kfold or leave_one_site_out or table"),
        (("--protocol=kfold", "--fold=every"), "--fold=every must be a number from 0, or all"),
    ],
)
def test_folds_that_do_not_exist_are_refused(flags, message, data_dir, tmp_path):
    done = runs.run("train", *flags, f"--workdir={tmp_path}", f"--data_dir={data_dir}", check=False)
    assert done.returncode in (1, 2)
    assert message in done.stderr.splitlines()[-1]


def test_a_single_run_or_other_flags_are_not_resumed_as_a_cross_validation(folds, trained, data_dir):
    for workdir, flags, message in (
        (trained, FOLDS, "holds a single run"),
        (folds[1], (*FOLDS, "--seed=5"), "was made with other flags (--seed=0 there)"),
    ):
        done = runs.run("train", *runs.FAST, *flags, f"--workdir={workdir}", f"--data_dir={data_dir}", check=False)
        assert done.returncode == 1
        assert message in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 75), (None, 130)], ids=["SIGTERM", "stop file"])
def test_a_request_in_the_last_step_of_a_fold_stops_before_its_evaluation(sent, status, tmp_path, monkeypatch):
    trained = []

    def train(config, paths, workdir, stop, *_):
        trained.append(workdir)
        with stop.deferred():
            if sent:
                os.kill(os.getpid(), sent)
            else:
                (tmp_path / "stop").touch()

    monkeypatch.setattr(cross_validation, "train_and_evaluate", train)
    monkeypatch.setattr(preemption, "CHECK_EVERY_S", 0)
    config = Config(dataset="ct_phantom/tiny", protocol="kfold", num_folds=3)
    with StopRequests(tmp_path) as stop, pytest.raises(RunAgain, match="before the evaluation of fold 0") as stopped:
        cross_validation.cross_validate(config, DataPaths(str(tmp_path)), str(tmp_path), stop)
    assert stopped.value.status == status
    assert trained == [str(tmp_path / "fold_0")]


def test_folds_of_numbers_tell_of_no_threshold_and_no_temperature():
    point = OperatingPoint("default", "There is no threshold.", None, 1.0, 10, 7)
    pooled = cross_validation._pooled_operating_point("regression", [point, dataclasses.replace(point, num_studies=12)])
    assert pooled == dataclasses.replace(point, num_studies=22, num_in_smallest_fold=10)


CONSTANTS = dict.fromkeys(("Prevalence", "Mean of the training studies", "Median of the training studies"), "constant")


def test_baselines_of_folds_need_not_have_the_same_metrics():
    def fold(names, **metrics):
        values = {name: Metric(value) for name, value in metrics.items()}
        return SimpleNamespace(baselines=[Baseline(name, "…", kind, values) for name, kind in names.items()])

    of_folds = [
        fold({**CONSTANTS, "Always a": "constant", "slices": "features", "a probe": "probe"}, auroc=0.4, accuracy=0.8),
        fold({**CONSTANTS, "Always b": "constant", "slices": "features"}, auroc=0.6),
    ]
    *constants, always, features = cross_validation._mean_baselines(of_folds)  # type: ignore[arg-type]
    assert [each.name for each in constants] == list(CONSTANTS)
    assert (always.name, features.name) == ("Always the fold's commonest label", "slices")
    assert features.metrics == {"auroc": Metric(0.5), "accuracy": Metric(0.8)}
