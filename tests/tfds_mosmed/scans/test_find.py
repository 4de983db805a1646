"""Studies found in the paths that a user may type, and their names."""

import logging
import os
import warnings

import pydicom
import pytest

from covidscan.prediction.reading import Reading, Refusal, read_prepared, time_limit
from tests.support.chest import chest, dicom_slice, write_nifti, write_series
from tests.support.dicom_files import write_multi_frame
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.scans import folders
from tfds_mosmed.scans.find import Found, find_studies

HU = chest()
GRID = Grid.parse("16x20x10")


def find(*paths):
    return find_studies([str(path) for path in paths])


def test_a_path_that_is_one_study_has_the_path_as_its_name(tmp_path, monkeypatch):
    write_nifti(tmp_path / "a.nii.gz")
    write_multi_frame(tmp_path / "b.dcm", HU)
    write_series(tmp_path / "c/thin", HU, series="1.2.3.1")
    write_series(tmp_path / "c/thick", HU, series="1.2.3.2")
    write_series(tmp_path / "d", HU, [f"IM{index}" for index in range(28)])
    write_multi_frame(tmp_path / "e/enhanced", HU)
    write_series(tmp_path / "f/patient/study/series", HU)
    monkeypatch.chdir(tmp_path)
    typed = ["a.nii.gz", "./b.dcm", "c", "d/", "e", str(tmp_path / "f")]
    found = find_studies(typed)
    assert [study.name for study in found] == typed
    for study in found:
        assert isinstance(read_prepared(study, GRID), Reading)


def test_names_of_studies_below_a_folder_are_numbers_without_subfolders(tmp_path):
    write_nifti(tmp_path / "in/Planted^Name/a.nii.gz")
    write_nifti(tmp_path / "in/b.nii")
    write_series(tmp_path / "in/c/thin", HU, series="1.2.3.1")
    write_series(tmp_path / "in/c/thick", HU, series="1.2.3.2")
    write_multi_frame(tmp_path / "in/d/one.dcm", HU, StudyInstanceUID="4.5.6")
    write_multi_frame(tmp_path / "in/d/two.dcm", HU, StudyInstanceUID="4.5.7")
    (tmp_path / "in/notes.txt").write_text("not a study")
    (tmp_path / "in/.hidden").mkdir()
    write_nifti(tmp_path / "in/.hidden/e.nii")
    (tmp_path / "in/._b.nii").write_text("left by a Mac")
    root = tmp_path / "in"
    paths = [root / name for name in ("Planted^Name/a.nii.gz", "b.nii", "c", "d/one.dcm", "d/two.dcm")]
    assert find(root) == [Found(f"{root}#{number}", path) for number, path in enumerate(paths, 1)]
    for study in find(root):
        assert read_prepared(study, GRID).name == study.name


def test_a_disc_with_a_dicomdir_is_one_study(tmp_path):
    disc = tmp_path / "disc"
    write_series(disc / "DICOM/S1", HU, [f"IM{index}" for index in range(28)])
    directory = dicom_slice(HU[0], 0)
    directory.file_meta.MediaStorageSOPClassUID = directory.SOPClassUID = "1.2.840.10008.1.3.10"
    del directory.StudyInstanceUID
    directory.save_as(disc / "DICOMDIR", enforce_file_format=True)
    (study,) = find(disc)
    assert study.name == str(disc)
    assert isinstance(read_prepared(study, GRID), Reading)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "holds no CT slice"),
        (lambda path: path.write_text("not DICOM"), "holds no CT slice"),
        (lambda path: dicom_slice(HU[0], 0).save_as(path, enforce_file_format=True), "no series of 8 or more"),
        (lambda path: write_series(path, HU[:4]), "no series of 8 or more"),
        (lambda path: path.symlink_to(path.with_name("nowhere")), "does not exist"),
    ],
)
def test_every_path_has_a_result(tmp_path, make, words):
    make(tmp_path / "typed")
    (study,) = find(tmp_path / "typed")
    error = read_prepared(study, GRID)
    assert isinstance(error, Refusal)
    assert error.reason.startswith(f"{tmp_path / 'typed'}: ")
    assert words in error.reason


def test_files_named_by_a_uid_are_found(tmp_path):
    for patient, name in (("a", "1.2.840.{}"), ("b", "CT.1.2.3.{}"), ("c", "{}.dcm")):
        names = [name.format(index) for index in range(28)]
        write_series(tmp_path / patient, HU, names, series=f"1.{patient!r}.5", StudyInstanceUID=f"4.5.{ord(patient)}")
    assert [study.path.name for study in find(tmp_path)] == ["a", "b", "c"]


