import functools
import http.server
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.support import runs, share
from tests.support.chest import chest, write_nifti
from tests.support.mutations import mutated
from tfds_mosmed import catalog
from tfds_mosmed.building.study import FileStudy, SourceFile
from tfds_mosmed.errors import UserError
from tfds_mosmed.mosmed import mosmed_files
from tfds_mosmed.mosmed.mosmed_dataset_builder import Builder, MosMedConfig
from tfds_mosmed.scans import folders

REPOSITORY = Path(__file__).parents[3]
LISTED = mosmed_files.read_list()
STUDIES = {"study_0001": "CT-0", "study_0254": "CT-0", "study_0255": "CT-1", "study_0300": "CT-1", "study_1110": "CT-4"}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("mosmed")
    for seed, (study_id, category) in enumerate(STUDIES.items()):
        write_nifti(root / f"studies/{category}/{study_id}.nii.gz", chest(seed))
    write_nifti(root / "masks/study_0255_mask.nii.gz", (chest(2) > 300).astype(np.uint8))
    (root / "dataset_registry.csv").write_text("study_id")
    return root


def builder(data_dir, **fields):
    return Builder(config=MosMedConfig(name="16x20x10", grid="16x20x10", **fields), data_dir=data_dir)


@pytest.fixture(scope="module")
def built(raw, tmp_path_factory):
    made = builder(tmp_path_factory.mktemp("data"))
    made.prepare(raw, workers=1)
    return made


def test_the_list_is_mosmeddata():
    counts = dict.fromkeys(mosmed_files.CATEGORIES, 0)
    for study in LISTED.values():
        counts[study.category] += 1
    assert counts == {"CT-0": 254, "CT-1": 684, "CT-2": 125, "CT-3": 45, "CT-4": 2}
    assert sum(bool(study.mask_git_blob_sha1) for study in LISTED.values()) == 50


def test_published_split_is_covidnet3ds(built):
    parts = list(built.published_split().values())
    assert (parts.count("train"), parts.count("test")) == (779, 331)
    assert built.published_split()["study_0002"] == "test"


def test_reads_a_folder_with_masks(built):
    index = built.index()
    assert dict(zip(index.study_id, index.category, strict=True)) == STUDIES
    masked = {record["study_id"]: record for record in built.open_records()}
    assert {study_id for study_id, record in masked.items() if record["has_lesion_mask"]} == {"study_0255"}
    assert masked["study_0255"]["lesion_mask"].sum() > 0
    assert masked["study_0300"]["lesion_mask"].shape == (10, 16, 20)
    assert masked["study_0300"]["lesion_mask"].sum() == 0


@pytest.mark.parametrize("where", ["above", "studies"])
def test_finds_the_studies_one_folder_up_or_down(built, raw, tmp_path, where):
    if where == "above":
        (tmp_path / "COVID19_1110").symlink_to(raw)
        root = tmp_path / "COVID19_1110/.."
        (tmp_path / "above").mkdir()
        (tmp_path / "above/COVID19_1110").mkdir()
        for part in ("studies", "masks"):
            (tmp_path / "above/COVID19_1110" / part).mkdir()
            for file in (raw / part).rglob("*.nii.gz"):
                target = tmp_path / "above/COVID19_1110" / file.relative_to(raw)
                target.parent.mkdir(exist_ok=True)
                target.symlink_to(file)
        root = tmp_path / "above"
    else:
        root = raw / "studies"
    made = builder(tmp_path / "data")
    made.prepare(root, workers=1)
    assert made.fingerprint() == built.fingerprint()
    assert made.index().has_lesion_mask.sum() == 1


