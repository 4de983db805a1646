"""Rows of an output folder: what was written is read back, what was cut is predicted again."""

import contextlib
import dataclasses
import os
import re

import pytest

from covidscan.data.domain_shift import Flag
from covidscan.prediction.prediction import Prediction, csv_header
from covidscan.prediction.rows import RowsInFolder, file_of, rows_in_folder
from covidscan.trained_models.model_info import ModelInfo
from tfds_mosmed.errors import UserError
from tfds_mosmed.scans.find import Found

LABELS = ("negative", "positive")
INFO = ModelInfo("binary", LABELS, 0.5, (1.0,), "32x32x16", ((-600, 1500),), "ct_phantom/tiny", "", None)
STUDIES = [
    Found(f"typed#{n}", os.fsdecode(name)) for n, name in enumerate([b"/a/=1+1.nii", b'/a/\xff\n,"x.nii', b"/a/c"])
]


def predictions():
    """A row of each kind: with an explanation, with a hostile name, with an error."""
    plain = Prediction(
        path="typed#0",
        probability=0.25,
        decision="negative",
        probabilities={"negative": 0.75, "positive": 0.25},
        flags=(Flag("kernel", "noise of 9 HU; much", "training studies 1 to 2"), Flag("no_lungs", "none")),
        seen={},
        warnings=("a\nb",),
        seconds=1.0,
        threshold=0.5,
        model="0123456789ab",
    )
    changes = [
        {"files": ("0001.html", "0001.png")},
        {"flags": (), "warnings": ()},
        {"probability": None, "decision": None, "probabilities": {}, "flags": (), "error": "typed#2: broken"},
    ]
    return [
        dataclasses.replace(plain, path=study.name, number=number, file=file_of(study), **change)
        for number, (study, change) in enumerate(zip(STUDIES, changes, strict=True), 1)
    ]


@contextlib.contextmanager
def refused(*words):
    with pytest.raises(UserError) as error:
        yield
    assert "\n" not in str(error.value)
    assert not [word for word in words if word not in str(error.value)], str(error.value)


def add(folder, as_json, given, model="0123456789ab", header=None):
    rows = RowsInFolder(folder, as_json)
    with rows.adding([], model, header or csv_header(INFO)) as file:
        for prediction in given:
            print(prediction.to_json() if as_json else prediction.to_csv(LABELS), file=file)
    return rows.path


@pytest.mark.parametrize("as_json", [False, True])
def test_rows_read_back(as_json, tmp_path):
    add(tmp_path, as_json, predictions())
    for name in ("0001.html", "0001.png"):
        (tmp_path / name).touch()
    rows = RowsInFolder(tmp_path, as_json)
    for row, given in zip(rows.rows, predictions(), strict=True):
        for name in (
            "number",
            "file",
            "model",
            "probability",
            "decision",
            "probabilities",
            "threshold",
            "files",
            "error",
        ):
            assert getattr(row, name) == getattr(given, name), name
        assert row.flags == "; ".join(map(str, given.flags))
    assert [rows.has(study, []) for study in STUDIES] == [True, True, False]
    assert [rows.has(study, [".html"]) for study in STUDIES] == [True, False, False]
    assert not rows.has(STUDIES[0], [".html", "_lungs.json"])
    (tmp_path / "0001.png").unlink()
    assert not rows.has(STUDIES[0], [".html"])


@pytest.mark.parametrize("as_json", [False, True])
def test_a_row_that_was_cut_anywhere_is_missing_and_the_others_stay(as_json, tmp_path):
    path = add(tmp_path, as_json, predictions()[:1])
    first = path.read_bytes()
    whole = add(tmp_path, as_json, predictions()[1:2]).read_bytes()
    for size in range(0, len(whole), 5):
        path.write_bytes(whole[:size])
        assert len(RowsInFolder(tmp_path, as_json).rows) == (size >= len(first)), size
    path.write_bytes(whole[:-5])
    assert add(tmp_path, as_json, predictions()[1:2]).read_bytes() == whole


