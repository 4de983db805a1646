import os
import shutil

import numpy as np
import pytest

from tests.support import real_ct
from tests.support.chest import chest, write_nifti, write_series
from tfds_mosmed import catalog
from tfds_mosmed.building.grid_config import GridConfig
from tfds_mosmed.ct_folder.ct_folder_dataset_builder import Builder
from tfds_mosmed.ct_folder.study_folder import list_studies
from tfds_mosmed.errors import UserError

CONFIG = GridConfig(name="16x20x10", grid="16x20x10")


def ids(root):
    return [(study.study_id, study.category) for study in list_studies(root)[0]]


def test_layout_of_covid_ct_md(tmp_path):
    """A folder a class, a folder a patient, a file a slice; here with NIfTI beside."""
    write_series(tmp_path / "COVID-19 Cases/P001", chest(0))
    write_series(tmp_path / "COVID-19 Cases/P002", chest(1), StudyInstanceUID="4.5.6")
    write_series(tmp_path / "Normal Cases/normal001", chest(2), names=[f"IM{n:04d}" for n in range(28)])
    write_nifti(tmp_path / "Cap Cases/cap001.nii.gz", chest(3))
    (tmp_path / "Index.csv").write_text("not a study")
    (tmp_path / "Cap Cases/labels.xlsx").write_text("not a study")
    assert ids(tmp_path) == [
        ("COVID-19 Cases/P001", "COVID-19 Cases"),
        ("COVID-19 Cases/P002", "COVID-19 Cases"),
        ("Cap Cases/cap001", "Cap Cases"),
        ("Normal Cases/normal001", "Normal Cases"),
    ]
    builder = Builder(config=CONFIG, data_dir=tmp_path / "data")
    shutil.copytree(tmp_path, tmp_path.with_name("raw"), ignore=shutil.ignore_patterns("data"))
    builder.prepare(tmp_path.with_name("raw"), workers=1)
    index = builder.index()
    assert sorted(zip(index.study_id, index.category, strict=True)) == ids(tmp_path.with_name("raw"))


def test_series_of_one_study_are_one_study_and_deeper_folders_are_allowed(tmp_path):
    for series in ("thin", "thick"):
        write_series(tmp_path / f"covid/clinic/P001/{series}", chest(0), series=f"1.{len(series)}")
    write_series(tmp_path / "covid/clinic/P002/thick", chest(1), StudyInstanceUID="4.5.6")
    write_nifti(tmp_path / "covid/clinic/P003.nii", chest(2))
    assert ids(tmp_path) == [
        ("covid/clinic/P001", "covid"),
        ("covid/clinic/P002/thick", "covid"),
        ("covid/clinic/P003", "covid"),
    ]