def test_masks_beside_the_folder_of_the_studies_and_beside_no_other_are_taken(tmp_path, monkeypatch):
    for name in ("studies/CT-0/study_0001.nii.gz", "COVID/study_0002.nii.gz", "masks/study_0255_mask.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "studies")
    for root, count in ((Path("."), 2), (tmp_path / "studies", 2), (tmp_path / "COVID", 1)):
        assert len(list(mosmed_files.find_files(root, tmp_path / "unpacked"))) == count


def pack(raw, path):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(raw.rglob("*.*")):
                archive.write(file, f"MosMedData/{file.relative_to(raw)}")
            archive.writestr("__MACOSX/MosMedData/studies/CT-0/._study_0003.nii.gz", b"resource fork")
            archive.writestr("../../evil/study_0009.txt", b"")
    else:
        with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
            archive.add(raw, "MosMedData")
            for evil in ("../study_0009.nii.gz", "/../../masks/../study_0009.txt"):
                archive.addfile(tarfile.TarInfo(evil))
    return path


@pytest.mark.parametrize("name", ["mosmed.zip", "mosmed.tar", "mosmed.tar.gz"])
def test_reads_archives_without_unpacking_them_beside(built, raw, tmp_path, name):
    (tmp_path / "manual").mkdir()
    pack(raw, tmp_path / "manual" / name)
    made = builder(tmp_path / "data")
    made.prepare(tmp_path / "manual", workers=2)
    assert made.fingerprint() == built.fingerprint()
    assert made.index().has_lesion_mask.sum() == 1
    assert [path.name for path in (tmp_path / "manual").iterdir()] == [name]
    assert not list(tmp_path.rglob("study_0009*"))
    if not name.endswith("gz"):  # which cannot be read from the middle
        assert not list(tmp_path.rglob("*.nii.gz"))


@pytest.mark.parametrize("name", ["mosmed.zip", "mosmed.tar", "mosmed.tar.gz"])
def test_an_archive_of_the_same_name_and_size_is_not_taken_for_the_one_of_the_records(raw, tmp_path, name):
    (tmp_path / "manual").mkdir()
    path = pack(raw, tmp_path / "manual" / name)
    size = path.stat().st_size + 1000
    path.write_bytes(path.read_bytes().ljust(size, b"\0") if name.endswith("gz") else path.read_bytes())
    builder(tmp_path / "data").prepare(tmp_path / "manual", workers=2)
    os.utime(path)
    builder(tmp_path / "data").prepare(tmp_path / "manual")
    changed = shutil.copytree(raw, tmp_path / "changed")
    study = changed / "studies/CT-1/study_0300.nii.gz"
    study.write_bytes(study.read_bytes()[:-1] + b"x")
    pack(changed, path)
    if name.endswith("gz"):
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
        assert path.stat().st_size == size
    with pytest.raises(
        UserError, match=r"\(1 changed: study_0300\); give another --data_dir, or prepare what changed: "
    ):
        builder(tmp_path / "data").prepare(tmp_path / "manual")


def test_a_study_that_moved_to_another_category_is_noticed(built, raw, tmp_path):
    moved = shutil.copytree(raw, tmp_path / "raw")
    (moved / "studies/CT-0/study_0254.nii.gz").rename(moved / "studies/CT-4/study_0254.nii.gz")
    with pytest.raises(UserError, match="1 changed: study_0254"):
        builder(built.data_dir_root).prepare(moved)


def test_a_damaged_archive_is_named(tmp_path, raw):
    (tmp_path / "manual").mkdir()
    path = pack(raw, tmp_path / "manual/mosmed.zip")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"mosmed\.zip: is not a whole archive .*download it again"):
        builder(tmp_path / "data").prepare(tmp_path / "manual")


def _bomb(archive):
    _add(archive, "study_0001", 3 << 20)


def _many(archive):
    for number in range(60):
        _add(archive, f"study_{number:04d}", 1 << 19)


def _add(archive, name, size):
    member = tarfile.TarInfo(f"CT-0/{name}.nii")
    member.size = size
    archive.addfile(member, io.BytesIO(bytes(size)))


def _sparse(archive):
    """A study of which 8 EiB are not there, in the header of GNU tar."""
    member = tarfile.TarInfo("CT-0/study_0001.nii")
    member.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"777777777777"
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    archive.fileobj.write(bytes(header))


