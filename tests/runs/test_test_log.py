"""How often test studies were looked at: what is counted, and what is told apart."""

import pytest

from covidscan.runs import looks
from tests.support.reported import context

OWN, OTHER = "mosmed/128x128x32", "ct_folder/128x128x32"


def _line(dataset=OWN, day=1, **more):
    return {"date": f"2026-02-0{day}", "dataset": dataset, "checkpoint": 1200, "command": "evaluate", **more}


def _folds(*numbers):
    return [_line(fold=number) for number in numbers]


def _of(openings, arrangement="single", **changes):
    members = 1 if arrangement == "single" else 5
    return context(test_openings=openings, arrangement=arrangement, num_members=members, **changes)


def test_openings_of_the_data_set_judged_are_counted_and_others_told_apart():
    about = _of([_line(), _line(OTHER), _line(day=2), _line(day=3, verify=True), _line(OTHER, verify=True)])
    assert looks.describe(about) == [
        f"The test studies of {OWN} were opened 2 times.",
        "Beside these, not counted: 1 opening of other data sets.",
        "Not counted: 2 openings by --verify, which shows nothing new.",
    ]
    assert looks.dates(about) == "2026-02-01, 2026-02-02"
    assert looks.count(about).is_repeated


def test_a_look_and_its_recomputation_are_one_look():
    about = _of([_line(), _line(verify=True)])
    assert looks.describe(about)[0] == f"The test studies of {OWN} were opened once."
    assert not looks.count(about).is_repeated


def test_an_external_test_does_not_count_the_looks_at_the_runs_own_test_part():
    about = _of([_line(), _line(), _line(OTHER)], dataset=OTHER)
    assert looks.describe(about) == [
        f"The test studies of {OTHER} were opened once.",
        "Beside these, not counted: 2 openings of other data sets.",
    ]


def test_looks_of_an_ensemble_are_those_at_what_it_judges():
    about = _of([_line(OTHER), *_folds(0, 1, 2, 3, 4)], "ensemble", dataset=OTHER)
    assert looks.describe(about)[0] == f"The test studies of {OTHER} were opened once."
    assert not looks.count(about).is_repeated


@pytest.mark.parametrize(
    ("openings", "words", "repeated"),
    [
        (_folds(0, 1, 2, 3, 4), "once.", False),
        (_folds(0, 1, 2, 3, 4, 0, 0), "1.4 times on average and 3 times at most.", True),
        (_folds(0, 1, 2, 3, 4) * 2, "2 times.", True),
        ([_line()] * 5, "once on average.", False),
        ([_line()] * 8, "1.6 times on average.", True),
        ([*_folds(0, 1, 2, 3, 4), _line(fold=2, verify=True)], "once.", False),
    ],
)
def test_openings_of_disjoint_folds_are_not_added_up(openings, words, repeated):
    about = _of(openings, "out_of_fold")
    assert looks.describe(about)[0] == f"Each fold's own test studies were opened {words}"
    assert looks.count(about).is_repeated is repeated


def test_no_opening_at_all():
    for arrangement in ("single", "out_of_fold"):
        about = _of([], arrangement)
        assert "opened 0 times" in looks.describe(about)[0]
        assert looks.dates(about) == ""