def test_patients_who_were_given_one_uid_stay_apart(tmp_path, caplog):
    for patient in ("P001", "P002"):
        write_series(tmp_path / f"covid/{patient}", chest(0))
    assert ids(tmp_path) == [("covid/P001", "covid"), ("covid/P002", "covid")]
    assert "P001 and " in caplog.text
    assert "P002 have one SeriesInstanceUID and are read as different studies" in caplog.text
    for patient in ("P003", "P004"):
        write_series(tmp_path / f"normal/clinic/{patient}", chest(0))
    write_series(tmp_path / "normal/clinic/P005", chest(0), StudyInstanceUID="4.5.6")
    assert [study_id for study_id, _ in ids(tmp_path)[2:]] == [f"normal/clinic/P00{number}" for number in (3, 4, 5)]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "holds no folders with studies"),
        (["a.nii.gz"], "holds no folders with studies"),
        (["covid/a.nii.gz", "empty/readme.txt"], "empty: holds no study"),
        (["covid/a.nii.gz", "normal/a.7z"], r"normal: holds no study but 1 \.7z, which are not read"),
        (["train/a.nii.gz", "val/a.nii.gz", "test/a.nii.gz"], "the folders test, train, val, which are parts"),
        (["Training/covid/a.nii.gz", "Test_set/covid/a.nii.gz"], "the folders Test_set, Training, which are parts"),
        (["train/covid/a.nii.gz"], "the folders train, which are parts"),
        (["fold1/a.nii.gz", "fold 2/a.nii.gz", "readme/a.nii"], "the folders fold 2, fold1, which are parts"),
        (["subset0/a.nii.gz", "subset1/b.nii.gz"], "the folders subset0, subset1, which are parts"),
        (
            ["imagesTr/a.nii.gz", "imagesTs/b.nii.gz", "labelsTr/a.nii.gz"],
            "the folders imagesTr, imagesTs, labelsTr, wh",
        ),
        (["Train cases/a.nii.gz", "trn/b.nii.gz", "part-2/c.nii"], "the folders Train cases, part-2, trn, which are"),
        (["train/covid/a.nii", "more/b.nii"], "the folders train, which are parts"),
        (
            ["covid_train/a.nii", "covid_test/b.nii", "x_train/c.nii", "x_test/d.nii"],
            "covid_train, x_test, x_train, wh",
        ),
        (["Training normal/a.nii", "TEST normal/b.nii"], "the folders TEST normal, Training normal, which are parts"),
        (["cv0/a.nii", "cv1/b.nii"], "the folders cv0, cv1, which are parts"),
        (["development/a.nii", "external/b.nii", "internal test/c.nii"], "external, internal test, which are parts"),
        (["COVID/a.nii", "Covid/b.nii", "normal/c.nii"], "'COVID' and 'Covid', whose names differ in case"),
        (["caf\u00e9/a.nii", "cafe\u0301/b.nii"], r"'cafe.u0301' and 'caf.xe9', whose names differ in case"),
        (["covid/a.nii", "covid /b.nii"], "'covid' and 'covid ', whose names differ in case"),
        (["covid.zip", "normal.tar.gz"], r"holds no folders with studies but 1 \.zip, 1 \.tar\.gz; lay"),
        (["covid/a.nii.gz", "covid/a.nii"], r"covid/a: is there twice, as \.nii, \.nii\.gz or a folder"),
        (
            [f"{site}/{name}/{n}.nii" for site in ("siteA", "siteB") for name in ("covid", "normal") for n in "ab"],
            "each of its folders siteA, siteB holds covid, normal, each with several studies",
        ),
        ([f"{n:03}/a.nii" for n in range(21)], "21 of its 21 folders hold one study, as folders of patients do"),
    ],
)
def test_says_what_is_wrong_with_a_folder(tmp_path, files, words):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=words) as error:
        list_studies(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_classes_whose_names_resemble_parts_are_classes(tmp_path):
    names = ("tested positive", "batchless", "party", "valve disease", "partial", "images", "trainers", "COVID-19",
             "test negative", "test", "COVID 18")  # fmt: skip
    for name in names:
        write_nifti(tmp_path / f"{name}/a.nii", chest(0))
    assert {category for _, category in ids(tmp_path)} == set(names)


def _touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        (("2019", "2020"), "as 2019, are named after years or dates: if the folders below them are the classes, lay"),
        (("2020-03-01", "2021_12"), "are named after years or dates"),
        (("patient_001", "Patient 2"), "are named after patients"),
        (("P001", "P002"), "are named after patients"),
        (("site-sub-01", "sub-02a"), "are named after patients"),
        (("asthma", "covid", "normal"), "are taken for classes, and 3 of 3 hold one study"),
        (("covid", "normal"), ""),
        (("CT-0", "CT-1"), ""),
        (("covid19", "covid20"), ""),
    ],
)
def test_folders_that_seem_to_be_patients_or_years_are_told(tmp_path, caplog, names, seen):
    _touch(tmp_path, *(f"{name}/covid/a.nii" for name in names))
    assert len(list_studies(tmp_path)[0]) == len(names)
    assert (seen in caplog.text) if seen else not caplog.text


def test_one_class_and_studies_in_none_are_told(tmp_path, caplog):
    _touch(tmp_path, "a.nii.gz", "b.nii", "more.zip", "notes.txt", "covid/P1/a.nii", "covid/P1/b.nii")
    assert list_studies(tmp_path)[1] == {"studies in no class's folder": 2, ".zip": 1}
    assert f"{tmp_path}: all studies are of one class, covid" in caplog.text


def test_patients_of_the_same_names_in_each_class_are_no_classes(tmp_path):
    _touch(tmp_path, "covid/P1/a.nii", "covid/P1/b.nii", "covid/P2/a.nii", "normal/P1/a.nii", "normal/P2/a.nii")
    assert len(ids(tmp_path)) == 5


def test_links_and_folders_left_by_macos(tmp_path):
    write_nifti(tmp_path / "elsewhere/a.nii", chest(0))
    write_nifti(tmp_path / "root/test negative/b.nii", chest(1))
    (tmp_path / "root/covid").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/__MACOSX").mkdir()
    assert ids(tmp_path / "root") == [("covid/a", "covid"), ("test negative/b", "test negative")]


def test_archives_damaged_studies_and_names_that_are_not_utf8(tmp_path):
    root = tmp_path / "root"
    name = os.fsdecode(b"covid\xff")
    write_nifti(root / name / os.fsdecode(b"a\xfe.nii.gz"), chest(0))
    write_nifti(root / "normal/b.nii.gz", chest(1))
    write_series(tmp_path / "series", chest(2))
    (root / "normal/damaged").mkdir()
    for index in range(9):
        (root / f"normal/damaged/{index}.dcm").touch()
    shutil.make_archive(str(root / "normal/c"), "zip", tmp_path / "series")
    studies = [("covid\\xff/a\\xfe", "covid\\xff"), *((f"normal/{name}", "normal") for name in ("b", "c", "damaged"))]
    assert sorted(ids(root)) == studies
    with pytest.raises(UserError, match="normal/damaged: holds no CT slice"):
        Builder(config=CONFIG, data_dir=tmp_path / "data").prepare(root, workers=1)
    builder = Builder(config=CONFIG, data_dir=tmp_path / "data")
    builder.prepare(root, "skip", workers=1)
    assert sorted(builder.index().study_id) == [study_id for study_id, _ in studies[:3]]
    assert [study_id for study_id, _ in builder.skipped()] == ["normal/damaged"]


