"""Studies in .zip archives."""

import os
import stat
import zipfile

import numpy as np
import pytest

from tests.support.chest import chest, thin_chest, write_nifti, write_series
from tests.support.refusals import assert_refused
from tfds_mosmed.scans import archive
from tfds_mosmed.scans.find import find_studies
from tfds_mosmed.scans.read import read_scan

HU = chest()


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Unpack into a folder of the test, and find it empty in the end."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    yield tmp_path / "temporary"
    assert [path for path in (tmp_path / "temporary").rglob("*") if path.name != f"covidscan-{os.getuid()}"] == []


def zipped(path, *folders, prefix=""):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for folder in folders:
            for member in sorted(folder.rglob("*.*")):
                if member.is_file():
                    file.write(member, prefix + str(member.relative_to(folder.parent)))
    return path


@pytest.mark.parametrize("prefix", ["", "__other/", "/", "../../", "C:\\", "x" * 300 + "/", "Planted^Näme/"])
@pytest.mark.parametrize("name", ["{:03d}.dcm", "1.2.840.5.{}", "IM{}.1"])
def test_a_series_is_read_wherever_its_names_point(tmp_path, prefix, name):
    write_series(tmp_path / "P1", HU, [name.format(index) for index in range(28)])
    (tmp_path / "P1/DICOMDIR.").write_bytes(b"")
    path = zipped(tmp_path / "a.ZIP", tmp_path / "P1", prefix=prefix)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("__MACOSX/P1/._000.dcm", "left by a Mac")
        file.writestr(".hidden/000.dcm", "hidden")
        file.writestr("P1/report.pdf", "not a slice")
    np.testing.assert_array_equal(read_scan(path).hu, HU)
    assert set(os.listdir(tmp_path)) == {"P1", "a.ZIP", "temporary"}


def test_an_image_or_a_study_of_several_series_is_read(tmp_path):
    write_nifti(tmp_path / "N/a.nii.gz", HU)
    (tmp_path / "N/readme.1").write_text("not a study")
    np.testing.assert_array_equal(read_scan(zipped(tmp_path / "n.zip", tmp_path / "N")).hu, HU)
    write_series(tmp_path / "S/thin", thin_chest(), spacing=(4, 4, 4), series="1.2.3.2")
    write_series(tmp_path / "S/thick", HU, series="1.2.3.3")
    scan = read_scan(zipped(tmp_path / "s.zip", tmp_path / "S"))
    np.testing.assert_array_equal(scan.hu, HU)
    assert "2 series" in scan.warnings[0]


def test_archives_are_found_and_others_are_counted(tmp_path, caplog):
    write_series(tmp_path / "P1", HU)
    (tmp_path / "root").mkdir()
    zipped(tmp_path / "root/a.zip", tmp_path / "P1")
    (tmp_path / "root/damaged.zip").write_bytes(b"PK")
    with zipfile.ZipFile(tmp_path / "root/code.zip", "w") as file:
        file.writestr("code.py", "")
        file.writestr("LICENSE", "")
    root = tmp_path / "root"
    assert [study.path for study in find_studies([str(root)])] == [root / "a.zip", root / "damaged.zip"]
    assert "left out 1 .zip" in caplog.text


def test_what_is_no_study_is_named(tmp_path):
    for number in (1, 2):
        write_series(tmp_path / f"P{number}", HU, StudyInstanceUID=f"1.{number}", series=f"2.{number}")
    assert_refused(zipped(tmp_path / "two.zip", tmp_path / "P1", tmp_path / "P2"), "holds 2 studies")
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as file:
        file.writestr("Planted.txt", "")
    assert_refused(tmp_path / "none.zip", "holds no CT study in DICOM or NIfTI format; give")
    with zipfile.ZipFile(tmp_path / "nested.zip", "w") as file:
        file.write(tmp_path / "two.zip", "Planted/two.zip")
        file.writestr("Planted.mha", "")
    assert_refused(tmp_path / "nested.zip", "holds no CT study in DICOM or NIfTI format but 1 .zip, 1 .mha; give")
    (tmp_path / "damaged.zip").write_bytes(b"PK\3\4")
    assert_refused(tmp_path / "damaged.zip", "cannot be unpacked (damaged or cut short)")
    assert_refused(tmp_path / "gone.zip", "cannot be unpacked (No such file or directory)")
    for name, place, byte in (("encrypted", 6, 1), ("method", 8, 99)):
        path = zipped(tmp_path / f"{name}.zip", tmp_path / "P1", prefix="Planted/")
        content = bytearray(path.read_bytes())
        start = content.index(b"PK\1\2")
        content[start + place + 2] = content[place] = byte
        path.write_bytes(content)
        assert_refused(
            path, "cannot be unpacked (it is encrypted" if place == 6 else "cannot be unpacked (unknown comp"
        )
    path = zipped(tmp_path / "bytes.zip", tmp_path / "P1", prefix="Planted/")
    content = bytearray(path.read_bytes())
    content[3000] ^= 255
    path.write_bytes(content)
    assert_refused(path, "cannot be unpacked (damaged")


def test_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(3):
            file.writestr(f"{number}.nii", bytes(1 << 20))
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 2 << 20)
    monkeypatch.setattr("shutil.copyfileobj", lambda *_: pytest.fail("unpacked"))
    assert_refused(tmp_path / "bomb.zip", "holds 3 files of 0.0 GiB")
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 1 << 30)
    monkeypatch.setattr(archive, "MAX_MEMBERS", 2)
    assert_refused(tmp_path / "bomb.zip", "holds 3 files")


def test_a_member_larger_than_it_declares_is_cut(tmp_path):
    write_nifti(tmp_path / "N/a.nii", HU)
    path = zipped(tmp_path / "lies.zip", tmp_path / "N")
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\1\2")
    content[start + 24 : start + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(content)
    assert_refused(path, "cannot be unpacked (damaged")


def test_only_the_user_can_read_what_is_unpacked_and_killed_readers_leave_nothing(tmp_path, temporary):
    write_nifti(tmp_path / "N/a.nii", HU)
    path = zipped(tmp_path / "n.zip", tmp_path / "N")
    with archive.unpacked(path, "n") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    left = temporary / f"covidscan-{os.getuid()}" / ".0123.partial"
    left.mkdir()
    (left / "slice").touch()
    read_scan(path)
    assert not left.exists()
