"""Layouts of public data sets on disk, imitated with small chests: which studies are found and can be read."""

import pytest

from tests.support.chest import chest, write_nifti, write_series
from tests.support.layouts import SPACING, one_file, small_chest, tcia_series
from tfds_mosmed.inspection.listing import list_cohort, path_below
from tfds_mosmed.scans.acquisition import pseudonym
from tfds_mosmed.scans.scan import ScanError

HU = small_chest()


def _of(folder):
    return pseudonym("patient", folder)


def outcomes(root):
    """Return the cohort, and of each study (path, class, patient, slices or why it cannot be read)."""
    cohort, found = list_cohort(root), []
    for study in cohort.studies:
        try:
            result = len(study.load().scan.hu)
        except ScanError as error:
            result = str(error).partition(": ")[2]
        found.append((path_below(root, study), study.category, study.patient, result))
    return cohort, found


def test_covid_ct_md(tmp_path):
    for number, (kind, patient) in enumerate(
        [("COVID-19 Cases", "P001"), ("COVID-19 Cases", "P002"), ("Cap Cases", "cap001"), ("Normal Cases", "normal001")]
    ):
        names = [f"IM{slice_:04d}.dcm" for slice_ in range(len(HU))]
        write_series(tmp_path / kind / patient, HU, names, spacing=SPACING, StudyInstanceUID=f"1.{number}")
    for name in ("Index.csv", "Slice-level-labels.npy", "Lobe-level-labels.npy"):
        (tmp_path / name).write_text("labels")
    cohort, found = outcomes(tmp_path)
    assert found == [
        ("COVID-19 Cases/P001", "COVID-19 Cases", "", 14),
        ("COVID-19 Cases/P002", "COVID-19 Cases", "", 14),
        ("Cap Cases/cap001", "Cap Cases", "", 14),
        ("Normal Cases/normal001", "Normal Cases", "", 14),
    ]
    assert cohort.left_out[".npy"] == 2


