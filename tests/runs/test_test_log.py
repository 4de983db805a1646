"""Log of test accesses, and the number that a report states."""

import threading

import pytest

from covidscan.metrics.provenance import TestAccess
from covidscan.metrics.results import OperatingPoint
from covidscan.runs import operating_points, test_log
from covidscan.runs.test_log import count
from tfds_mosmed import storage

OWN, OTHER = "mosmed/128x128x32", "ct_folder/128x128x32"


def _access(dataset=OWN, day=1, **more):
    return TestAccess(f"2026-02-0{day}", dataset, 1200, "evaluate", **more)


def _folds(*numbers):
    return [_access(fold=number) for number in numbers]


def test_accesses_are_read_as_they_were_recorded(tmp_path):
    accesses = [_access(), *_folds(3), _access(OTHER, verify=True)]
    for access in accesses:
        test_log.record(tmp_path, access)
    assert test_log.read(tmp_path) == accesses


POINT = OperatingPoint("youden", "", 0.5, 1.0, 100, 1)


@pytest.mark.parametrize(
    ("file", "write"),
    [
        (test_log.FILE, lambda workdir: test_log.record(workdir, _access())),
        (operating_points.FILE, lambda workdir: operating_points.freeze(workdir, POINT)),
    ],
)
def test_writers_wait_for_each_other(tmp_path, file, write):
    writer = threading.Thread(target=write, args=[tmp_path])
    with storage.exclusive(tmp_path / file):
        writer.start()
        writer.join(0.2)
        assert writer.is_alive()
        assert not (tmp_path / file).exists()
    writer.join(10)
    assert (tmp_path / file).exists()


def test_accesses_to_the_evaluated_data_set_are_counted_and_others_listed():
    counts = count(
        [_access(), _access(OTHER), _access(day=2), _access(day=3, verify=True), _access(OTHER, verify=True)], OWN
    )
    assert counts.describe() == [
        f"The test studies of {OWN} were evaluated 2 times.",
        "Not counted: 1 evaluation of other data sets.",
        "Not counted: 2 evaluations by --verify, which shows nothing new.",
    ]
    assert counts.dates == "2026-02-01, 2026-02-02"
    assert counts.is_repeated


def test_an_evaluation_and_its_verification_count_once():
    counts = count([_access(), _access(verify=True)], OWN)
    assert counts.describe()[0] == f"The test studies of {OWN} were evaluated once."
    assert not counts.is_repeated


def test_an_external_test_does_not_count_accesses_to_the_runs_own_test_part():
    assert count([_access(), _access(), _access(OTHER)], OTHER).describe() == [
        f"The test studies of {OTHER} were evaluated once.",
        "Not counted: 2 evaluations of other data sets.",
    ]


def test_accesses_of_an_ensemble_are_those_to_the_evaluated_data_set():
    counts = count([_access(OTHER), *_folds(0, 1, 2, 3, 4)], OTHER)
    assert counts.describe()[0] == f"The test studies of {OTHER} were evaluated once."
    assert not counts.is_repeated


@pytest.mark.parametrize(
    ("accesses", "words", "repeated"),
    [
        (_folds(0, 1, 2, 3, 4), "once.", False),
        (_folds(0, 1, 2, 3, 4, 0, 0), "1.4 times on average and 3 times at most.", True),
        (_folds(0, 1, 2, 3, 4) * 2, "2 times.", True),
        ([_access()] * 5, "once on average.", False),
        ([_access()] * 8, "1.6 times on average.", True),
        ([*_folds(0, 1, 2, 3, 4), _access(fold=2, verify=True)], "once.", False),
    ],
)
def test_accesses_to_disjoint_folds_are_not_added_up(accesses, words, repeated):
    counts = count(accesses, OWN, num_folds=5)
    assert counts.describe()[0] == f"Each fold's own test studies were evaluated {words}"
    assert counts.is_repeated is repeated


@pytest.mark.parametrize("num_folds", [None, 5])
def test_without_accesses(num_folds):
    counts = count([], OWN, num_folds)
    assert "evaluated 0 times" in counts.describe()[0]
    assert counts.dates == ""


@pytest.mark.parametrize(
    ("later", "repeats"),
    [
        ({"network": "a", "choices": "0.4"}, True),  # evaluated again, or with --metadata
        ({"network": "a", "choices": None}, True),  # localise
        ({"network": "a", "choices": "0.5"}, False),  # another threshold
        ({"network": "b", "choices": "0.4"}, False),  # trained on, or trained anew to the same step
        ({"network": None, "choices": None}, False),  # of an older log: not known
    ],
)
def test_the_same_network_with_the_same_choices_is_counted_once(later, repeats):
    counts = count([_access(network="a", choices="0.4"), _access(day=2, **later)], OWN)
    assert counts.is_repeated is not repeats
    assert len(counts.repetitions) == repeats
    assert any("that repeated one with the same network" in sentence for sentence in counts.describe()) is repeats


def test_localising_first_and_evaluating_then_is_one_look():
    assert not count([_access(network="a"), _access(day=2, network="a", choices="0.4")], OWN).is_repeated