@pytest.mark.parametrize("bomb", [_bomb, _many, _sparse])
def test_an_archive_that_would_fill_the_disk_is_not_unpacked(bomb, tmp_path, monkeypatch):
    monkeypatch.setattr(mosmed_files, "MAX_BYTES", 1 << 20)
    path = tmp_path / "mosmed.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        bomb(archive)
    with pytest.raises(UserError, match=r"mosmed\.tar\.gz: .* (no chest CT is|studies do not); .*give the folder"):
        list(mosmed_files.archive_files(path, tmp_path / "unpacked"))
    assert not list((tmp_path / "unpacked").iterdir())


@runs.may_mount
def test_a_disk_that_is_full_is_not_told_as_a_damaged_archive(raw, tmp_path):
    path = pack(raw, tmp_path / "mosmed.tar.gz")
    (tmp_path / "unpacked").mkdir()
    words = r"unpacked: cannot be written \(No space left on device\); make room"
    with runs.small_disk(tmp_path / "unpacked", "40k"), pytest.raises(UserError, match=words):
        list(mosmed_files.archive_files(path, tmp_path / "unpacked"))


@pytest.mark.parametrize("name", ["mosmed.zip", "mosmed.tar", "mosmed.tar.gz", "mosmed.tar.xz", "mosmed.tar.bz2"])
def test_no_mutation_of_an_archive_ends_in_more_than_a_line(name, tmp_path):
    small = tmp_path / "raw"
    for number in range(3):
        (small / f"CT-{number}").mkdir(parents=True)
        (small / f"CT-{number}/study_{number:04d}.nii.gz").write_bytes(os.urandom(200))
    if name.endswith("zip"):
        path = pack(small, tmp_path / name)
    else:
        path = tmp_path / name
        with tarfile.open(path, f"w:{path.suffix.removeprefix('.')}" if path.suffix != ".tar" else "w") as archive:
            archive.add(small, "MosMedData")
    content, chance = path.read_bytes(), share.generator(f"mutations of {name}")
    messages = []
    mutations = [mutated(content, chance) for _ in range(60 if share.is_full() else 12)]
    for number, damaged in enumerate([content[: len(content) // 2], *mutations]):
        path.write_bytes(damaged)
        try:
            files = list(mosmed_files.archive_files(path, tmp_path / f"unpacked{number}"))
            for _, file in files:
                file.read()
        except UserError as error:
            messages.append(str(error))
    assert messages  # of the half, whatever the mutations hit
    assert all(message.startswith(str(path)) and "\n" not in message for message in messages)


def test_an_archive_beside_what_was_unpacked_from_it_changes_nothing(built, raw, tmp_path):
    (tmp_path / "manual").mkdir()
    pack(raw, tmp_path / "manual/mosmed.zip")
    (tmp_path / "manual/studies").mkdir()
    for file in (raw / "studies").rglob("*.nii.gz"):
        target = tmp_path / "manual" / file.relative_to(raw)
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(file)
    made = builder(tmp_path / "data")
    made.prepare(tmp_path / "manual", workers=1)
    assert made.fingerprint() == built.fingerprint()


def test_counts_what_differs_from_the_list(tmp_path, caplog, monkeypatch):
    """One study is as listed, one altered, one moved to another category, one not listed, one damaged."""
    root = tmp_path / "raw"
    good = write_nifti(root / "CT-0/study_0001.nii.gz", chest(0))
    write_nifti(root / "CT-0/study_0002.nii.gz", chest(1))
    write_nifti(root / "CT-1/study_0003.nii.gz", chest(2))
    write_nifti(root / "CT-1/study_9999.nii.gz", chest(3))
    (root / "CT-1/study_0256.nii.gz").write_bytes(b"cut")
    sha1 = subprocess.run(["git", "hash-object", good], capture_output=True, text=True, check=True).stdout.strip()
    listed = {**LISTED, "study_0001": LISTED["study_0001"]._replace(volume_git_blob_sha1=sha1)}
    monkeypatch.setattr(mosmed_files, "read_list", lambda: listed)
    for name in (
        "CT-1/study_0004.mha",
        "CT-1/scan 5.nii.gz",
        "more.7z",
        "CT-0/._study_0001.nii.gz",
        "list.csv",
        "study_0044_mask.nii",
    ):
        (root / name).touch()
    made = builder(tmp_path / "data")
    made.prepare(root, on_bad_study="skip", workers=1)
    left_out = {".7z": 1, ".mha": 1, "NIfTI files of other names": 1, "masks without a study": 1}
    assert made.left_out() == builder(tmp_path / "data").left_out() == left_out
    assert (
        f"{root}: left out 1 .7z, 1 .mha, 1 NIfTI files of other names, 1 masks without a study, which are"
        in caplog.text
    )
    expected = {"missing": 1106, "extra": 1, "other_category": 1, "altered": 2, "masks_altered": 0, "unreadable": 1}
    assert made.checks() == expected
    assert builder(tmp_path / "data").checks() == expected
    assert "1106 missing, 1 not listed, 1 in another category" in caplog.text
    assert "2 not the listed file, 1 left out" in caplog.text
    index = made.index()
    assert set(index.warnings) == {"study_0002", "study_0003"}
    assert dict(zip(index.study_id, index.category, strict=True))["study_0003"] == "CT-1"  # as it lies there


def test_an_unreadable_study_stops_the_build(tmp_path):
    write_nifti(tmp_path / "CT-0/study_0001.nii.gz", chest(0))
    (tmp_path / "CT-0/study_0002.nii.gz").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"study_0002\.nii\.gz: is not a NIfTI image"):
        builder(tmp_path / "data").prepare(tmp_path, workers=1)


def test_an_unknown_category_is_named(tmp_path):
    write_nifti(tmp_path / "studies/CT-7/study_0001.nii.gz")
    with pytest.raises(
        UserError, match=r"study_0001\.nii\.gz: 'CT-7' is not one of CT-0, CT-1, CT-2, CT-3, CT-4; move"
    ):
        builder(tmp_path / "data").prepare(tmp_path)


def test_a_study_in_two_categories_is_named(tmp_path):
    for category in ("CT-0", "CT-1"):
        write_nifti(tmp_path / category / "study_0001.nii.gz")
    with pytest.raises(UserError, match="study_0001 is in CT-0, too; keep"):
        builder(tmp_path / "data").prepare(tmp_path)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.touch()])
