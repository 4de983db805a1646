"""Records of a table's studies: formats, masks, patients, and tables that were changed."""

import json
import shutil

import numpy as np
import pytest

from tests.support.chest import SHAPE, chest, dicom_slice, write_nifti, write_series
from tests.support.small_builds import small_builder
from tfds_mosmed.building.dicom_patients import add_patients
from tfds_mosmed.building.grid_config import GridConfig
from tfds_mosmed.building.index import Listed
from tfds_mosmed.building.patients import tell_apart
from tfds_mosmed.ct_folder.study_folder import list_studies
from tfds_mosmed.ct_table.ct_table_dataset_builder import Builder
from tfds_mosmed.errors import UserError
from tfds_mosmed.scans.acquisition import pseudonym

TABLE = """path;label;patient;site;split;mask;weight;Age
a/one.nii.gz;covid;Doe, Jane;Rome;train;masks/one.nii.gz;0,5;63
a\\dicom;normal;Roe;Rome;test;;1;41
two.zip;normal;doe,  jane;Bern;train;;2;
"""


def _builder(data_dir):
    return Builder(config=GridConfig(name="16x20x10", grid="16x20x10"), data_dir=data_dir)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A NIfTI study with a mask, a DICOM study and a .zip of one, their table, and their records."""
    folder = tmp_path_factory.mktemp("cohort")
    root = folder / "root"
    write_nifti(root / "a/one.nii.gz", chest(0))
    mask = np.zeros(SHAPE, np.int16)
    mask[10:14, 30:40, 30:36] = 1
    write_nifti(root / "masks/one.nii.gz", mask)
    write_series(root / "a/dicom", chest(1))
    write_series(folder / "packed", chest(2), PatientID="SECRET-2")
    shutil.make_archive(str(root / "two"), "zip", folder / "packed")
    (folder / "studies.csv").write_text(TABLE)
    _builder(folder / "data").prepare(root, workers=1, table=folder / "studies.csv")
    return folder


def test_a_table_is_in_the_records_without_the_names_of_patients(cohort):
    builder = _builder(cohort / "data")
    index, records = builder.index(), builder.open_records()
    row = {study_id: number for number, study_id in enumerate(index.study_id)}
    assert {name: index.category[number] for name, number in row.items()} == {
        "a/one": "covid", "a/dicom": "normal", "two": "normal",
    }  # fmt: skip
    patients = index.patients()
    assert patients[row["a/one"]] == patients[row["two"]] != patients[row["a/dicom"]]
    assert index.sites()[row["two"]] == "Bern"
    assert index.listed == {
        "a/one": Listed("train", None, 0.5, {"Age": "63"}), "a/dicom": Listed("test", None, 1.0, {"Age": "41"}),
        "two": Listed("train", None, 2.0, {}),
    }  # fmt: skip
    assert records[row["a/one"]]["lesion_mask"].any()
    assert records[row["a/one"]]["fold"] == records[row["two"]]["fold"]
    assert not index.has_lesion_mask[row["two"]]
    for path in (cohort / "data").rglob("*.json"):
        assert not any(name in path.read_text().lower() for name in ("jane", "roe", "secret", "planted"))


CHANGES = {
    "weight": (TABLE.replace("0,5", "0,6"), "1 changed: a/one"),
    "label": (TABLE.replace("normal;Roe", "covid;Roe"), "1 changed: a/dicom"),
    "patient": (TABLE.replace("Roe", "Poe"), "1 changed: a/dicom"),
    "split": (TABLE.replace("test", "validation"), "1 changed: a/dicom"),
    "subgroup": (TABLE.replace("63", "64"), "1 changed: a/one"),
    "mask": (TABLE.replace("masks/one.nii.gz", ""), "1 changed: a/one"),
    "row": (TABLE.rpartition("two.zip")[0], "1 missing: two"),
}


@pytest.mark.parametrize(("text", "change"), CHANGES.values(), ids=CHANGES)
def test_a_changed_table_is_not_used_silently(cohort, tmp_path, text, change):
    table = tmp_path / "studies.csv"
    table.write_text(text)
    with pytest.raises(UserError) as caught:
        _builder(cohort / "data").prepare(cohort / "root", table=table)
    message = str(caught.value)
    assert change in message
    assert f"--table={table}" in message
    assert "python -m covidscan.build --dataset=ct_table/16x20x10" in message
    assert message.endswith(f"--manual_dir={cohort / 'root'} --table={table} --update")


def test_a_table_that_tells_the_same_is_the_same(cohort, tmp_path):
    table = tmp_path / "other.csv"
    header, *rows = TABLE.replace(";", "\t").replace("0,5", "0.50").splitlines()
    table.write_text("\r\n".join([header, *rows[::-1], "", ""]))
    builder = _builder(cohort / "data")
    builder.prepare(cohort / "root", table=table)
    builder.prepare()  # records are used as they are
    assert len(builder.fingerprint()) == 64


def test_what_is_missing_beside_a_table_is_named(cohort, tmp_path):
    builder = _builder(tmp_path / "data")
    with pytest.raises(UserError, match=r"--table=x\.csv: needs --manual_dir=ROOT"):
        builder.prepare(table="x.csv")
    with pytest.raises(UserError, match=r"--dataset=ct_table/16x20x10 needs --table=FILE"):
        builder.prepare(cohort / "root")
    table = tmp_path / "studies.csv"
    table.write_text("path,label\na/one.nii.gz,\na/none.nii,x\n")
    with pytest.raises(UserError, match=r"2 mistakes: line 2, column label: is empty; line 3, column path: is 'a/none"):
        builder.prepare(cohort / "root", table=table)
    table.write_text("path,age\na/one.nii.gz,1\n")
    with pytest.raises(UserError, match="has no column label"):
        builder.prepare(cohort / "root", table=table)
    with pytest.raises(UserError, match=r"--table=x\.csv: needs --dataset=ct_table"):
        small_builder(tmp_path).prepare(cohort / "root", table="x.csv")


def test_what_a_table_told_is_checked_when_records_are_read(cohort, tmp_path):
    shutil.copytree(cohort / "data", tmp_path / "data")
    path = _builder(tmp_path / "data").data_path / "metadata.json"
    for damage in ({"weight": -1}, {"weight": "1"}, {"fold": "0"}, {"groups": {"a": 1}}, {"other": 1}):
        content = json.loads((cohort / "data" / path.relative_to(tmp_path / "data")).read_text())
        content["index"][0]["listed"] |= damage
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"metadata.json: is not as the build wrote it"):
            _builder(tmp_path / "data").index()


def _few_slices(folder, **tags):
    folder.mkdir(parents=True)
    for index in range(2):
        dicom_slice(np.zeros((8, 8)), index, **tags).save_as(folder / f"{index}.dcm", enforce_file_format=True)


def test_patients_of_a_folder_are_told_by_header_or_by_folder(tmp_path):
    root = tmp_path / "root"
    _few_slices(root / "covid/x/s1", PatientID="A^1", StudyInstanceUID="1.1")
    _few_slices(root / "covid/y/s2", PatientID="a 1", StudyInstanceUID="1.2")
    _few_slices(root / "covid/s3", PatientID="", StudyInstanceUID="1.3")
    (root / "covid/z").mkdir()
    for name in ("covid/z/s4.nii", "covid/z/s5.nii.gz", "covid/s6.nii", "covid/y/s7.nii"):
        (root / name).touch()
    _few_slices(tmp_path / "packed", PatientID="A 1")
    shutil.make_archive(str(root / "covid/s8"), "zip", tmp_path / "packed")
    patients = {study.study_id[6:]: study.patient for study in add_patients(list_studies(root)[0])}
    a1 = pseudonym("patient", "A 1")
    assert {name for name, patient in patients.items() if patient == a1} == {"x/s1", "y/s2", "y/s7", "s8"}
    assert patients["z/s4"] == patients["z/s5"] == pseudonym("patient", "z")
    assert patients["s3"] == patients["s6"] == ""


def test_an_id_that_an_anonymiser_gave_to_all_does_not_hide_the_folder_of_a_patient(tmp_path):
    for number, study in enumerate(("P1/a", "P1/b", "P2/c")):
        _few_slices(tmp_path / "covid" / study, PatientID="X-0", StudyInstanceUID=f"1.{number}")
    patients = [study.patient for study in add_patients(list_studies(tmp_path)[0])]
    assert patients == [pseudonym("patient", name) for name in ("P1", "P1", "P2")]


def test_patients_of_files_without_preamble_and_beside_a_dicomdir_are_told(tmp_path):
    for number, patient in enumerate(("A 1", "B 2")):
        _few_slices(tmp_path / f"covid/site/s{number}", PatientID=patient, StudyInstanceUID=f"1.{number}")
    for file in (tmp_path / "covid/site/s0").iterdir():
        file.write_bytes(file.read_bytes()[132:])
    index = dicom_slice(np.zeros((8, 8)), 0)
    del index.PatientID
    index.save_as(tmp_path / "covid/site/s1/DICOMDIR", enforce_file_format=True)
    patients = [study.patient for study in add_patients(list_studies(tmp_path)[0])]
    assert patients == [pseudonym("patient", name) for name in ("A 1", "B 2")]


def test_a_folder_with_more_studies_than_a_patient_has_is_told(tmp_path, caplog):
    for count, folder in ((10, "normal/P1"), (11, "covid/clinic")):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(count):
            (tmp_path / folder / f"s{number:02d}.nii").touch()
    add_patients(list_studies(tmp_path)[0])
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("covid/clinic/s00 and 10 more in its folder have no PatientID")


def test_ids_that_anonymisers_give_to_all_tell_nobody():
    assert tell_apart([*(pseudonym("patient", name) for name in ("unknown", "Unknown", "n/a")), "b"]) == [
        "",
        "",
        "",
        "b",
    ]
    assert tell_apart(["a", "a", "b", ""]) == ["a", "a", "b", ""]
    assert tell_apart(["a", "a"]) == ["", ""]
    assert tell_apart([pseudonym("patient", "ANONYMOUS"), "b", "c"]) == ["", "b", "c"]
    assert tell_apart(["a"]) == ["a"]
    assert tell_apart([]) == []