def test_patients_who_share_all_uids_stay_apart(tmp_path):
    for patient in ("a", "b"):
        write_series(tmp_path / patient, HU)
    assert [study.path.name for study in find(tmp_path)] == ["a", "b"]


def test_skips_what_is_not_a_file(tmp_path):
    write_series(tmp_path / "a", HU)
    os.mkfifo(tmp_path / "a" / "pipe")
    assert len(find(tmp_path)) == 1
    assert isinstance(read_prepared(find(tmp_path)[0], GRID), Reading)
    for suffix in ("", ".nii", ".zip", ".dcm"):
        (study,) = find_studies(["x" * 300 + suffix])
        assert isinstance(read_prepared(study, GRID), Refusal)


def test_links_to_folders_are_followed_once(tmp_path):
    write_series(tmp_path / "elsewhere/P1", HU, StudyInstanceUID="4.5.1")
    root = tmp_path / "root"
    write_series(root / "P2", HU, StudyInstanceUID="4.5.2")
    (root / "P1").symlink_to(tmp_path / "elsewhere/P1")
    (root / "P0").symlink_to(root / "P2")
    (root / "P2/loop").symlink_to(root)
    (root / "gone").symlink_to(tmp_path / "nowhere")
    assert [study.path for study in find(root)] == [root / "P1", root / "P2"]
    (tmp_path / "linked").symlink_to(root)
    assert len(find(tmp_path / "linked")) == 2
    (tmp_path / "series").mkdir()
    (tmp_path / "series/S1").symlink_to(tmp_path / "elsewhere/P1")
    assert isinstance(read_prepared(find(tmp_path / "series")[0], GRID), Reading)


def test_folders_left_by_macos_are_passed_over(tmp_path):
    write_series(tmp_path / "root/P1", HU)
    write_series(tmp_path / "root/__MACOSX/P1", HU + 1)
    write_nifti(tmp_path / "root/P1/__MACOSX/a.nii")
    assert find(tmp_path / "root") == [Found(str(tmp_path / "root"), tmp_path / "root/P1")]
    assert read_prepared(find(tmp_path / "root")[0], GRID).prepared.warnings == ()  # type: ignore[union-attr]


def test_counts_what_is_left_out_by_kind(tmp_path, caplog):
    write_nifti(tmp_path / "a.nii.gz")
    find(tmp_path)
    assert caplog.text == ""
    (tmp_path / "Planted").mkdir()
    (tmp_path / "empty/also_empty").mkdir(parents=True)
    for name in (
        "b.7z",
        "Planted/c.7Z",
        "d.nrrd",
        "e.mha",
        "f.hdr",
        "f.img",
        "g.npy",
        "h.tar.gz",
        "notes.txt",
        "i.iso",
        "j.nii.gz.part",
    ):
        (tmp_path / name).touch()
    find(tmp_path)
    left_out = "1 .tar.gz, 2 .7z, 1 .nrrd, 1 .mha, 1 .hdr, 1 .img, 1 .npy, 1 .iso, 1 .part, 1 empty folders"
    assert f"{tmp_path}: left out {left_out}, which" in caplog.text
    assert "Planted" not in caplog.text


def test_slices_with_names_of_other_images_are_not_counted_as_left_out(tmp_path, caplog):
    write_series(tmp_path / "P1", HU, [f"{index}.img" for index in range(len(HU))])
    (tmp_path / "P1/report.jpg").touch()
    assert isinstance(read_prepared(find(tmp_path)[0], GRID), Reading)
    assert "left out 1 .jpg, which" in caplog.text


@pytest.mark.parametrize("content", [b"", bytes(3000), b"<html>not found</html>"], ids=["empty", "zeros", "html"])
@pytest.mark.parametrize("name", ["{}.dcm", "IM{:04d}", "{:05d}", "1.2.840.113619.2.{}", "{}.IMA"])
def test_a_folder_of_damaged_dicom_files_is_a_study_that_cannot_be_read(tmp_path, content, name):
    write_series(tmp_path / "P2", HU)
    (tmp_path / "P1/deeper").mkdir(parents=True)
    for index in range(9):
        (tmp_path / "P1/deeper" / name.format(index)).write_bytes(content)
    damaged, good = find(tmp_path)
    assert damaged == Found(f"{tmp_path}#1", tmp_path / "P1/deeper")
    assert good.path == tmp_path / "P2"
    refusal = read_prepared(damaged, GRID)
    assert isinstance(refusal, Refusal)
    assert refusal.reason.startswith(f"{tmp_path}#1: holds no CT slice")


