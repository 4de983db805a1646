"""Records are compared with the studies in --manual_dir: others under the same names are never taken for them."""

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.chest import chest, write_nifti, write_series
from tests.support.runs import ROOT
from tests.support.small_builds import small_builder
from tfds_mosmed import catalog
from tfds_mosmed.building import sources
from tfds_mosmed.building.study import FileStudy
from tfds_mosmed.errors import UserError

SECOND = 10**9


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two DICOM studies and two NIfTI studies, and their records."""
    folder = tmp_path_factory.mktemp("cohort")
    write_series(folder / "raw/covid/P1", chest(0))
    write_series(folder / "raw/normal/P2", chest(1), StudyInstanceUID="4.5.6")
    write_nifti(folder / "raw/covid/a.nii", chest(2))
    write_nifti(folder / "raw/normal/b.nii", chest(3))
    small_builder(folder / "data").prepare(folder / "raw", workers=2)
    return folder


@pytest.fixture
def copy(cohort, tmp_path):
    """A copy of the studies with their times, as `cp -p` makes it."""
    return shutil.copytree(cohort / "raw", tmp_path / "raw")


def _replace_with_times(path, content):
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _slices(folder):
    return sorted((folder / "covid/P1").iterdir())


def _other_study_under_its_names(root):
    for path in _slices(root):
        content = path.read_bytes()
        path.write_bytes(content[:-2000] + content[-2000:][::-1])


def _one_slice(root):
    last = _slices(root)[-1]
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)


def _one_slice_with_its_time(root):
    last = _slices(root)[-1]
    _replace_with_times(last, last.read_bytes()[:-2] + b"\1\0")


def _two_slices_swap_names(root):
    first, second, *_ = _slices(root)
    first.rename(root / "covid/P1/kept")
    second.rename(first)
    (root / "covid/P1/kept").rename(second)


def _slice_is_missing(root):
    _slices(root)[3].unlink()


def _slice_is_more(root):
    shutil.copy2(_slices(root)[3], root / "covid/P1/more.dcm")


def _nifti_of_the_same_size(root):
    _replace_with_times(root / "covid/a.nii", (root / "normal/b.nii").read_bytes())


def _studies_swap_classes(root):
    for name in ("covid", "normal"):
        write_nifti(root / f"{name}/{'a' if name == 'covid' else 'b'}.nii", chest(3 if name == "covid" else 2))


def _link_to_another(root):
    (root / "covid/a.nii").unlink()
    (root / "covid/a.nii").symlink_to(root / "normal/b.nii")


CHANGES = [
    (_other_study_under_its_names, "1 changed: covid/P1"),
    (_one_slice, "1 changed: covid/P1"),
    (_one_slice_with_its_time, "1 changed: covid/P1"),
    (_two_slices_swap_names, "1 changed: covid/P1"),
    (_slice_is_missing, "1 changed: covid/P1"),
    (_slice_is_more, "1 changed: covid/P1"),
    (_nifti_of_the_same_size, "1 changed: covid/a"),
    (_studies_swap_classes, "2 changed: covid/a, normal/b"),
    (_link_to_another, "1 changed: covid/a"),
    (lambda root: (root / "covid/a.nii").unlink(), "1 missing: covid/a"),
    (lambda root: write_nifti(root / "normal/c.nii", chest(5)), "1 new: normal/c"),
    (lambda root: (root / "covid/P1").rename(root / "normal/P1"), "1 new: normal/P1; 1 missing: covid/P1"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=lambda value: getattr(value, "__name__", None))
def test_a_changed_study_is_noticed(cohort, copy, change, words):
    change(copy)
    with pytest.raises(UserError, match=r"does not hold the studies that .* give another --data_dir, or ") as error:
        small_builder(cohort / "data").prepare(copy)
    assert f"({words})" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_only_copied_touched_or_linked_is_taken(cohort, copy, tmp_path, capfd):
    for path in copy.rglob("*.*"):
        os.utime(path, ns=(0, SECOND))
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "covid").symlink_to(copy / "covid")
    (linked / "normal").mkdir()
    (linked / "normal/P2").symlink_to(copy / "normal/P2")
    (linked / "normal/b.nii").symlink_to(copy / "normal/b.nii")
    for root in (copy, linked):
        small_builder(cohort / "data").prepare(root)
        assert "Comparing files that have new times" in capfd.readouterr().err


def test_files_with_the_times_of_the_build_are_not_read(cohort, monkeypatch):
    monkeypatch.setattr(sources, "_hash_file", lambda file: pytest.fail("read"))
    small_builder(cohort / "data").prepare(cohort / "raw")


def test_records_do_not_hold_where_the_studies_were(cohort):
    metadata = Path(small_builder(cohort / "data").data_dir, "metadata.json").read_text()
    assert str(cohort) not in metadata
    assert ".dcm" not in metadata


def test_what_is_no_regular_file_is_not_read(tmp_path):
    (tmp_path / "P1").mkdir()
    os.mkfifo(tmp_path / "P1/pipe.dcm")
    (tmp_path / "P1/endless.dcm").symlink_to("/dev/zero")
    (tmp_path / "P1/gone.dcm").symlink_to(tmp_path / "gone")
    hashes = sources.hash_sources(FileStudy("P1", "covid", tmp_path / "P1"))
    assert all(len(value) == 64 for value in hashes)


def test_a_folder_that_is_gone_names_how_to_use_the_records_without_it(cohort):
    with pytest.raises(
        UserError, match=r"--manual_dir=\S+gone: is not a folder.*or --data_dir=\S+data --manual_dir= to use"
    ):
        small_builder(cohort / "data").prepare(cohort / "gone")
    small_builder(cohort / "data").prepare()


def test_records_inside_the_folder_of_studies_are_refused(copy):
    for data_dir in (copy / "data", copy):
        with pytest.raises(UserError, match=r"--data_dir=\S+: is in --manual_dir=\S+raw, .*; give a folder outside"):
            small_builder(data_dir).prepare(copy)


@pytest.fixture
def earlier(cohort, tmp_path):
    """Records of an earlier version, which held no hashes."""
    made = small_builder(shutil.copytree(cohort / "data", tmp_path / "data"))
    path = Path(made.data_dir, "metadata.json")
    metadata = json.loads(path.read_text())
    del metadata["sources"]
    path.write_text(json.dumps(metadata))
    return tmp_path / "data"


def test_earlier_records_are_used_with_a_warning(earlier, cohort, caplog):
    with caplog.at_level(logging.WARNING):
        small_builder(earlier).prepare(cohort / "raw")
    assert "was built by an earlier version" in caplog.text
    assert "python -m covidscan.build" in caplog.text


def test_earlier_records_of_other_studies_are_not_used(earlier, copy):
    (copy / "covid/a.nii").rename(copy / "covid/c.nii")
    with pytest.raises(UserError, match="1 new: covid/c; 1 missing: covid/a"):
        small_builder(earlier).prepare(copy)


def test_earlier_records_tell_sizes_of_nifti_files(earlier, copy, cohort):
    path = Path(small_builder(earlier).data_dir, "metadata.json")
    studies = catalog.load_builder("ct_folder/64x64x32", earlier)._list_folder(cohort / "raw")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"listing_sha256": sources._listing_sha256(studies)}))
    small_builder(earlier).prepare(cohort / "raw")
    (copy / "covid/a.nii").write_bytes((copy / "covid/a.nii").read_bytes() + b"more")
    with pytest.raises(UserError, match=r"\(files of other sizes\)"):
        small_builder(earlier).prepare(copy)


def test_the_command_in_the_error_updates_the_records(tmp_path):
    """Copied from the message and run, with names that a shell would take apart."""
    root, data = tmp_path / "my studies", tmp_path / "da'ta"
    flags = ["--dataset=ct_folder/64x64x32", f"--data_dir={data}", f"--manual_dir={root}", "--on_bad_study=skip"]
    command = [sys.executable, "-m", "covidscan.build", *flags]
    for number in range(2):
        write_nifti(root / f"{number}/a.nii.gz", chest(number))
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    write_nifti(root / "1/a.nii.gz", chest(7))
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    again = refused.stderr.partition("prepare what changed: ")[2].strip()
    again = again.replace("python -m", f"{shlex.quote(sys.executable)} -m")
    subprocess.run(again, shell=True, cwd=ROOT, check=True, capture_output=True)
