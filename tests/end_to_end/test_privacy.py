"""Privacy: planted identifying values are in no output of a prediction; names of files in its rows alone."""

import base64
import gzip
import re
import shutil

import nibabel as nib
import pytest

from tests.support import runs
from tests.support.chest import chest, dicom_slice, las_affine, to_las

PLANTED = {
    "PatientName": "Plantedname^Plantedfirst",
    "PatientID": "PLANTEDID77",
    "PatientBirthDate": "19011231",
    "StudyDate": "19991130",
    "SeriesDate": "19991129",
    "StudyTime": "235957",
    "AccessionNumber": "PLANTEDACC",
    "InstitutionName": "Plantedclinic",
    "ReferringPhysicianName": "Planteddoctor^Plantedson",
    "StudyDescription": "Plantedstudy",
    "SeriesDescription": "Plantedseries",
    "PatientComments": "Plantedcomment",
    "StudyID": "PLANTEDSTUDY",
    "StudyInstanceUID": "1.2.77777.1",
    "FrameOfReferenceUID": "1.2.77777.2",
    "DeviceSerialNumber": "PLANTEDSERIAL",
    "StationName": "PLANTEDSTATION",
    "ProtocolName": "Plantedprotocol",
}
IN_FILES = [
    word.encode()
    for value in (*PLANTED.values(), "1.2.77777.3", "planteddescription", "plantedaux")
    for word in value.lower().split("^")
]
IN_PATHS = [b"plantedfolder", b"plantedfile", b"plantedtyped"]
# Which stay with the user: they alone tell which row is which file.
KEPT = ("predictions.csv", "predictions.jsonl")


@pytest.fixture(scope="module")
def outputs(trained, tmp_path_factory):
    """All bytes that a prediction with explanations writes, by where it writes them; the user types `folder` alone."""
    folder, out = tmp_path_factory.mktemp("typed"), tmp_path_factory.mktemp("out")
    hu = chest(0)
    patient = folder / "plantedfolder" / "series"
    patient.mkdir(parents=True)
    for place, plane in enumerate(hu):
        slice_ = dicom_slice(plane, place, series="1.2.77777.3", **PLANTED)
        slice_.save_as(patient / f"plantedfile{place}.dcm", enforce_file_format=True)
    broken = folder / "plantedfolder2"
    broken.mkdir()
    for place, plane in enumerate(hu[:3]):
        tags = {**PLANTED, "StudyInstanceUID": "1.2.77777.4"}
        dicom_slice(plane, place, series="1.2.77777.3", **tags).save_as(
            broken / f"plantedfile{place}.dcm", enforce_file_format=True
        )
    image = nib.Nifti1Image(to_las(hu), las_affine())
    image.header["descrip"], image.header["aux_file"] = b"planteddescription", b"plantedaux"
    nib.save(image, folder / "plantedfile.nii.gz")
    (folder / "plantedfile_broken.nii.gz").write_bytes((folder / "plantedfile.nii.gz").read_bytes()[:5000])
    found = {}
    typed = folder.with_name("plantedtyped.nii.gz")
    shutil.copy(folder / "plantedfile.nii.gz", typed)
    for flags in (["--format=json", "--explain"], ["--format=csv", "-v=1"]):
        written = out / flags[0].removeprefix("--format=")
        paths = [str(folder), *[str(typed)] * ("--explain" in flags)]
        done = runs.run("predict", f"--workdir={trained}", f"--output_dir={written}", *flags, *paths, check=False)
        found |= {f"stdout {flags}": done.stdout.encode(), f"stderr {flags}": done.stderr.encode()}
        found |= {path.name: path.read_bytes() for path in written.iterdir()}
    for name, content in list(found.items()):
        whole = gzip.decompress(content) if name.endswith(".gz") else content
        found[name] = name.encode() + whole
        for number, packed in enumerate(re.findall(rb"[A-Za-z0-9+/]{200,}={0,2}", whole)):
            data = base64.b64decode(packed + b"=" * (-len(packed) % 4))
            found[f"{name} #{number}"] = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    return found


def test_every_output_was_searched(outputs):
    assert outputs["predictions.jsonl"].count(b"\n") == 5
    assert outputs["predictions.jsonl"].count(b'"error": null') == 3
    for ending in ("_grad_cam.nii.gz", "_integrated_gradients.nii.gz", "_thumbnail.png"):
        assert sum(name.endswith(ending) for name in outputs) == 3
    assert {"0001.html", "0001.png", "index.html", "predictions.csv"} <= outputs.keys()


def test_nothing_planted_in_files_is_in_any_output(outputs):
    for name, content in outputs.items():
        text = content.lower()
        assert not [needle for needle in IN_FILES if needle in text], name


def test_names_of_files_are_in_the_rows_of_the_folder_alone(outputs):
    for name, content in outputs.items():
        expected = [] if name not in KEPT else IN_PATHS if name.endswith("jsonl") else IN_PATHS[:2]
        assert [needle for needle in IN_PATHS if needle in content.lower()] == expected, name