def test_a_missing_folder_says_how_to_get_mosmeddata(tmp_path, make):
    make(tmp_path / "manual")
    with pytest.raises(UserError, match=r"--manual_dir=.*kaggle\.com.*mosmed/sample_128x128x32") as error:
        catalog.load_builder("mosmed/128x128x32", tmp_path / "data").prepare(tmp_path / "manual")
    assert "\n" not in str(error.value)


@pytest.fixture
def server(tmp_path):
    """A real HTTP server with small archives of the public sample's layout."""
    root = tmp_path / "release"
    root.mkdir()
    sample = {"CT-0.zip": ("CT-0", ["study_0001", "study_0002"]), "CT-23.zip": ("CT-23", ["study_0939", "study_1064"])}
    for seed, (name, (folder, ids)) in enumerate(sample.items()):
        with zipfile.ZipFile(root / name, "w") as archive:
            for number, study_id in enumerate(ids):
                file = write_nifti(tmp_path / f"{study_id}.nii.gz", chest(10 * seed + number))
                archive.write(file, f"{folder}/{study_id}.nii.gz")
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            requests.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=root)) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", requests
        httpd.shutdown()


def test_downloads_the_public_sample(server, tmp_path):
    url, requests = server
    made = builder(tmp_path / "data", sample_url=url)
    made.prepare(workers=1)
    index = made.index()
    assert dict(zip(index.study_id, index.category, strict=True)) == {
        "study_0001": "CT-0", "study_0002": "CT-0", "study_0939": "CT-2", "study_1064": "CT-3",
    }  # fmt: skip
    assert made.checks()["missing"] == 196
    assert sorted(set(requests)) == ["/CT-0.zip", "/CT-23.zip"]
    # Another grid of the same sample needs no second download.
    before = len(requests)
    other = Builder(config=MosMedConfig(name="other", grid="8x8x8", sample_url=url), data_dir=tmp_path / "data")
    other.prepare(workers=1)
    assert len(requests) == before
    assert not list((tmp_path / "data").rglob("*.nii.gz"))