def test_a_study_keeps_its_number_and_a_new_one_takes_the_next(tmp_path):
    add(tmp_path, True, predictions())
    rows = RowsInFolder(tmp_path, True)
    with rows.adding(STUDIES[2:], "0123456789ab", ""):
        pass
    assert [rows.number(Found("", name)) for name in ("/a/c", "/a/new", "/a/c", "/a/=1+1.nii")] == [3, 4, 3, 1]
    rows.read()
    assert [row.number for row in rows.rows] == [1, 2]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_row_is_of_the_files_that_it_was_predicted_from(as_json, tmp_path):
    path, image = tmp_path / "series", tmp_path / "series" / "1.dcm"
    path.mkdir()
    image.write_bytes(b"one")
    study, out = Found("typed", path), tmp_path / "out"
    out.mkdir()

    def write(files=()):
        rows = RowsInFolder(out, as_json)
        one = predictions()[1]
        of_file = {"number": rows.number(study), "file": file_of(study), "source": rows.source(study), "files": files}
        add(out, as_json, [dataclasses.replace(one, **of_file)])
        for name in files:
            (out / name).touch()
        return RowsInFolder(out, as_json)

    rows = write()
    assert rows.has(study, [])
    os.utime(image, ns=(0, 0))  # the content is another one, its size and the names are the same
    for change in (lambda: image.write_bytes(b"two"), lambda: (path / "2.dcm").touch(), (path / "2.dcm").unlink):
        change()
        rows = RowsInFolder(out, as_json)
        assert not rows.has(study, [])
        assert rows.number(study) == 1
        write()
    rows = write(("0001.html",))
    assert rows.files(study) == ("0001.html",)
    image.write_bytes(b"six")
    rows = RowsInFolder(out, as_json)
    # What shows the earlier scan is not taken for that of the one which is there now.
    assert (rows.files(study), rows.number(study), rows.number(Found("", tmp_path / "new"))) == ((), 2, 3)
    stored = r', "source": "[\w+]+"' if as_json else r",(source|[0-9a-f]{12}\+[0-9a-f]{6})$"
    rows.path.write_text(re.sub(stored, "", rows.path.read_text(), flags=re.MULTILINE))
    rows = RowsInFolder(out, as_json)
    assert rows.has(study, []), "earlier versions did not store it"
    with rows.adding([], "0123456789ab", csv_header(INFO)):
        pass
    assert RowsInFolder(out, as_json).has(study, [])


def test_rows_that_another_version_prepared_are_counted(tmp_path, monkeypatch):
    scan = tmp_path / "scan.nii"
    scan.write_bytes(b"one")
    study = Found("typed", scan)

    def read():
        rows = RowsInFolder(tmp_path, True)
        assert rows.has(study, []) == bool(rows.rows)
        return rows

    rows = read()
    source = rows.source(study)
    add(tmp_path, True, [dataclasses.replace(predictions()[0], number=1, file=file_of(study), source=source)])
    assert (read().num_of_other_versions([study]), read().num_of_other_versions([Found("new", "/a/new")])) == (0, 0)
    monkeypatch.setattr("covidscan.prediction.rows.preparation_sha256", lambda: "0123456789")
    assert read().num_of_other_versions([study]) == 1


def test_rows_of_another_model_or_form_are_refused(tmp_path):
    path = add(tmp_path, False, predictions())
    written = path.read_bytes()
    other = csv_header(dataclasses.replace(INFO, label_names=("a", "b")))
    for change in ({"model": "0123456789ab+tta"}, {"header": other}):
        with refused("--output_dir", path.name):
            add(tmp_path, False, [], **change)
    with refused("--output_dir", "--format=csv"):
        add(tmp_path, True, [])
    assert path.read_bytes() == written
    for damaged in (b"study,label\n1,0\n", written.replace(b"0.25", b"x"), b"\x00\n", written + b"1,2\n"):
        path.write_bytes(damaged)
        with refused("--output_dir", path.name):
            add(tmp_path, False, [])
    path.unlink()
    (tmp_path / "predictions.jsonl").write_text("[]\n")
    with refused("--output_dir", "predictions.jsonl"):
        add(tmp_path, True, [])


def test_one_process_at_a_time_adds_rows(tmp_path):
    with rows_in_folder(tmp_path, True), refused("another process"), rows_in_folder(tmp_path, True):
        pass
    with rows_in_folder(tmp_path, True):
        pass
