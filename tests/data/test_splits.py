"""Splits: every study in one part, in equal shares, independent of the order of the records."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covidscan.data.splits import (
    PARTS,
    UNKNOWN,
    Known,
    assign_parts,
    check_labels,
    check_sets,
    check_values,
    split_hash,
)
from tfds_mosmed.building.index import assign_folds
from tfds_mosmed.errors import UserError

MOSMED = {"CT-0": 254, "CT-1": 684, "CT-2": 125, "CT-3": 45, "CT-4": 2}
TWENTY = [f"study_{number:04d}" for number in range(1, 21)]


def _mosmed() -> tuple[list[str], list[str]]:
    strata = [category for category, count in MOSMED.items() for _ in range(count)]
    return [f"study_{number:04d}" for number in range(1, 1111)], strata


def _assign(ids, strata, protocol="holdout", *, seed=0, num_folds=5, fold=0, published=None, known=UNKNOWN):
    return assign_parts(
        ids, strata, protocol, seed=seed, num_folds=num_folds, fold=fold, published=published, known=known
    )


def _names(parts, ids, part):
    return [int(ids[i].removeprefix("study_")) for i in parts[part]]


@st.composite
def data_sets(draw, smallest_stratum=1):
    counts = draw(st.lists(st.integers(smallest_stratum, 40), min_size=1, max_size=5))
    strata = [f"class {k}" for k, count in enumerate(counts) for _ in range(count)]
    ids = [f"p{number}" for number in draw(st.permutations(range(len(strata))))]
    return ids, strata


GOLDEN = {
    "covidnet3d": {"validation": [7, 16]},
    "holdout": {
        "hash": "33150a0ff44d9018f94034f5cc4320599ba86136246b600dda6688e2a3e88407",
        "test": [8, 9, 10, 13, 15],
        "validation": [7, 17],
    },
    "kfold": {
        "hash": "ba2e35861943f3e5b3cb102027adabb074d8711225145b653a0784c6352d944a",
        "test": [2, 12, 17, 19],
        "validation": [5, 6, 11, 16],
    },
}


# A published figure is only worth something while its split can be made again. These lists stand for every split
# that was ever reported: they may change only with a new protocol under a new name.
def test_golden_holdout():
    parts = _assign(TWENTY, ["a"] * 12 + ["b"] * 8)
    assert _names(parts, TWENTY, "test") == GOLDEN["holdout"]["test"]
    assert _names(parts, TWENTY, "validation") == GOLDEN["holdout"]["validation"]
    assert split_hash(parts, TWENTY) == GOLDEN["holdout"]["hash"]


def test_golden_kfold():
    parts = _assign(TWENTY, ["a"] * 12 + ["b"] * 8, "kfold", fold=4)
    assert _names(parts, TWENTY, "test") == GOLDEN["kfold"]["test"]
    assert _names(parts, TWENTY, "validation") == GOLDEN["kfold"]["validation"]
    assert split_hash(parts, TWENTY) == GOLDEN["kfold"]["hash"]


def test_golden_covidnet3d():
    published = dict.fromkeys(TWENTY, "train") | dict.fromkeys(TWENTY[::4], "test")
    parts = _assign(TWENTY, ["a"] * 12 + ["b"] * 8, "covidnet3d", published=published)
    assert _names(parts, TWENTY, "test") == [1, 5, 9, 13, 17]
    assert _names(parts, TWENTY, "validation") == GOLDEN["covidnet3d"]["validation"]


def test_mosmed_holdout_has_the_protocols_sizes():
    ids, strata = _mosmed()
    parts = _assign(ids, strata)
    assert {part: len(parts[part]) for part in PARTS} == {"train": 776, "validation": 111, "test": 223}
    in_test = Counter(strata[i] for i in parts["test"])
    assert in_test == {"CT-0": 51, "CT-1": 137, "CT-2": 25, "CT-3": 9, "CT-4": 1}


def test_mosmed_folds_are_even_and_cover_every_study_once():
    ids, strata = _mosmed()
    folds = [_assign(ids, strata, "kfold", fold=fold)["test"] for fold in range(5)]
    assert [len(fold) for fold in folds] == [222] * 5
    np.testing.assert_array_equal(np.sort(np.concatenate(folds)), np.arange(1110))


@settings(deadline=None)
@given(data_sets(smallest_stratum=3), st.integers(0, 2**31), st.sampled_from(["holdout", "kfold"]))
def test_each_study_is_in_exactly_one_part(data, seed, protocol):
    ids, strata = data
    parts = _assign(ids, strata, protocol, seed=seed, num_folds=3, fold=seed % 3)
    np.testing.assert_array_equal(np.sort(np.concatenate([parts[part] for part in PARTS])), np.arange(len(ids)))
    for rows in parts.values():
        assert list(rows) == sorted(rows)


@settings(deadline=None)
@given(data_sets(smallest_stratum=3), st.integers(0, 2**31))
def test_each_stratum_has_its_shares_within_one_study(data, seed):
    ids, strata = data
    parts = _assign(ids, strata, seed=seed)
    for stratum, count in Counter(strata).items():
        for part, share in (("test", 0.2), ("validation", 0.1)):
            assert abs(sum(strata[i] == stratum for i in parts[part]) - share * count) <= 1


@settings(deadline=None)
@given(data_sets(smallest_stratum=5), st.integers(3, 5))
def test_folds_differ_by_one_study_at_most(data, num_folds):
    ids, strata = data
    folds = [_assign(ids, strata, "kfold", num_folds=num_folds, fold=fold)["test"] for fold in range(num_folds)]
    for members in [strata, *({stratum} for stratum in set(strata))]:
        sizes = [sum(strata[i] in members for i in fold) for fold in folds]
        assert max(sizes) - min(sizes) <= 1


@settings(deadline=None)
@given(data_sets(smallest_stratum=3), st.randoms(use_true_random=False), st.sampled_from(["holdout", "kfold"]))
def test_the_order_of_the_records_changes_nothing(data, random, protocol):
    ids, strata = data
    order = random.sample(range(len(ids)), len(ids))
    shuffled = [ids[i] for i in order]
    first = _assign(ids, strata, protocol, num_folds=3)
    second = _assign(shuffled, [strata[i] for i in order], protocol, num_folds=3)
    for part in PARTS:
        assert {ids[i] for i in first[part]} == {shuffled[i] for i in second[part]}
    assert split_hash(first, ids) == split_hash(second, shuffled)


@settings(deadline=None)
@given(data_sets(smallest_stratum=3))
def test_every_part_holds_every_category_of_three_studies_or_more(data):
    ids, strata = data
    parts = _assign(ids, strata)
    for part in PARTS:
        assert {strata[i] for i in parts[part]} == set(strata)


def test_a_category_of_two_studies_trains_and_is_tested():
    ids, strata = _mosmed()
    parts = _assign(ids, strata)
    rare = {part: sum(strata[i] == "CT-4" for i in parts[part]) for part in PARTS}
    assert rare == {"train": 1, "validation": 0, "test": 1}


def test_the_seed_draws_another_split():
    ids, strata = _mosmed()
    hashes = {split_hash(_assign(ids, strata, seed=seed), ids) for seed in range(5)}
    assert len(hashes) == 5


def test_file_numbers_do_not_decide():
    # MosMedData's numbers are sorted by class; a part must not be a stretch of them.
    ids, strata = _mosmed()
    test = _assign(ids, strata)["test"]
    covid = np.asarray([i for i in test if strata[i] == "CT-1"]) - 254
    assert 684 * 0.4 < covid.mean() < 684 * 0.6
    assert np.diff(covid).max() > 6
    assert np.diff(covid).min() == 1


def test_covidnet3d_keeps_the_published_test_set():
    ids, strata = _mosmed()
    published = {study_id: "test" if number % 10 < 3 else "train" for number, study_id in enumerate(ids)}
    parts = _assign(ids, strata, "covidnet3d", published=published)
    assert {ids[i] for i in parts["test"]} == {study_id for study_id in ids if published[study_id] == "test"}
    assert len(parts["validation"]) == pytest.approx(777 / 8, abs=1)


def test_folds_of_the_published_training_part_validate_each_study_once_and_share_the_test_part():
    ids, strata = _mosmed()
    published = {study_id: "test" if number % 10 < 3 else "train" for number, study_id in enumerate(ids)}
    folds = [_assign(ids, strata, "covidnet3d_cv", published=published, fold=fold) for fold in range(5)]
    test = _assign(ids, strata, "covidnet3d", published=published)["test"]
    for parts in folds:
        np.testing.assert_array_equal(parts["test"], test)
        everything = np.concatenate(list(parts.values()))
        assert sorted(everything) == list(range(len(ids)))
    validated = np.concatenate([parts["validation"] for parts in folds])
    assert sorted(validated) == sorted(set(range(len(ids))) - {*test.tolist()})
    assert {len(parts["validation"]) for parts in folds} <= {155, 156}
    with pytest.raises(UserError, match="--fold=5 must be from 0 to 4"):
        _assign(ids, strata, "covidnet3d_cv", published=published, fold=5)


def test_the_hash_changes_when_a_study_moves():
    ids, strata = _mosmed()
    parts = _assign(ids, strata)
    moved = dict(parts)
    moved["train"], moved["test"] = parts["train"][1:], np.append(parts["test"], parts["train"][0])
    assert split_hash(parts, ids) != split_hash(moved, ids)
    assert split_hash({"test": parts["test"]}, ids) != split_hash(parts, ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"protocol": "loo"},
            r"--protocol=loo .* holdout, kfold, leave_one_site_out, table, covidnet3d or covidnet3d_cv",
        ),
        ({"protocol": "kfold", "fold": 5}, r"--fold=5 must be from 0 to 4 with --num_folds=5"),
        ({"protocol": "kfold", "fold": -1}, r"--fold=-1"),
        ({"protocol": "kfold", "num_folds": 2}, r"--num_folds=2 must be at least 3"),
        (
            {"protocol": "kfold", "num_folds": 30, "fold": 29},
            r"none of 20 studies to test: .* lower --num_folds",
        ),
        ({"protocol": "covidnet3d"}, r"--protocol=covidnet3d .* use --protocol=holdout or kfold"),
        (
            {"protocol": "covidnet3d", "published": dict.fromkeys(TWENTY[1:], "train")},
            r"1 studies .* \(first: study_0001\)",
        ),
        (
            {"protocol": "covidnet3d", "published": dict.fromkeys(TWENTY, "train")},
            r"--protocol=covidnet3d leaves none of 20 studies to test",
        ),
    ],
)
def test_mistakes_name_the_flag_and_the_remedy(change, message):
    with pytest.raises(UserError, match=message) as caught:
        _assign(TWENTY, ["a"] * 20, **change)
    assert "\n" not in str(caught.value)


def test_too_few_studies_are_refused():
    with pytest.raises(UserError, match=r"--protocol=holdout leaves none of 2 studies to validation"):
        _assign(TWENTY[:2], ["a", "a"])


def test_a_study_that_occurs_twice_is_refused():
    with pytest.raises(UserError, match="study_0003 occurs twice"):
        _assign([*TWENTY[:19], "study_0003"], ["a"] * 20)


@pytest.mark.parametrize(("counts", "num_folds", "message"), [((2, 2), 3, "2 of a"), ((9, 4), 5, "4 of b")])
def test_folds_need_a_study_of_each_label(counts, num_folds, message):
    labels = np.repeat([0, 1], counts)
    parts = {"train": np.arange(len(labels))}
    with pytest.raises(UserError, match=f"needs {num_folds} studies of each label or more.*{message}"):
        check_labels(parts, labels, ("a", "b"), "kfold", num_folds)
    check_labels(parts, labels, ("a", "b"), "holdout", num_folds)


def test_folds_do_not_need_a_label_that_no_study_has():
    check_labels({"train": np.arange(6)}, np.repeat([0, 1], 3), ("a", "b", "of no study"), "kfold", 3)


def test_training_on_one_label_is_refused():
    labels = np.asarray([0, 0, 1, 0])
    with pytest.raises(UserError, match=r"all of one label .all studies: 3 of a, 1 of b.*at least 3 studies of each"):
        check_labels({"train": np.asarray([0, 1, 3])}, labels, ("a", "b"), "holdout", 5)


@st.composite
def cohorts(draw):
    """Studies of patients who have one to six each, at one site or several, of two to four strata."""
    sizes = draw(st.lists(st.sampled_from([1, 1, 1, 2, 2, 3, 6]), min_size=24, max_size=60))
    random = draw(st.randoms(use_true_random=False))
    num_strata, num_sites = draw(st.integers(2, 4)), draw(st.integers(2, 4))
    changing = draw(st.sampled_from([0, 0.1]))  # share of the studies that are of another stratum or site
    rows = []
    for patient, size in enumerate(sizes):
        stratum, site = patient % num_strata, patient // num_strata % num_sites
        for _ in range(size):
            moved = random.random() < changing
            rows.append((f"patient {patient}", f"c{random.randrange(num_strata) if moved else stratum}",
                         f"site {random.randrange(num_sites) if moved else site}"))  # fmt: skip
    random.shuffle(rows)
    patients, strata, sites = ([*column] for column in zip(*rows, strict=True))
    return [f"s{number}" for number in range(len(rows))], strata, Known(patients, sites)


def _parts_of(patients, parts):
    found = {}
    for part, rows in parts.items():
        for row in rows:
            found.setdefault(patients[row], set()).add(part)
    return found


@settings(deadline=None, max_examples=25)
@given(cohorts(), st.integers(0, 2**31))
def test_no_patient_is_in_two_parts_under_any_protocol(cohort, seed):
    ids, strata, known = cohort
    num_sites, patients = len({*known.sites}), [*dict.fromkeys(known.patients)]
    folds = [patients.index(patient) % 4 for patient in known.patients]
    splits = [("train", "train", "test")[patients.index(patient) % 3] for patient in known.patients]
    for protocol, num_folds, told in (
        ("holdout", 5, known), ("kfold", 4, known), ("leave_one_site_out", num_sites, known),
        ("table", 4, known._replace(folds=folds)), ("table", 5, known._replace(splits=splits)),
    ):  # fmt: skip
        fold = 0 if told.splits else seed % num_folds
        parts = _assign(ids, strata, protocol, seed=seed, num_folds=num_folds, fold=fold, known=told)
        assert all(len(its) == 1 for its in _parts_of(known.patients, parts).values()), protocol
        used = np.concatenate([parts[part] for part in PARTS])
        assert len({*used.tolist()}) == len(used)
        left_out = {*range(len(ids))} - {*used.tolist()}
        tested = {known.patients[row] for row in parts["test"]}
        assert protocol == "leave_one_site_out" or not left_out
        assert {known.patients[row] for row in left_out} <= tested
        if protocol == "leave_one_site_out":
            assert len({known.sites[row] for row in parts["test"]}) == 1
            assert {known.sites[row] for row in parts["test"]}.isdisjoint(
                known.sites[row] for part in ("train", "validation") for row in parts[part]
            )
        if protocol == "table":
            wanted = {"test"} if told.splits else {fold}
            its = [(told.splits or told.folds)[row] for row in parts["test"]]
            assert {*its} == wanted
    in_fold = assign_folds(ids, strata, known.patients)
    rows_of = {str(fold): [row for row, name in enumerate(ids) if in_fold[name] == fold] for fold in range(10)}
    assert all(len(its) == 1 for its in _parts_of(known.patients, rows_of).values())


@settings(deadline=None, max_examples=25)
@given(cohorts(), st.integers(0, 2**31))
def test_parts_of_patients_have_their_shares_of_studies_and_of_labels(cohort, seed):
    ids, strata, known = cohort
    largest = max(Counter(known.patients).values())
    holdout = _assign(ids, strata, seed=seed, known=known)
    folds = [_assign(ids, strata, "kfold", seed=seed, num_folds=4, fold=fold, known=known)["test"] for fold in range(4)]
    shares = [*zip(holdout.values(), (0.7, 0.1, 0.2), strict=True), *((fold, 0.25) for fold in folds)]
    for rows, share in shares:
        assert abs(len(rows) - share * len(ids)) <= 2 * largest
        for stratum, count in Counter(strata).items():
            assert abs(sum(strata[row] == stratum for row in rows) - share * count) <= 1.5 * largest
            groups = {known.patients[row] for row in range(len(ids)) if strata[row] == stratum}
            assert len(groups) < 4 or any(strata[row] == stratum for row in rows)


@settings(deadline=None, max_examples=15)
@given(data_sets(smallest_stratum=3), st.integers(0, 2**31), st.sampled_from(["holdout", "kfold"]))
def test_patients_with_one_study_each_are_split_as_studies_are(data, seed, protocol):
    ids, strata = data
    plain = _assign(ids, strata, protocol, seed=seed, num_folds=3)
    known = Known(patients=[f"of {name}" if row % 2 else "" for row, name in enumerate(ids)])
    assert split_hash(_assign(ids, strata, protocol, seed=seed, num_folds=3, known=known), ids) == split_hash(
        plain, ids
    )


def test_the_order_of_records_and_another_seed_of_patients():
    ids = [f"s{number}" for number in range(40)]
    strata, patients = [*"ab"] * 20, [str(number // 2 % 18) for number in range(40)]
    order = np.random.default_rng(0).permutation(40).tolist()
    hashes = []
    for seed in range(3):
        parts = _assign(ids, strata, seed=seed, known=Known(patients))
        shuffled = [ids[row] for row in order]
        again = _assign(
            shuffled, [strata[row] for row in order], seed=seed, known=Known([patients[row] for row in order])
        )
        assert split_hash(parts, ids) == split_hash(again, shuffled)
        hashes.append(split_hash(parts, ids))
    assert len({*hashes}) == 3


@pytest.mark.parametrize(
    ("protocol", "num_folds", "fold", "known", "message"),
    [
        ("leave_one_site_out", 5, 0, Known(), "of 20 of 20 studies the site is not known .*column site"),
        ("leave_one_site_out", 5, 0, Known(sites=["x"] * 19 + [""]), "of 1 of 20 studies .*study_0020"),
        ("leave_one_site_out", 5, 0, Known(sites=[*"xy"] * 10), "the 2 sites are 0 x, 1 y: give --num_folds=2"),
        ("leave_one_site_out", 2, 2, Known(sites=[*"xy"] * 10), "--fold=2: the 2 sites"),
        ("leave_one_site_out", 2, 0, Known(sites=["x"] * 20), "it needs two or more"),
        ("table", 5, 0, Known(), "needs --dataset=ct_table"),
        ("table", 5, 1, Known(splits=["train", "test"] * 10), "leave --fold out"),
        ("table", 5, 0, Known(folds=[1, 2, 3, 4] * 5), "the folds 1, 2, 3, 4: give --num_folds=4"),
        ("table", 2, 0, Known(folds=[0, 1] * 10), "it needs three or more"),
        ("table", 5, 0, Known(splits=["train"] * 20), "leaves none of 20 studies to test"),
        ("table", 5, 0, Known(patients=["p"] * 20, splits=["train", "test"] * 10), "study_0001 .*0002 .*one patient"),
    ],
)  # fmt: skip
def test_protocols_that_the_studies_do_not_fit_are_refused(protocol, num_folds, fold, known, message):
    with pytest.raises(UserError, match=message):
        _assign(TWENTY, [*"ab"] * 10, protocol, num_folds=num_folds, fold=fold, known=known)


@pytest.mark.parametrize(
    ("protocol", "part", "remedy"),
    [
        ("holdout", "validation", "give at least 3 studies of each"),
        ("table", "test", "give at least 3 studies of each"),
        ("leave_one_site_out", "test", "the same name in the table"),
    ],
)
def test_a_part_without_one_of_the_labels_is_refused(protocol, part, remedy):
    labels = np.asarray([0, 1, 0, 1, 0, 1, 0, 1])
    parts = {"train": np.asarray([0, 1]), "validation": np.asarray([2, 3]), "test": np.asarray([4, 5])}
    check_labels(parts, labels, ("a", "b"), protocol, 5)
    check_labels(parts, labels, ("a", "b", "absent"), protocol, 5)
    parts[part] = parts[part][:1]
    with pytest.raises(UserError, match=f"no study for {part} is of b .all studies: 4 of a, 4 of b.*{remedy}"):
        check_labels(parts, labels, ("a", "b"), protocol, 5)


def test_folds_of_a_table_that_begin_with_1_are_named(caplog):
    ids = [f"study_{number:04d}" for number in range(20)]
    for first, told in ((0, False), (1, True)):
        folds = [first + number % 5 for number in range(20)]
        parts = _assign(ids, ["a"] * 20, "table", num_folds=5, fold=1, known=Known(folds=folds))
        assert {folds[row] for row in parts["test"]} == {first + 1}
        assert ("--fold=1 tests the studies of fold 2 in the table" in caplog.text) == told


def test_numbers_that_do_not_differ_cannot_train_or_choose():
    parts = {"train": np.arange(6), "validation": np.array([6, 7]), "test": np.array([8])}
    values = np.arange(9.0)
    check_values(parts, values, "holdout")
    for part in ("train", "validation"):
        same = values.copy()
        same[parts[part]] = 1.0
        with pytest.raises(UserError, match=f"studies for {part} are all the same number"):
            check_values(parts, same, "holdout")
    for numbers, reason in (
        (values * 1e-8, "of which reports with three decimals would show little"),
        (values * 1e-2 + 20260101, "which float32 hardly tells beside their size"),
        (values * 1e300, "which is too much for float32"),
        (values * 1e40, "which is too much for float32"),
    ):
        with pytest.raises(UserError, match=f"standard deviation of \\S+, {reason}: give them in another unit"):
            check_values(parts, numbers, "holdout")


def test_each_part_needs_studies_with_and_without_each_label():
    parts = {"train": np.arange(4), "validation": np.array([4, 5]), "test": np.array([6, 7])}
    values = np.array([[1, 0], [0, 1]] * 4)
    check_sets(parts, values, ("a", "b"), "holdout")
    for number in (0, 1):
        changed = values.copy()
        changed[6:, 1] = number
        with pytest.raises(UserError, match=f"{2 * number} of 2 studies for test have the label b"):
            check_sets(parts, changed, ("a", "b"), "holdout")
