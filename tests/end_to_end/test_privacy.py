"""Privacy: planted identifying values occur in no output of a prediction."""

import base64
import gzip
import re

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
NEEDLES = [
    word.encode()
    for value in (*PLANTED.values(), "1.2.77777.3", "planteddescription", "plantedaux", "plantedfolder", "plantedfile")
    for word in value.lower().split("^")
]


@pytest.fixture(scope="module")
def outputs(trained, tmp_path_factory):
    """All bytes that a prediction with explanations writes, by where it writes them; the user types `folder` alone."""
    folder, written = tmp_path_factory.mktemp("typed"), tmp_path_factory.mktemp("out")
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
    for flags in (["--format=json", "--explain"], ["--format=csv", "-v=1"]):
        done = runs.run("predict", f"--workdir={trained}", f"--output_dir={written}", *flags, str(folder), check=False)
        found |= {f"stdout {flags}": done.stdout.encode(), f"stderr {flags}": done.stderr.encode()}
    for path in written.iterdir():
        content = path.read_bytes()
        found[path.name] = path.name.encode() + (gzip.decompress(content) if path.suffix == ".gz" else content)
        for number, packed in enumerate(re.findall(rb"[A-Za-z0-9+/]{200,}={0,2}", content)):
            data = base64.b64decode(packed + b"=" * (-len(packed) % 4))
            found[f"{path.name} #{number}"] = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    return found


def test_every_output_was_searched(outputs):
    assert b'"error"' in outputs["predictions.jsonl"]
    assert outputs["predictions.jsonl"].count(b"\n") == 4
    assert outputs["predictions.jsonl"].count(b'"error": null') == 2
    for ending in ("_grad_cam.nii.gz", "_integrated_gradients.nii.gz", ".png", ".html"):
        assert sum(name.endswith(ending) for name in outputs) == 2


def test_nothing_planted_is_in_any_output(outputs):
    for name, content in outputs.items():
        text = content.lower()
        assert not [needle for needle in NEEDLES if needle in text], name
