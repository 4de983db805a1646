"""The checklists as a reviewer gets them: every item once, filled where the run has it, and never more than that."""

import re
from importlib import resources

import pytest

from covidscan.report import checklist
from tests.support.loaded import load
from tests.support.reported import context, result


def _numbers(text):
    return text.split()


# Tejani et al. 2024, table; Collins et al. 2024, table 2.
CLAIM = [str(number) for number in range(1, 45)]
TRIPOD = _numbers(
    "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 16 17 "
    "18a 18b 18c 18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c"
)
# Written by people, whatever a run did.
NEVER_BY_A_RUN = {
    "CLAIM 2024": _numbers("1 2 3 4 6 13 15 18 31 34 41 44"),
    "TRIPOD+AI": _numbers("1 2 3a 3b 3c 4 6b 6c 8b 8c 14 17 18a 18b 18c 18d 19 25 27a 27b 27c"),
}
PHANTOM = "ct_phantom/demo"


def _text(evaluated=None, **changes):
    return checklist.render_checklist(*load(evaluated or result(), context(**changes)))


def _items(text):
    """Checklist -> number -> cell, in the order of the page."""
    items = {}
    for part in text.split("\n## ")[1:]:
        rows = re.findall(r"^\| (\d+[a-g]?) \| .*? \| (.*?) \| [^|]* \|$", part, re.MULTILINE)
        assert len(rows) == len(dict(rows)) == part.count("\n| ") - part.count("\n| |")
        items[part.splitlines()[0]] = dict(rows)
    return items


def _missing(text):
    found = _items(text)
    return {name: [n for n, cell in cells.items() if cell == "**NOT REPORTED**"] for name, cells in found.items()}


def _reported(number, evaluated=None, *, of="CLAIM 2024", **changes):
    return _items(_text(evaluated, **changes))[of][number]


def test_every_item_appears_once_and_in_order():
    found = _items(_text())
    assert list(found["CLAIM 2024"]) == CLAIM
    assert list(found["TRIPOD+AI"]) == TRIPOD
    assert (
        [checklist.read_checklist(name)["total"] for name in checklist.CHECKLISTS]
        == [44, 52]
        == [
            len(CLAIM),
            len(TRIPOD),
        ]
    )


def test_the_sections_are_those_of_the_papers():
    claim, tripod = (
        [(s["name"], s["item"][0]["number"]) for s in checklist.read_checklist(name)["section"]]
        for name in checklist.CHECKLISTS
    )
    assert [number for _, number in claim] == _numbers("1 3 5 7 14 19 21 22 25 28 35 37 40 42")
    assert dict(tripod) == {
        "Title": "1",
        "Abstract": "2",
        "Introduction": "3a",
        "Methods": "5a",
        "Open science": "18a",
        "Patient and public involvement": "19",
        "Results": "20a",
        "Discussion": "25",
    }


@pytest.mark.parametrize("evaluated", [result(), result(calibration=None, subgroups=[], smallest_difference=None)])
def test_the_counts_at_the_top_are_those_of_the_tables(evaluated):
    text = _text(evaluated)
    for name, numbers in _missing(text).items():
        total = {"CLAIM 2024": 44, "TRIPOD+AI": 52}[name]
        filled = total - len(numbers)
        assert f"- {name}: {filled} of {total} filled by this run; {len(numbers)} NOT REPORTED" in text


@pytest.mark.parametrize("trained_on", [PHANTOM, "mosmed/128x128x32", "ct_folder/128x128x32"])
@pytest.mark.parametrize("dataset", [PHANTOM, "mosmed/128x128x32", "ct_folder/128x128x32"])
def test_what_people_must_write_is_never_claimed(dataset, trained_on):
    text = _text(dataset=dataset, trained_on=trained_on)
    missing = _missing(text)
    for name, numbers in NEVER_BY_A_RUN.items():
        assert set(numbers) <= set(missing[name])
    assert "validated" not in text.lower()
    assert "ground truth" not in text.lower()
    assert "None" not in re.sub(r"None(:| by design| was needed)", "", text)
    assert not re.search(r"[{}]|[^|] {2}[^|]|\.\.", text)


def test_both_papers_are_cited():
    text = _text()
    assert "https://doi.org/10.1148/ryai.240300" in text
    assert "https://doi.org/10.1136/bmj-2023-078378" in text


def test_the_banners_come_first():
    text = _text(dataset=PHANTOM, trained_on=PHANTOM)
    assert text.index("Phantom data") < text.index("No external test") < text.index("CLAIM 2024")
    external = _text(dataset="mosmed/128x128x32", trained_on=PHANTOM)
    assert "The network was trained on synthetic chests" in external[: external.index("CLAIM 2024")]
    assert "No external test" not in external


