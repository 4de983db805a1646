"""Inspection of a cohort by the command: text, page, table, contact sheet; names are in the tables alone."""

import csv
import io
import json
import os

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import sync_playwright

from covidscan.report import cohort_files
from covidscan.report.contact_sheet import contact_sheet
from tests.support import in_process, real_ct, runs
from tests.support.chest import chest, write_nifti, write_series
from tests.support.chromium import ARGUMENTS, CHROMIUM, leaves
from tfds_mosmed.errors import one_line
from tfds_mosmed.inspection.listing import list_table

SPACING = (16.0, 8.0, 8.0)
TAGS = {"Manufacturer": "SIEMENS", "InstitutionName": "Plantedclinic", "ConvolutionKernel": "B31f"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Seven DICOM studies of covid with thick slices, six of normal with thin ones; one damaged, one copied."""
    root = tmp_path_factory.mktemp("cohort") / "Plantedroot"
    for number in range(7):
        name, hu = f"Plantedpatient{number}", chest(number)[::2, ::2, ::2]
        write_series(root / "covid" / name, hu, spacing=SPACING, PatientID=name, StudyInstanceUID=f"1.{number}", **TAGS)
    for number in range(7, 13):
        write_nifti(root / "normal" / f"PlantedN{number}" / "=Planted.nii", chest(number)[:, ::2, ::2], (8.0, 8.0, 8.0))
    (root / "normal" / "Planteddamaged.nii.gz").write_bytes(b"\x1f\x8b nothing")
    write_nifti(root / "normal" / "Plantedcopy.nii", chest(7)[:, ::2, ::2], (8.0, 8.0, 8.0))
    (root / "normal" / "Planted.nrrd").write_bytes(b"NRRD")
    return root


@pytest.fixture(scope="module")
def inspected(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "inspection"
    return in_process.run("inspect", f"--output_dir={folder}", str(root)), folder


def test_the_console_tells_what_is_there_and_what_is_wrong(inspected):
    done, folder = inspected
    assert done.returncode == 0, done.stderr
    assert "13 studies can be used: 7 covid, 6 normal." in done.stdout
    assert "2 studies cannot be used:" in done.stdout
    assert "1 x one study under two names" in done.stdout
    assert "1 x is damaged or cut short" in done.stdout
    assert "Left out 1 .nrrd" in done.stdout
    assert "Warning, likely shortcut: slices: covid has a median of 14, normal one of 28 (AUROC 1.00" in done.stdout
    assert "“DICOM” is that of 7 of 7 studies of covid and 0 of 6 studies of normal" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("Reading: 15 studies in ")
    summary = json.loads((folder / "summary.json").read_bytes())
    assert summary["classes"] == {"covid": 7, "normal": 6}
    assert {each["name"] for each in summary["shortcuts"]} >= {"slices", "slice spacing (mm)", "file format"}


def test_names_are_in_the_tables_alone(inspected):
    done, folder = inspected
    written = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert written[-1].name == "table.csv", "where it is, an inspection that was stopped could not be repeated"
    assert sorted(path.name for path in folder.iterdir()) == [
        "contact_sheet.pdf", "contact_sheet.png", "index.html", "summary.json", "table.csv", "unusable.csv"
    ]  # fmt: skip
    for name in ("index.html", "summary.json", "contact_sheet.png", "contact_sheet.pdf"):
        assert b"planted" not in (folder / name).read_bytes().lower()
    assert "planted" not in done.stdout.lower()


def test_the_table_names_the_studies_and_is_harmless_in_a_spreadsheet(inspected, root):
    _, folder = inspected
    rows = list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    assert [row["label"] for row in rows] == ["covid"] * 7 + ["normal"] * 6
    assert all((root / row["path"]).exists() for row in rows)
    assert len({row["patient"] for row in rows}) == 13
    assert "site" not in rows[0]  # the NIfTI files tell none
    assert {(row["scanner"], row["kernel"], row["contrast agent"]) for row in rows[:7]} == {
        ("SIEMENS", "B31f", "none stated")
    }
    assert "planted" not in "".join(row["patient"] for row in rows).lower()
    table = cohort_files._csv(("path", "label"), [("=1.nii", "=x"), ("a/b", "covid")])
    assert table == b"path,label\n./=1.nii,'=x\na/b,covid\n"
    unusable = list(csv.DictReader(io.StringIO((folder / "unusable.csv").read_text())))
    assert "normal/Planteddamaged.nii.gz" in {row["path"] for row in unusable}


def test_the_table_can_be_inspected_and_built_from(inspected, root, tmp_path):
    """Without its labels as well, and with a mistake, which is told by its line."""
    _, folder = inspected
    lines = (folder / "table.csv").read_text().splitlines()
    (tmp_path / "three.csv").write_text("\n".join([lines[0], lines[1], lines[2], lines[8]]) + "\n")
    out = tmp_path / "out"
    done = in_process.run("inspect", f"--manual_dir={root}", f"--output_dir={out}", str(tmp_path / "three.csv"))
    assert done.returncode == 0, done.stderr
    assert "The classes are those of the table." in done.stdout
    assert "3 studies can be used: 2 covid, 1 normal." in done.stdout
    assert not (out / "table.csv").exists()
    unlabelled = tmp_path / "unlabelled.csv"
    unlabelled.write_text("path\n" + "\n".join(line.split(",")[0] for line in lines[1:]) + "\n")
    assert {study.category for study in list_table(unlabelled, root).studies} == {""}
    (tmp_path / "wrong.csv").write_text("path,label\nabsent.nii,covid\n")
    done = in_process.run("inspect", f"--manual_dir={root}", str(tmp_path / "wrong.csv"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "line 2, column path: is 'absent.nii', which is not in" in done.stderr


def test_the_contact_sheet_has_a_slice_of_each_study(inspected):
    _, folder = inspected
    sheet = np.asarray(Image.open(folder / "contact_sheet.png"))
    assert sheet.shape == (2 * (192 + 15), 8 * 192)
    lit = [
        sheet[row * 207 + 15 : (row + 1) * 207, column * 192 :][:, :192].mean() > 20
        for row in (0, 1)
        for column in range(8)
    ]
    assert lit == [True] * 13 + [False] * 3
    many = contact_sheet([np.full((192, 150), 90, np.uint8)] * 301, ["1 covid"] * 301)
    assert Image.open(io.BytesIO(many)).size == (1600, 16 * 95)


@pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="no chromium: apt-get install chromium")
def test_the_page_is_accessible_and_fetches_nothing(inspected):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page, wrong = browser.new_page(viewport={"width": 390, "height": 800}), []
        page.on("console", lambda message: wrong.append(message.text))
        page.on("request", lambda request: wrong.append(request.url) if leaves(request.url) else None)
        page.goto(f"file://{inspected[1]}/index.html")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("document.querySelector('figure img').naturalWidth") == 8 * 192
        assert wrong == []
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        page.emulate_media(color_scheme="dark")
        found = Axe().run(page, options={"runOnly": ["color-contrast"]})
        assert found.violations_count == 0, found.generate_report()
        browser.close()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["{root}/absent"], "{root}/absent: is no folder; give the folder of the studies"),
        (["--output_dir={root}/out", "{root}"], "--output_dir={root}/out: is in {root}, among the studies"),
        (["--output_dir={out}", "{root}"], "{out}/table.csv: exists, and may have been edited"),
        (["{out}"], "{out}: holds no study in NIfTI or DICOM format but 1 .png"),
        (["{root}/covid/Plantedpatient0"], "holds the files of one study; give the folder above"),
    ],
)
def test_what_cannot_be_inspected_is_told_in_a_line(flags, words, inspected, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"root": root, "out": inspected[1]}
    done = in_process.run("inspect", *(flag.format(**places) for flag in flags))
    assert done.returncode == 1
    assert words.format(**places) in done.stderr
    assert done.stderr.count("\n") == 1
    assert one_line(done.stderr) == done.stderr.strip()


@real_ct.needed
def test_real_studies_can_all_be_used_without_warnings(tmp_path):
    done = runs.run("inspect", f"--output_dir={tmp_path / 'out'}", str(real_ct.FOLDER / "nifti"))
    assert "3 studies can be used: 1 cap, 1 covid, 1 normal." in done.stdout
    assert "cannot be used:" not in done.stdout
    assert "Warning" not in done.stdout


@pytest.mark.parametrize("classes", [("covid", "normal"), ("patients",)], ids=["classes", "no classes"])
def test_the_table_names_the_lesion_masks(classes, tmp_path):
    for number, name in enumerate(classes * 2):
        write_nifti(tmp_path / f"root/{name}/s{number}.nii.gz", chest(number)[:, ::2, ::2], (8.0, 8.0, 8.0))
    write_nifti(
        tmp_path / f"root/{classes[0]}/s0_mask.nii.gz", (chest(0)[:, ::2, ::2] > 300).astype(np.int16), (8.0, 8.0, 8.0)
    )
    done = in_process.run("inspect", f"--output_dir={tmp_path / 'out'}", str(tmp_path / "root"))
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
    assert {row["path"]: row["mask"] for row in rows if row["mask"]} == {
        f"{classes[0]}/s0.nii.gz": f"{classes[0]}/s0_mask.nii.gz"
    }