def test_midrc_ricord(tmp_path):
    """Two collections, positive and negative; a patient with two studies, one of a localizer, thin and thick slices."""
    first = tmp_path / "MIDRC-RICORD-1A/MIDRC-RICORD-1A-419639-000082/08-02-2002-NA-CT CHEST WITHOUT CONTRAST-04614"
    thin = {"hu": chest()[:, ::2, ::2], "spacing": (8.0, 8.0, 8.0), "ConvolutionKernel": "LUNG"}
    tcia_series(first / "2.000000-ROUTINE CHEST NON-CON-97100", "A-82", "1.1", **thin)
    tcia_series(first / "3.000000-ROUTINE CHEST NON-CON-97101", "A-82", "1.1", ConvolutionKernel="STANDARD")
    one_file(first / "1.000000-SCOUT-12345", "A-82", "1.1", "CT", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    second = first.with_name("09-02-2002-NA-CT CHEST-11111")
    tcia_series(second / "2.000000-CHEST-22222", "A-82", "1.2")
    other = tmp_path / "MIDRC-RICORD-1B/MIDRC-RICORD-1B-419639-000101/01-02-2003-NA-CT CHEST-33333"
    tcia_series(other / "5.000000-CHEST-44444", "B-101", "1.3")
    (tmp_path / "metadata.csv").write_text("Series UID,Collection")
    _, found = outcomes(tmp_path)
    assert found == [
        (str(first.relative_to(tmp_path)), "MIDRC-RICORD-1A", _of("MIDRC-RICORD-1A-419639-000082"), 14),
        (
            f"{second.relative_to(tmp_path)}/2.000000-CHEST-22222",
            "MIDRC-RICORD-1A",
            _of("MIDRC-RICORD-1A-419639-000082"),
            14,
        ),
        (
            f"{other.relative_to(tmp_path)}/5.000000-CHEST-44444",
            "MIDRC-RICORD-1B",
            _of("MIDRC-RICORD-1B-419639-000101"),
            14,
        ),
    ]


@pytest.mark.parametrize("above", ["", "LIDC-IDRI"])
def test_lidc_idri(above, tmp_path):
    """Patients without classes, some with an X-ray in a study of its own, annotations in XML beside the slices."""
    for number in (1, 2):
        patient = tmp_path / above / f"LIDC-IDRI-000{number}"
        series = patient / "01-01-2000-NA-NA-30178" / "3000566.000000-NA-03192"
        tcia_series(series, patient.name, f"1.{number}")
        (series / "069.xml").write_text("<LidcReadMessage/>")
    one_file(patient / "01-01-2000-NA-NA-35511" / "3000923.000000-NA-62357", patient.name, "1.9", "DX")
    (tmp_path / "metadata.csv").write_text("Series UID,Collection")
    cohort, found = outcomes(tmp_path)
    assert [(label, folder) for _, label, folder, _ in found] == [
        ("", _of(f"LIDC-IDRI-000{number}")) for number in (1, 2, 2)
    ]
    assert [result for *_, result in found[:2]] == [14, 14]
    assert "1 of another modality than CT" in str(found[2][-1])
    assert cohort.layout.endswith("Fill in the column label of table.csv.")


def test_nsclc_radiomics(tmp_path):
    """A structure set and a segmentation in folders beside that of the CT."""
    for number in (1, 2):
        study = tmp_path / f"NSCLC-Radiomics/LUNG1-00{number}/09-18-2008-StudyID-NA-69331"
        tcia_series(study / "0.000000-NA-82046", study.parent.name, f"1.{number}")
        one_file(study / "3.000000-NA-78236", study.parent.name, f"1.{number}", "RTSTRUCT")
        one_file(study / "300.000000-Segmentation-9.554", study.parent.name, f"1.{number}", "SEG", NumberOfFrames=14)
    _, found = outcomes(tmp_path)
    assert found == [
        (f"NSCLC-Radiomics/LUNG1-00{n}/09-18-2008-StudyID-NA-69331", "", _of(f"LUNG1-00{n}"), 14) for n in (1, 2)
    ]


def test_bimcv_covid19(tmp_path, caplog):
    """Subjects and sessions as in BIDS; X-rays as PNG beside CT as NIfTI, and tables of labels without images."""
    for subject, sessions in (("sub-S03044", ("ses-E06164", "ses-E06165")), ("sub-S03047", ("ses-E07985",))):
        for session in sessions:
            folder = tmp_path / subject / session / "mod-rx"
            write_nifti(folder / f"{subject}_{session}_run-1_bp-chest_ct.nii.gz", HU, SPACING)
            (folder / f"{subject}_{session}_run-1_bp-chest_ct.json").write_text("{}")
            (folder / f"{subject}_{session}_run-1_bp-chest_vp-ap_cr.png").write_bytes(b"\x89PNG")
        (tmp_path / subject / f"{subject}_sessions.tsv").write_text("session_id\n")
    (tmp_path / "derivatives/labels").mkdir(parents=True)
    (tmp_path / "derivatives/labels/labels_covid19_posi.tsv").write_text("PatientID\tLabels\n")
    (tmp_path / "participants.tsv").write_text("participant\n")
    cohort, found = outcomes(tmp_path)
    assert found == [
        (f"{subject}/{session}/mod-rx/{subject}_{session}_run-1_bp-chest_ct.nii.gz", "", _of(subject), 14)
        for subject, session in (
            ("sub-S03044", "ses-E06164"), ("sub-S03044", "ses-E06165"), ("sub-S03047", "ses-E07985")
        )
    ]  # fmt: skip
    assert cohort.left_out[".png"] == 3
    assert "derivatives: holds no study" in caplog.text
    assert "derivatives" not in cohort.layout


@pytest.mark.parametrize(
    ("folders", "is_classes"),
    [
        (["CT-0/a", "CT-0/b", "CT-0/c", "CT-0/d", *(f"CT-{n}/{s}" for n in (1, 2) for s in "efgh")], True),
        (["covid/a", "normal/b"], True),
        (["P1/a", "P2/b", "P3/c", "P3/d"], False),
        ([f"{name}/a" for name in "abcdefghijklmnopqrstuv"], False),
        (["train/a", "test/b"], False),
    ],
)
def test_folders_of_classes_and_of_patients(folders, is_classes, tmp_path):
    for name in folders:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.nii").touch()
    studies = list_cohort(tmp_path).studies
    assert len(studies) == len(folders)
    assert {study.category for study in studies} == ({name.split("/")[0] for name in folders} if is_classes else {""})