def test_a_test_is_internal_or_external_or_neither():
    inside = {"dataset": "mosmed/128x128x32"}
    outside = {"dataset": "ct_folder/128x128x32"}
    assert "331 studies of the test part" in _reported("32", **inside)
    assert _reported("33", **inside) == "**NOT REPORTED**"
    assert _reported("32", **outside) == "**NOT REPORTED**"
    assert "External test" in _reported("33", **outside)
    assert _reported("16", of="TRIPOD+AI", **outside) == "**NOT REPORTED**"
    for part in ("train", "validation"):
        assert _reported("32", part=part) == _reported("33", part=part) == "**NOT REPORTED**"


def test_accesses_to_the_test_part_are_counted():
    access = context()["test_openings"][0]
    assert "evaluated once" in _reported("32")
    again = [access, {**access, "date": "2026-02-01"}]
    assert "evaluated 2 times. Dates: 2026-01-31T12:00:00+00:00, 2026-02-01." in _reported("32", test_openings=again)
    assert "evaluated 2 times" in _reported("40", test_openings=again)
    assert "test studies were evaluated" not in _reported("40")


@pytest.mark.parametrize(
    ("change", "missing", "absent"),
    [
        ({"calibration": None}, {"TRIPOD+AI": ["12f", "24"]}, "slope|Brier"),
        ({"smallest_difference": None}, {"CLAIM 2024": ["21"], "TRIPOD+AI": ["10"]}, "AUROC difference of"),
        ({"subgroups": [], "repeats": None}, {"CLAIM 2024": ["30"]}, "By category"),
        ({"failures": []}, {"CLAIM 2024": ["39"]}, "study_0300"),
        ({"comparison": None}, {}, "McNemar|runs/other|[Tt]ests between"),
        ({"decision_curve": None}, {}, "Decision curve"),
        ({"repeats": None}, {}, "folds"),
        ({"baselines": []}, {}, "slices and spacing"),
        ({"shortcuts": []}, {}, "Shortcut"),
    ],
)
def test_what_was_not_done_is_not_reported(change, missing, absent):
    whole, less = _text(), _text(result(**change))
    assert re.search(absent, whole)
    assert not re.search(absent, less)
    for name, numbers in _missing(less).items():
        assert sorted(set(numbers) - set(_missing(whole)[name])) == missing.get(name, [])


def test_no_interval_is_claimed_where_there_is_none():
    figures = {"accuracy": {"value": 0.861, "interval": None, "method": None, "baseline": 0.77}}
    bare = result(figures=figures, comparison=None, repeats=None)
    assert _reported("29", bare) == "**NOT REPORTED**"


def test_a_temperature_of_one_is_no_recalibration():
    evaluated = result(operating_point={**result()["operating_point"], "temperature": 1.0})
    assert (
        _reported("12f", evaluated, of="TRIPOD+AI") == _reported("24", evaluated, of="TRIPOD+AI") == "**NOT REPORTED**"
    )
    assert "No recalibration" in _reported("13", evaluated, of="TRIPOD+AI")


def test_the_reference_standard_is_the_data_sets():
    assert "no PCR" in _reported("14")
    assert "By construction" in _reported("14", dataset=PHANTOM, trained_on=PHANTOM)
    both = _reported("14", trained_on=PHANTOM)
    assert "Phantoms: By construction" in both
    assert "MosMedData: The data set's categories" in both
    assert _reported("14", dataset="ct_folder/64x64x32") == "**NOT REPORTED**"
    assert _reported("16") == _reported("17") == "**NOT REPORTED**"


def test_people_and_clusters_come_from_the_metadata():
    def by(name):
        figures = {"sensitivity": {"value": 0.88, "interval": [0.83, 0.92]}}
        groups = [{"name": "a", "num_studies": 203, "num_positive": 9, "figures": figures}]
        return result(subgroups=[{"by": name, "groups": groups}])

    assert "a (203 studies)" in _reported("36", by("patient_sex"))
    assert _reported("36", by("percentage")) == "**NOT REPORTED**"
    assert "a (203 studies)" in _reported("23b", by("Scanner"), of="TRIPOD+AI")
    assert _reported("23b", by("patient_sex"), of="TRIPOD+AI") == "**NOT REPORTED**"


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("best", "highest AUROC on the validation studies, or the newest where none is defined"),
        ("latest", "last"),
        ("800", "given by the user"),
    ],
)
def test_the_choice_of_the_checkpoint_is_reported(choice, words):
    assert words in _reported("26", checkpoint_choice=choice)


def test_an_ensemble_is_described():
    assert _reported("27") == "No ensemble: one network."
    ensemble = {"arrangement": "ensemble", "num_members": 5, "dataset": "ct_folder/128x128x32"}
    assert _reported("27", **ensemble) == "5 networks; their probabilities are averaged."
    assert "each of the 5 networks" in _reported("26", **ensemble)
    config = {**context()["config"], "protocol": "kfold", "fold": 0}
    assert "fold 0" not in _reported("19", **ensemble, config=config)
    assert "fold 0" in _reported("19", config=config)