def test_a_failed_download_names_the_address(server, tmp_path):
    url, _ = server
    with pytest.raises(
        UserError, match=rf"{url}/v9/CT-0\.zip .*cannot be downloaded \(.*404.*check the network"
    ) as error:
        builder(tmp_path / "data", sample_url=f"{url}/v9").prepare()
    assert "\n" not in str(error.value)


def test_a_download_without_a_network_fails_at_once(tmp_path):
    started = time.monotonic()
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/CT-0\.zip .*cannot be downloaded .*check the network"):
        builder(tmp_path / "data", sample_url="http://127.0.0.1:9").prepare()
    assert time.monotonic() - started < 5


def test_the_sample_comes_from_the_public_release():
    config = Builder.builder_configs["sample_128x128x32_full"]
    assert config.sample_url == "https://github.com/hasibzunair/3D-image-classification-tutorial/releases/download/v0.2"
    assert str(config.grid) == "128x128x32_full"


# What `tfds build` runs. The program itself imports TensorFlow for its other commands, even where it is not needed.
TFDS_BUILD = """
import simple_parsing
import sys
from tensorflow_datasets.scripts.cli import build
sys.path.remove("")  # an installed program does not see the current folder
simple_parsing.parse(build.Args, args=sys.argv[1:], nested_mode=simple_parsing.NestedMode.WITHOUT_ROOT).execute()
"""


def tfds_build(*args):
    command = [sys.executable, "-c", TFDS_BUILD, *map(str, args)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)


def test_tfds_builds_it_from_its_own_command_line(raw, tmp_path):
    config = "64x64x32"
    result = tfds_build("tfds_mosmed/mosmed", f"--config={config}", f"--manual_dir={raw}", f"--data_dir={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert "Preparing mosmed/64x64x32" in result.stderr
    made = catalog.load_builder(f"mosmed/{config}", tmp_path)
    assert sorted(made.index().study_id) == sorted(STUDIES)
    assert made.open_records()[0]["volume"].shape == (32, 64, 64)
    assert "CC BY-NC-ND" in made.info.description
    assert "MosMedData" in made.info.citation


def test_tfds_builds_it_on_beam_from_its_own_command_line(raw, tmp_path):
    pytest.importorskip("apache_beam")
    args = ("tfds_mosmed/mosmed", "--config=64x64x32", f"--manual_dir={raw}", f"--data_dir={tmp_path}")
    result = tfds_build(*args, "--beam_pipeline_options=runner=DirectRunner")
    assert result.returncode == 0, result.stderr
    assert "Preparing" not in result.stderr  # Beam did
    made = catalog.load_builder("mosmed/64x64x32", tmp_path)
    assert sorted(made.index().study_id) == sorted(STUDIES)
    assert made.checks()["missing"] == 1105


def test_a_mask_that_marks_nothing_is_told(tmp_path):
    mask = SourceFile(write_nifti(tmp_path / "mask.nii", np.zeros_like(chest(), np.uint8)))
    study = FileStudy("a", "CT-1", SourceFile(write_nifti(tmp_path / "a.nii")), mask)
    assert study.load().warnings == ("its lesion mask marks nothing",)


def test_folders_that_are_links_are_followed_and_those_that_cannot_be_listed_are_named(raw, tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "studies").mkdir(parents=True)
    for folder in (raw / "studies").iterdir():
        (root / "studies" / folder.name).symlink_to(folder)
    (root / "studies/all").symlink_to(root)
    files = mosmed_files.find_files(root, tmp_path / "unpacked")
    assert [study.study_id for study in mosmed_files.match_studies(files, LISTED)[0]] == sorted(STUDIES)
    monkeypatch.setattr(folders, "MAX_PATH_BYTES", len(str(root)) + 20)  # in which nothing can be opened
    with pytest.raises(UserError, match=r"CT-0: cannot be listed \(File name too long\)"):
        list(mosmed_files.find_files(root, tmp_path / "unpacked"))
