"""Layouts of public data sets: from the folder by way of the table that inspect writes to predictions."""

import csv
import json

import pytest

from tests.support import runs
from tests.support.chest import write_nifti, write_series
from tests.support.layouts import one_file, tcia_series
from tfds_mosmed.ct_phantom.generator import CATEGORIES, make_phantom

TINY = ("--model=covidscan_cnn", "--width=4", "--batch_size=4", "--epochs=1", "--log_every=1", *runs.STILL)


def _scan(number):
    """Return voxels and spacing of a person's phantom; copies of one chest would be taken for a leak."""
    phantom = make_phantom(number, CATEGORIES[number % 4], 64)
    return {"hu": phantom.hu, "spacing": phantom.spacing_mm}


def _covid_ct_md(root):
    """Three classes; a folder of DICOM files a patient, all with UIDs of their own, and labels of slices beside."""
    for number in range(12):
        kind, name = (("COVID-19 Cases", "P"), ("Cap Cases", "cap"), ("Normal Cases", "normal"))[number % 3]
        scan = _scan(number)
        names = [f"IM{slice_:04d}.dcm" for slice_ in range(len(scan["hu"]))]
        tags = {"StudyInstanceUID": f"1.{number}", "PatientID": f"{name}{number}"}
        write_series(root / kind / f"{name}{number:03d}", names=names, **scan, **tags)
    for name in ("Index.csv", "Slice-level-labels.npy", "Lobe-level-labels.npy"):
        (root / name).write_text("labels")
    return root / "Cap Cases/cap001"


def _midrc_ricord(root):
    """Two collections; patients with one or two studies, of several series each."""
    for number in range(8):
        collection = f"MIDRC-RICORD-1{'AB'[number % 2]}"
        patient = f"{collection}-419639-{number:06d}"
        for visit in range(1 + (number % 5 == 0)):
            study = root / collection / patient / f"0{visit + 1}-02-2002-NA-CT CHEST-0461{visit}"
            uid, scan = f"1.{number}.{visit}", _scan(2 * number + visit)
            tcia_series(study / "3.000000-ROUTINE CHEST NON-CON-97101", patient, uid, **scan)
            tcia_series(study / "2.000000-LUNG-97100", patient, uid, **scan, ConvolutionKernel="LUNG")
            one_file(study / "1.000000-SCOUT-1", patient, uid, "CT", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (root / "metadata.csv").write_text("Series UID,Collection")
    return study


def _lidc_idri(root):
    """Patients without classes, annotations in XML beside the slices, some with an X-ray."""
    for number in range(8):
        patient = root / "LIDC-IDRI" / f"LIDC-IDRI-{number:04d}"
        series = patient / "01-01-2000-NA-NA-30178" / "3000566.000000-NA-03192"
        tcia_series(series, patient.name, f"1.{number}", **_scan(number))
        (series / "069.xml").write_text("<LidcReadMessage/>")
        if number % 4 == 0:
            one_file(patient / "01-01-2000-NA-NA-35511/3000923.000000-NA-62357", patient.name, f"2.{number}", "DX")
    return series


def _nsclc_radiomics(root):
    """Patients without classes; a structure set and a segmentation in folders beside that of the CT."""
    for number in range(8):
        study = root / f"NSCLC-Radiomics/LUNG1-{number:03d}/09-18-2008-StudyID-NA-69331"
        patient, uid = study.parent.name, f"1.{number}"
        tcia_series(study / "0.000000-NA-82046", patient, uid, **_scan(number))
        one_file(study / "3.000000-NA-78236", patient, uid, "RTSTRUCT")
        one_file(study / "300.000000-Segmentation-9.554", patient, uid, "SEG", NumberOfFrames=14)
    return study


def _bimcv_covid19(root):
    """Subjects and sessions as in BIDS, CT as NIfTI beside X-rays as PNG, and a table of labels."""
    for number in range(8):
        for session in range(1 + (number % 5 == 0)):
            subject, name = f"sub-S{number:05d}", f"ses-E{number:04d}{session}"
            stem = f"{subject}_{name}_run-1_bp-chest"
            path = root / subject / name / "mod-rx" / f"{stem}_ct.nii.gz"
            write_nifti(path, **_scan(2 * number + session))
            path.with_name(f"{stem}_ct.json").write_text("{}")
            path.with_name(f"{stem}_vp-ap_cr.png").write_bytes(b"\x89PNG")
    (root / "derivatives/labels").mkdir(parents=True)
    (root / "derivatives/labels/labels_covid19_posi.tsv").write_text("PatientID\tLabels\n")
    return path


LAYOUTS = {
    "COVID-CT-MD": (_covid_ct_md, 12, 12, "classes", None),
    "MIDRC-RICORD": (_midrc_ricord, 10, 8, "binary", None),
    "LIDC-IDRI": (_lidc_idri, 8, 8, "binary", ("normal", "suspicious")),
    "NSCLC-Radiomics": (_nsclc_radiomics, 8, 8, "classes", ("adenocarcinoma", "large cell")),
    "BIMCV-COVID19": (_bimcv_covid19, 10, 8, "binary", ("normal", "covid")),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_public_layout_goes_from_the_folder_to_predictions(name, tmp_path):
    write, num_studies, num_patients, task, labels = LAYOUTS[name]
    root, workdir, table = tmp_path / "root", tmp_path / "run", tmp_path / "inspection/table.csv"
    raw = write(root)
    runs.run("inspect", f"--output_dir={table.parent}", str(root))
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == num_studies
    assert len({row["patient"] for row in rows}) == num_patients
    patients = sorted({row["patient"] for row in rows})
    for row in rows:
        assert (row["label"] == "") == (labels is not None)
        row["label"] = row["label"] or labels[patients.index(row["patient"]) % 2]
    with table.open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    data = ["--dataset=ct_table/64x64x32", f"--data_dir={tmp_path / 'data'}"]
    built = runs.run("build", *data, f"--table={table}", f"--manual_dir={root}")
    assert f"{num_studies} studies can be used" in built.stdout
    negative = ["--negative_categories=normal,MIDRC-RICORD-1B"] if task == "binary" else []
    runs.run("train", *TINY, f"--task={task}", *negative, *data, f"--workdir={workdir}")
    evaluated = runs.run("evaluate", f"--workdir={workdir}")
    (folder,) = (workdir / "evaluations").iterdir()
    stored = runs.predictions(folder)
    written = {row["path"].removesuffix(".nii.gz"): row["label"] for row in rows}
    assert stored.keys() < written.keys()
    for study_id, row in stored.items():
        is_negative = written[study_id] in ("normal", "MIDRC-RICORD-1B")
        assert row["label"] == {"classes": written[study_id], "binary": ("positive", "negative")[is_negative]}[task]
    parts = json.loads((workdir / "config.json").read_text())["data"]
    assert parts["num_train"] + len(stored) < num_studies
    assert "Report" in evaluated.stdout
    done = runs.run("predict", f"--workdir={workdir}", str(raw))
    (row,) = csv.DictReader(done.stdout.splitlines())
    assert (row["path"], row["error"]) == (str(raw), "")
