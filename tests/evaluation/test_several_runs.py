"""Ensembles of runs: their predictions, their threshold, and studies that must not be on both sides."""

import dataclasses
import functools
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import covidscan
from covidscan.config import Config
from covidscan.data import leakage
from covidscan.data.leakage import StudyKeys
from covidscan.evaluation import provenance, several_runs
from covidscan.evaluation.evaluate import record_test_access
from covidscan.evaluation.evaluation_set import RELABELLED, EvaluationSet
from covidscan.metrics import metrics_json
from covidscan.metrics.results import OperatingPoint
from covidscan.runs import operating_points, test_log
from covidscan.trained_models import ensemble, restore
from tests.support import in_process, runs
from tests.support.evaluations import binary
from tfds_mosmed.errors import UserError

POINT = OperatingPoint("youden", "…", 0.5, 1.0, 4, 7, offsets=[0.0, 0.0])


def _member(validation, score, names=None):
    """A network and its data set, with these validation studies, half of them positive, and their scores."""
    predictions = binary(score[: len(score) // 2], score[len(score) // 2 :])
    predictions = predictions.__class__(**{**vars(predictions), "study_id": names or validation})
    network = SimpleNamespace(
        predict=lambda dataset, rows, tta: predictions, experiment=SimpleNamespace(config=Config())
    )
    dataset = SimpleNamespace(
        keys=StudyKeys(names or validation, validation, [""] * len(validation)),
        labels=SimpleNamespace(values=predictions.label),
        parts={"validation": np.arange(len(validation))},
    )
    return network, dataset


def _chosen(*members):
    networks, datasets = zip(*members, strict=True)
    return several_runs.choose(networks, [POINT] * len(members), datasets)  # type: ignore[arg-type]


def test_runs_that_share_their_validation_studies_choose_on_the_mean_of_their_probabilities():
    studies = ["a", "b", "c", "d"]
    chosen = _chosen(_member(studies, [0.95, 0.9, 0.85, 0.1]), _member(studies, [0.5, 0.5, 0.1, 0.2]))
    assert 0.48 < chosen.threshold <= 0.7  # means: 0.725 and 0.7 of the diseased, 0.475 and 0.15 of the others
    assert chosen.num_studies == 4
    assert "which the runs share" in chosen.description


def test_runs_of_different_validation_studies_choose_on_all_of_them():
    chosen = _chosen(_member(["a", "b"], [0.9, 0.6]), _member(["c", "d"], [0.8, 0.1]))
    assert 0.6 < chosen.threshold <= 0.8
    assert chosen.num_studies == 4
    assert "did not train on it" in chosen.description


def test_studies_of_equal_names_in_different_folders_are_different_ones():
    names = ["covid/1", "normal/1"]
    chosen = _chosen(_member(["a", "b"], [0.9, 0.6], names), _member(["c", "d"], [0.8, 0.1], names))
    assert chosen.num_studies == 4
    assert "did not train on it" in chosen.description


def test_runs_of_partly_the_same_validation_studies_choose_none_of_their_own():
    # The study that both predict would be chosen on by a network that may have trained on the other's.
    assert _chosen(_member(["a", "b"], [0.9, 0.6]), _member(["b", "c"], [0.8, 0.1])) is None


def test_runs_of_different_criteria_choose_none_of_their_own_in_whatever_order():
    one, other = _member(["a", "b"], [0.9, 0.6]), _member(["c", "d"], [0.8, 0.1])
    other[0].experiment.config = Config(operating_point="accuracy")
    assert _chosen(one, other) is None
    assert _chosen(other, one) is None


def test_a_look_at_test_studies_is_logged_in_each_member_once_in_whatever_order_they_are_named(tmp_path, caplog):
    networks = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        experiment = SimpleNamespace(config=Config())
        weights = {"weight": np.full(3, number, np.float32)}
        networks.append(
            SimpleNamespace(workdir=tmp_path / str(number), experiment=experiment, variables=weights, step=7)
        )
    points = [dataclasses.replace(POINT, threshold=0.1 * number) for number in range(3)]

    def look(*members, **options):
        chosen = [networks[member] for member in members]
        part = SimpleNamespace(
            workdir=chosen[0].workdir, part="test", external=False, dataset=SimpleNamespace(name="mosmed/64x64x32")
        )
        record_test_access(chosen, part, [points[member] for member in members], **options)

    def counted(*members):
        return test_log.count(provenance._test_accesses([tmp_path / str(each) for each in members]), "mosmed/64x64x32")

    look(0)
    look(0, 1)
    look(1, 0)
    assert [len(counted(each).counted) for each in range(3)] == [2, 1, 0]
    look(1)
    look(2, 1)
    assert [len(counted(each).counted) for each in range(3)] == [2, 3, 1]
    assert len(counted(0, 1).counted) == 4, "each is counted once, wherever it is logged"
    shutil.rmtree(tmp_path / "1")  # it cannot be written
    look(0, 1)
    assert "is not logged" in caplog.text
    with pytest.raises(OSError, match="No such file"):
        look(1, 0)


def test_a_run_is_named_once_whatever_its_path(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "run")
    members = [SimpleNamespace(workdir=tmp_path / "run"), SimpleNamespace(workdir=link)]
    with pytest.raises(UserError, match=r"run is there twice: name each run once"):
        ensemble.check_alike(members)  # type: ignore[arg-type]


def _binary_member(place, dataset, fingerprint, negative):
    data = {"dataset": dataset, "fingerprint": fingerprint, "label_names": ["negative", "positive"], "grid": "32x32x16"}
    experiment = SimpleNamespace(config=Config(negative_categories=negative))
    variables = {"weight": np.frombuffer(place.name.encode(), np.uint8)}
    return SimpleNamespace(workdir=place, experiment=experiment, run={"data": data}, variables=variables)


def test_a_copy_of_a_run_is_no_other_member(tmp_path):
    member = _binary_member(tmp_path / "a", "mosmed/64x64x32", "f1", ("CT-0",))
    copied = SimpleNamespace(**{**vars(member), "workdir": tmp_path / "copy"})
    with pytest.raises(UserError, match=r"a and \S+copy hold the same network: name it once"):
        ensemble.check_alike([member, copied])  # type: ignore[arg-type]


def test_members_that_were_trained_with_other_labels_are_named(tmp_path, caplog):
    evaluated = EvaluationSet(tmp_path, None, "test", False, "best", "None.", None)  # type: ignore[arg-type]
    networks = [_binary_member(tmp_path / name, "mosmed/64x64x32", "f1", ("CT-0",)) for name in "ab"]
    datasets = [SimpleNamespace(is_labelled_as=lambda _, same=same: same) for same in (True, False)]
    told = several_runs._with_relabelled(evaluated, networks, datasets)  # type: ignore[arg-type]
    assert told.leak_check.endswith(f"It is so with {tmp_path / 'b'}.")
    assert told.leak_check.startswith(f"None. {RELABELLED}")
    assert RELABELLED in caplog.text
    assert several_runs._with_relabelled(evaluated, networks, [None, datasets[0]]) == evaluated  # type: ignore[arg-type]


def test_members_call_the_same_studies_positive(tmp_path):
    def check(first, second):
        members = [_binary_member(tmp_path / name, *one) for name, one in (("a", first), ("b", second))]
        ensemble.check_alike(members)  # type: ignore[arg-type]

    healthy = ("ct_folder/32x32x16", "f1", ("healthy",))
    check(healthy, ("ct_folder/32x32x16", "f2", ("normal",)))  # other folders, whose categories have other names
    check(healthy, ("ct_folder/32x32x16", "f1", ("Healthy",)))
    for one, other in (
        (healthy, ("ct_folder/32x32x16", "f1", ("healthy", "cap"))),
        (("mosmed/64x64x32", "f1", ("CT-0",)), ("mosmed/64x64x32", "f2", ("CT-0", "CT-1"))),
    ):
        with pytest.raises(UserError, match="cannot be one ensemble, different studies are positive in them"):
            check(one, other)


def test_an_ensemble_is_no_repeat_of_a_run():
    refused = in_process.run("evaluate", "--workdir=a,b", "--repeats=c")
    assert refused.stderr.startswith("error: --repeats is of single runs")


def test_an_ensemble_of_very_different_prevalences_is_calibrated_to_none():
    points = [dataclasses.replace(POINT, prevalence=prevalence) for prevalence in (0.3, 0.4, 0.7)]
    assert operating_points.mean_prevalence(points[:2]) == pytest.approx(0.35)
    assert operating_points.mean_prevalence(points) is None


@pytest.mark.sampled
def test_an_ensemble_is_evaluated_and_predicts_alike_and_a_planted_leak_is_refused(
    trained, trained_with_seed_1, data_dir
):
    both = f"--workdir={trained},{trained_with_seed_1}"
    done = in_process.run("evaluate", both)
    assert done.returncode == 0, done.stderr
    members = [restore.restore(workdir) for workdir in (trained, trained_with_seed_1)]
    dataset = members[0].own_dataset()
    points = [member.operating_point(member.own_dataset) for member in members]
    tested = [
        member.predict(dataset, dataset.parts["test"]).calibrated(point)
        for member, point in zip(members, points, strict=True)
    ]
    (folder,) = (trained / "evaluations").glob("*-ensemble_*")
    found = runs.predictions(folder)
    for row, study_id in enumerate(tested[0].study_id):
        mean = np.mean([one.probability[row, 1] for one in tested])
        assert float(found[study_id]["probability_positive"]) == pytest.approx(mean, abs=1e-6)
    stored = metrics_json.read(folder, edited=True)
    (of_both,) = {restore.checksums(order) for order in (members, members[::-1])}
    read = functools.partial(operating_points.read, ensemble.folder(members), operating_points.OUT_OF_FOLD_STEP)
    frozen = read(parameters=of_both)
    assert read(parameters=restore.checksums([members[0], members[0]])) is None
    assert stored[0].threshold == frozen.threshold  # type: ignore[index, union-attr]
    assert stored[1].num_members == 2  # type: ignore[index]
    for order in ([trained, trained_with_seed_1], [trained_with_seed_1, trained]):
        assert covidscan.load(order).info.threshold == frozen.threshold  # type: ignore[union-attr]
    twice = in_process.run("evaluate", f"--workdir={trained},{trained}")
    assert twice.stderr == f"error: --workdir: {trained} is there twice: name each run once\n"
    # The second run has trained on a test study of the first.
    parts = dataset.parts
    leaked = {**parts, "train": np.sort([*parts["train"], parts["test"][0]]), "test": parts["test"][1:]}
    leakage.write(trained_with_seed_1, dataset.keys, leaked)
    for split in ("test", "validation"):
        refused = in_process.run("evaluate", both, f"--split={split}")
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert refused.stderr.startswith(f"error: --workdir={trained_with_seed_1} cannot be in this ensemble")
        assert dataset.study_ids[parts["test"][0]] in refused.stderr