def test_says_that_slices_need_a_folder_of_their_own(tmp_path):
    write_series(tmp_path / "covid")
    with pytest.raises(UserError, match="covid: holds DICOM files itself; give each study a folder"):
        list_studies(tmp_path)


@pytest.mark.parametrize("name", [b"a\x1b[2Jb", b"a\nb", b"a\tb", b"\xe2\x80\xaea"])
@pytest.mark.parametrize("place", ["class", "study"])
def test_a_name_with_control_characters_is_refused(name, place, tmp_path):
    path = os.path.join(os.fsencode(tmp_path), *{"class": (name, b"scan"), "study": (b"covid", name)}[place]) + b".nii"
    os.makedirs(os.path.dirname(path))
    with open(path, "wb"):
        pass
    with pytest.raises(UserError, match=r"the name has control characters; rename it$") as error:
        list_studies(tmp_path)
    assert len(str(error.value).splitlines()) == 1
    assert "\x1b" not in str(error.value)


def test_names_in_other_scripts_are_taken(tmp_path):
    for name in ("肺炎\u3000甲", "naïve  scan", "می\u200cخواهم", "a\u00a0b"):
        write_nifti(tmp_path / "covid" / f"{name}.nii", chest(0))
    assert len(ids(tmp_path)) == 4


def test_a_missing_folder_says_how_to_lay_out(tmp_path):
    builder = catalog.load_builder("ct_folder/64x64x32", tmp_path)
    with pytest.raises(UserError, match=r"--manual_dir=\S*gone: .*ROOT/CLASS/study\.nii\.gz"):
        builder.prepare(tmp_path / "gone")
    with pytest.raises(
        UserError, match=r"--manual_dir is not given, and no studies are in \S*: .*ROOT/CLASS/study\.nii\.gz"
    ):
        builder.prepare()


@real_ct.needed
def test_real_studies_are_prepared(tmp_path):
    builder = catalog.load_builder("ct_folder/128x128x32", tmp_path)
    builder.prepare(real_ct.FOLDER / "nifti")
    index = builder.index()
    assert sorted(index.study_id) == ["cap/cap001", "covid/P001", "normal/normal001"]
    assert index.lungs_found.all()
    assert index.warnings == {}


def test_warnings_and_files_left_out_are_shown_and_stored(tmp_path, caplog):
    """Two studies with a series that was chosen, one without lungs; archives and images of other kinds beside them."""
    root = tmp_path / "raw"
    for number, patient in enumerate(("P1", "P2")):
        folder = root / f"covid/{patient}"
        write_series(folder / "all", chest(number), StudyInstanceUID=f"4.5.{number}")
        write_series(folder / "few", chest(number)[: 10 + number], series="1.9", StudyInstanceUID=f"4.5.{number}")
    write_nifti(root / "normal/a.nii", np.where(np.arange(96) < 40, -1000, 40).astype(np.int16) + chest(3) // 99)
    for name in ("covid/x.7z", "normal/y.7z", "normal/deep/z.nrrd", "normal/notes.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    builder = Builder(config=CONFIG, data_dir=tmp_path / "data")
    builder.prepare(root, workers=1)
    again = Builder(config=CONFIG, data_dir=tmp_path / "data")
    assert again.left_out() == {".7z": 2, ".nrrd": 1}
    assert f"{root}: left out 2 .7z, 1 .nrrd, which are not read" in caplog.text
    assert "ct_folder: 2 studies (covid/P1, covid/P2): 2 series: used the one of 28 axial slices" in caplog.text
    assert "ct_folder: 1 study (normal/a): " in caplog.text
    assert set(again.index().warnings) == {"covid/P1", "covid/P2", "normal/a"}


def test_a_table_that_lies_unused_in_a_class_folder_is_mentioned(tmp_path, caplog):
    root = tmp_path / "root"
    write_nifti(root / "covid/a.nii", chest(0))
    write_nifti(root / "normal/b.nii", chest(1))
    (root / "covid/deep").mkdir()
    (root / "covid/deep/labels.csv").write_text("path,label\na.nii,covid\n")
    builder = Builder(config=CONFIG, data_dir=tmp_path / "data")
    builder._list_folder(root)
    assert (
        "left out 1 .csv, which are not read; if one lists the studies, give it with --dataset=ct_table" in caplog.text
    )