@pytest.mark.parametrize(
    ("changed", "number", "words"),
    [
        ({"init_from": "runs/first"}, "24", "those of runs/first, the others random, seed 0. No study of"),
        ({"init_from": None}, "24", "Random, seed 0. No parameters of another training."),
        ({"protocol": "covidnet3d_cv", "num_folds": 4}, "19", "dealt to 4 folds, one validates"),
        ({"gamma": 0.25}, "25", "power of up to e^0.25"),
        ({"cutmix": 0.5}, "25", "CutMix with probability 0.5"),
        ({"model": "lung_resnet", "size": "base"}, "22", "lung_resnet (size base, width"),
        ({"model": "mynet:Net"}, "22", "every layer is in the user's own module mynet:Net."),
        ({"model": "mynet:Net"}, "43", "Code: the user's own module mynet:Net."),
    ],
)
def test_the_runs_own_settings_are_reported(changed, number, words):
    config = {**context()["config"], **changed}
    assert words in _reported(number, config=config)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("ct_folder/128x128x32", "The bounding box of both lungs"),
        ("ct_folder/128x128x32_full@1a2b3c4d", "The whole field of view"),
        ("ct_folder/128x128x32_fixed", "A box of 384 x 384 x 320 mm (rows x columns x slices)"),
    ],
)
def test_the_field_of_the_grid_is_reported(dataset, words):
    assert words in _reported("10", dataset=dataset)


def test_the_settings_of_each_network_of_an_ensemble_are_named():
    used = {"model": "lung_resnet", "num_parameters": 3, "checkpoint": 1}
    networks = [{"workdir": f"runs/{name}", **used} for name in "ab"]
    ensemble = _reported("42", arrangement="ensemble", num_members=2, networks=networks)
    assert "config.json in runs/a, runs/b have all settings" in ensemble
    pooled = _reported("42", arrangement="out_of_fold", num_members=2, networks=networks)
    assert "cross_validation.json has all settings" in pooled


@pytest.mark.parametrize("part", ["test", "validation", "train"])
def test_parts_that_are_not_known_break_no_checklist(part):
    counts = {"test": {"negative": 76, "positive": 255}}
    assert _reported("20c", of="TRIPOD+AI", part=part, counts=counts) == "**NOT REPORTED**"
    assert "Training:" not in _reported("21", of="TRIPOD+AI", part=part, counts=counts)
    empty = {"train": {"negative": 0, "positive": 0}, **counts}
    assert _reported("20c", of="TRIPOD+AI", part=part, counts=empty) == "**NOT REPORTED**"


def test_an_external_checklist_has_the_split_that_trained():
    assert f"Split of the training {'7b' * 32}." in _reported("19", trained_on="ct_folder/128x128x32")
    assert "7b" * 32 not in _text()


def test_cells_have_the_runs_numbers():
    assert "5a" * 32 in _reported("19")
    assert "779/331" in _reported("19")
    assert "1,234,567" in _reported("22")
    assert "jax 0.10.2" in _reported("23")
    assert "1111 studies found, 1 left out" in _reported("35")
    assert "76 negative, 255 positive" in _reported("35")
    assert "Specificity 0.724 (0.614 to 0.812)" in _reported("38")
    assert "46 studies were predicted wrongly" in _reported("39")  # 21 + 25 of the confusion matrix
    assert "train 22.9% negative, 77.1% positive" in _reported("20c", of="TRIPOD+AI")  # 156 of 682


def test_file_names_stay_in_their_cell():
    cell = _reported("35", skipped=[("a|b<script>.nii", "two\nlines | here")])
    assert "a\\|b&lt;script>.nii: two lines \\| here" in cell


def test_severity_and_classes_have_no_binary_metrics_of_their_own():
    figures = {"accuracy": {"value": 0.6, "interval": [0.5, 0.7], "method": "Wilson", "baseline": 0.5}}
    classes = result(task="classes", threshold=None, decision_curve=None, figures=figures)
    assert "Sensitivity of each label: negative 0.724" in _reported("38", classes)
    assert "likeliest label" in _reported("15", classes, of="TRIPOD+AI")
    graded = result(
        task="severity",
        figures=figures,
        disease={
            "baseline": "always positive",
            "figures": result()["figures"],
            "confusion_matrix": [[55, 21], [25, 230]],
        },
    )
    assert "Specificity 0.724" in _reported("38", graded)
    assert "Ordered grades" in _reported("8a", graded, of="TRIPOD+AI")


def test_each_shared_sentence_is_used():
    templates = resources.files("covidscan.report") / "templates"
    sentences, card = ((templates / name).read_text() for name in ("sentences.txt", "model_card.md"))
    answers = [
        item.get("answer", "")
        for name in checklist.CHECKLISTS
        for section in checklist.read_checklist(name)["section"]
        for item in section["item"]
    ]
    used = set(re.findall(r"say\.(\w+)", " ".join([*answers, card])))
    named = set(re.findall(r"macro (\w+)", sentences))
    assert used <= named
    assert all(name in used or len(re.findall(rf"\b{name}\(", sentences)) > 1 for name in named)