def test_damaged_files_beside_other_studies_do_not_make_a_study_of_these(tmp_path):
    write_series(tmp_path / "P1/thin", HU, series="1.2.3.1")
    write_series(tmp_path / "P1/thick", HU, series="1.2.3.2")
    for name in ("loose.dcm", "P1/damaged/1.dcm", "P1/thin/999.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "README").write_text("not DICOM")
    assert [study.path for study in find(tmp_path)] == [tmp_path / "P1", tmp_path / "loose.dcm"]
    reading = read_prepared(find(tmp_path)[0], GRID)
    lost, ignored, _ = reading.prepared.warnings  # type: ignore[union-attr]
    assert lost.startswith("1 of 29 slices of the series cannot be used")  # beside the series' own files
    assert ignored.startswith("ignored 1 files that are not CT slices")


def test_what_is_no_regular_file_or_too_large_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii.gz")
    (tmp_path / "zero.nii").symlink_to("/dev/zero")
    with open(tmp_path / "sparse.nii", "wb") as file:
        file.seek(50 << 30)
        file.write(b"0")
    pipe, sparse, zero = (read_prepared(study, GRID) for study in find(tmp_path))
    assert "is no regular file" in pipe.reason  # type: ignore[union-attr]
    assert "is no regular file" in zero.reason  # type: ignore[union-attr]
    assert "takes 50.0 GiB, a chest CT at most 2" in sparse.reason  # type: ignore[union-attr]
    assert time_limit(find(tmp_path)[1]) < 10


def test_a_folder_whose_files_have_too_long_paths_cannot_be_read(tmp_path, monkeypatch):
    write_nifti(tmp_path / "a.nii")
    write_nifti(tmp_path / "deep/deeper/b.nii")
    monkeypatch.setattr(folders, "MAX_PATH_BYTES", len(str(tmp_path / "deep/deeper/b.nii")))
    study, deep = find(tmp_path)
    assert (study.path, deep.path) == (tmp_path / "a.nii", tmp_path / "deep/deeper")
    assert "cannot be read (File name too long)" in read_prepared(deep, GRID).reason  # type: ignore[union-attr]


def test_a_thousand_nested_folders_are_walked(tmp_path):
    nested = [tmp_path / "/".join(["a"] * depth) for depth in range(1, 1001)]
    for folder in nested:
        folder.mkdir()
    try:
        assert len(find(tmp_path)) == 1
    finally:  # pytest's own removal is recursive
        for folder in reversed(nested):
            folder.rmdir()


PLANTED = "Planted^Name"


def planted(dataset: pydicom.Dataset, damage: str) -> None:
    """Write a patient's name wherever a header may contain one by mistake."""
    dataset.PatientBirthDate, dataset.StudyDate, dataset.AccessionNumber = "19010203", "20200131", "PLANTED-AN"
    dataset.StudyDescription = dataset.SeriesDescription = dataset.ImageComments = PLANTED
    dataset.InstitutionName = dataset.ReferringPhysicianName = PLANTED
    with pydicom.config.disable_value_validation():
        if damage:
            setattr(dataset, damage, PLANTED)


@pytest.mark.parametrize(
    "damage",
    ["", "StudyInstanceUID", "SeriesInstanceUID", "SpecificCharacterSet", "Modality", "ImageType", "TransferSyntaxUID"],
)
def test_messages_and_logs_contain_nothing_of_the_patient(tmp_path, damage, caplog, capfd):
    folder = tmp_path / "typed" / "Planted^Name" / "PLANTED-ID"
    folder.mkdir(parents=True)
    for index, plane in enumerate(HU):
        dataset = dicom_slice(plane, index)
        planted(dataset, "" if damage == "TransferSyntaxUID" else damage)
        with pydicom.config.disable_value_validation():
            if damage == "TransferSyntaxUID":
                dataset.file_meta.PrivateInformationCreatorUID = PLANTED
            dataset.save_as(folder / f"Planted{index}.dcm", enforce_file_format=True)
    write_nifti(tmp_path / "typed" / "Planted^Name.nii.gz")
    (tmp_path / "typed" / "PlantedDamaged.nii.gz").write_bytes(b"\x1f\x8bPlanted")
    caplog.clear()
    capfd.readouterr()
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        results = [repr(read_prepared(study, GRID)) for study in find(tmp_path / "typed")]
    assert len(results) == 3
    texts = [*results, caplog.text, *capfd.readouterr(), *(str(one.message) for one in warned)]
    for text in texts:
        for word in ("planted", "19010203", "20200131"):
            assert word not in text.lower()
