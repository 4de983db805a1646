"""The command inserts lesions into scans, and reports which of them the network detects."""

import base64
import csv
import dataclasses
import hashlib
import json
import re

import numpy as np
import pytest

from covidscan.metrics import detectability as results
from covidscan.metrics.detectability import Detectability, Inserted, ScanUsed, smallest_reliable, summarize
from covidscan.metrics.interval_methods import wilson
from covidscan.report import detectability as report
from covidscan.report import plots
from covidscan.report.write import shown_studies, write_evaluation
from covidscan.runs.workdir import run_id
from tests.support import evaluations, runs
from tests.support.chest import chest, write_nifti
from tests.support.evaluations import THIRTEEN, context, evaluation_json
from tests.support.loaded import load
from tfds_mosmed.errors import UserError
from tfds_mosmed.insertion.lesion import Lesion


def test_the_command_writes_table_files_and_pictures(trained, tmp_path):
    hu = chest()
    solid = np.where((hu > -930) & (hu < -700), 40, hu).astype(np.int16)
    volumes = {"patient0": hu, "patient1": chest(1), "solid": solid}
    scans = [write_nifti(tmp_path / f"{name}.nii.gz", volume) for name, volume in volumes.items()]
    flags = ("--diameters=40,20", "--densities=-550", "--places=2", "--kinds=ground_glass,reversed_halo")
    flags += (f"--workdir={trained}", *map(str, scans))
    done = runs.run("detectability", *flags, check=False)
    assert done.returncode == 3, done.stderr
    refused = [line for line in done.stderr.splitlines() if "solid" in line]
    assert len(refused) == 1
    assert "no lungs" in refused[0]
    assert "Traceback" not in done.stderr
    folder = trained / "detectability"
    assert {path.name for path in folder.iterdir()} == {
        "detectability.json",
        "detectability.png",
        "detectability.svg",
        "examples.png",
        "examples.svg",
        "insertions.csv",
    }
    result = results.read(folder, run_id(trained))
    assert [(each.kind, each.diameter_mm, each.density_hu) for each in result.detections] == [
        (kind, size, -550) for size in (20, 40) for kind in ("ground_glass", "reversed_halo")
    ]
    assert len(result.scans) == 2
    assert len(result.unusable) == 1
    with (folder / "insertions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(each.insertions for each in result.detections) >= 6
    assert {row["scan"].rpartition("/")[2] for row in rows} == {"patient0.nii.gz", "patient1.nii.gz"}
    threshold = json.loads((trained / "choices.json").read_text())[str(result.checkpoint)]["threshold"]
    assert result.threshold == threshold
    for row in rows:
        assert (float(row["probability"]) >= threshold) == (row["detected"] == "True")
    assert any(row["probability"] != row["probability_without"] for row in rows)
    for kind in ("ground_glass", "reversed_halo"):
        assert any(row["kind"] == kind for row in rows)
        assert all(f"{kind.replace('_', ' ')} of −550 HU, {size} mm" in done.stdout for size in (20, 40))
    probabilities = [
        {row["probability"] for row in rows if row["kind"] == kind} for kind in ("ground_glass", "reversed_halo")
    ]
    assert probabilities[0] != probabilities[1]
    assert {"ground glass", "reversed halo"} <= set(
        re.findall("ground glass|reversed halo", (folder / "detectability.svg").read_text())
    )
    assert "ground glass of −550 HU" in done.stdout
    assert "not accuracy" in done.stdout
    before = (folder / results.FILE).read_bytes()
    flags = ("--diameters=20", "--densities=-800", "--places=1", f"--workdir={trained}", str(scans[0]))
    done = runs.run("detectability", *flags, check=False)
    assert done.returncode == 1
    assert "no lesion could be inserted into any of 1 scans" in done.stderr.splitlines()[-1]
    assert (folder / results.FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--diameters=4,10", "--diameters=4,10 must be numbers from 5 to 40"),
        ("--densities=dense", "--densities=dense must be numbers from -800 to 30"),
        ("--densities=nan", "--densities=nan must be numbers from -800 to 30"),
        ("--places=0", "places"),
        ("--kinds=nodule", "--kinds=nodule must be of ground_glass, consolidation, reversed_halo"),
        ("--kinds=reversed_halo", "--kinds=reversed_halo needs --densities below -300"),
    ],
)
def test_what_cannot_be_inserted_is_refused_in_one_line(flag, words, tmp_path):
    done = runs.run("detectability", f"--workdir={tmp_path}", flag, str(tmp_path), check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def _scan(name, positive=False):
    return ScanUsed(name, 0.2, positive, 2, 0, 10.0, 0.5, 2.0, [])


def _inserted(scan, probability, detected, diameter=10.0, place=1, density=-550.0):
    return Inserted(scan, place, 0, 0, 0, "ground_glass", density, diameter, 0.2, probability, detected)


def _summarize(insertions, scans):
    lesions = {(each.diameter_mm, each.density_hu): Lesion(each.diameter_mm, each.density_hu) for each in insertions}
    return summarize(insertions, scans, list(lesions.values()))


def test_a_scan_is_one_trial_however_many_places_it_has():
    few = [_inserted(name, 0.9, name != "a") for name in "abc"]
    many = [_inserted(each.scan, each.probability, each.detected, place=k) for each in few for k in range(9)]
    scans = [_scan(name) for name in "abc"]
    (one,), (other,) = _summarize(few, scans), _summarize(many, scans)
    assert one.share == pytest.approx(2 / 3)
    assert one.share_interval == pytest.approx(wilson(2, 3))
    assert other.share_interval == pytest.approx(one.share_interval)
    assert other.change_interval == pytest.approx(one.change_interval)
    assert (one.insertions, other.insertions, other.scans) == (3, 27, 3)


def test_scans_that_are_positive_without_a_lesion_count_for_the_change_only():
    insertions = [_inserted("a", 0.8, True), _inserted("b", 0.2, False)]
    (found,) = _summarize(insertions, [_scan("a", positive=True), _scan("b")])
    assert (found.insertions, found.counted, found.scans, found.share) == (2, 1, 1, 0.0)
    assert found.change == pytest.approx(np.log(16) / 2)
    (none,) = _summarize(insertions, [_scan("a", positive=True), _scan("b", positive=True)])
    assert (none.share, none.share_interval) == (None, None)
    assert "not known, every scan with one is positive" in report.answers([none])[0]


def test_the_smallest_diameter_is_that_from_which_on_all_larger_are_detected():
    detected = {5.0: True, 7.0: False, 10.0: True, 20.0: True}
    insertions = [_inserted("a", 0.9, found, diameter) for diameter, found in detected.items()]
    found = _summarize(insertions, [_scan("a")])
    assert smallest_reliable(found) == 10
    assert "from 10 mm" in report.answers(found)[0]
    assert smallest_reliable(found[:2]) is None
    assert "up to 7 mm" in report.answers(found[:2])[0]


def test_sentences_hold_where_larger_lesions_are_missed_or_unknown_and_name_their_evidence():
    def answer(**detected):
        """Of insertions into the negative scans n, or p, which is positive: mm10="yes no" of that diameter."""
        scans = [_scan("n1"), _scan("n2"), _scan("p", positive=True)]
        insertions = [
            _inserted(scan, 0.9, scan != "p" and seen == "yes", float(name[2:]))
            for name, given in detected.items()
            for scan, seen in (each.split(":") for each in given.split())
        ]
        (line,) = report.answers(_summarize(insertions, scans))
        return line.removeprefix("Ground glass of −550 HU: ")

    both = "n1:yes n2:yes"
    assert answer(mm20=both, mm40="n1:yes n2:no") == (
        "not reliably detected up to 40 mm (at 40 mm 2 insertions into 2 scans, 95 % interval 9% to 91%)."
    )
    assert answer(mm20="n1:no", mm40="n1:yes n2:no").startswith("fewer than 90% are detected up to 40 mm (")
    assert answer(mm20=both, mm40="p:yes").startswith("at least 90% are detected from 20 mm (at 20 mm 2 insertions")
    assert answer(mm5="n1:yes") == (
        "at least 90% are detected from 5 mm (at 5 mm 1 insertion into 1 scan, 95 % interval 21% to 100%)."
    )
    assert answer(mm5=both, mm10="n1:yes", mm20=both) == (
        "at least 90% are detected from 5 mm up to 20 mm (at 10 mm 1 insertion into 1 scan, 95 % interval 21% to 100%)."
    )


def test_lesions_that_fit_nowhere_keep_their_line_in_table_plot_and_file():
    wanted = [Lesion(size, density) for density in (-550, -20) for size in (10.0, 40.0)]
    scans = [_scan("a")]
    detections = summarize([_inserted("a", 0.9, True)], scans, wanted)
    assert [(each.density_hu, each.diameter_mm, each.insertions, each.share) for each in detections] == [
        (-550, 10, 1, 1.0),
        (-550, 40, 0, None),
        (-20, 10, 0, None),
        (-20, 40, 0, None),
    ]
    assert report.answers(detections)[1] == "Consolidation of −20 HU: not known, none could be inserted."
    result = Detectability(7, 0.5, "2026", "1", scans, detections, [])
    assert "consolidation of −20 HU, 40 mm" in report.table(result)
    assert "none inserted" in plots.to_svg(report.plot(detections)).decode()
    assert json.loads(results.to_json(result, None))["detections"][3]["insertions"] == 0


def test_the_report_shows_it_without_names_and_only_that_of_its_checkpoint_and_threshold(tmp_path):
    insertions = [_inserted("planted-name", 0.9, True, diameter) for diameter in (10.0, 20.0)]
    scans = [_scan("planted-name")]
    evaluation, provenance = load(evaluation_json(THIRTEEN), context())
    volumes = {study_id: evaluations.chest() for study_id in shown_studies(THIRTEEN, 0.5, evaluation)}
    pictures = {"detectability.png": hashlib.sha256(b"drawn").hexdigest()}
    result = Detectability(provenance.checkpoint, 0.5, "2026", "1", scans, _summarize(insertions, scans), [], pictures)
    of_views = dataclasses.replace(
        evaluation, operating_point=dataclasses.replace(evaluation.operating_point, tta="mirror")
    )
    for name, changes, evaluated, shown in (
        ("same", {}, evaluation, True),
        ("checkpoint", {"checkpoint": 7}, evaluation, False),
        ("threshold", {"threshold": 0.6}, evaluation, False),
        ("views", {}, of_views, False),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / results.FILE).write_text(results.to_json(dataclasses.replace(result, **changes), None))
        (folder / "detectability.png").write_bytes(b"drawn")
        (folder / "examples.png").write_bytes(b"of an earlier measurement")
        write_evaluation(folder, THIRTEEN, 0.5, evaluated, provenance, volumes, detectability=folder)
        page = (folder / "report.html").read_text()
        assert ('id="detectability"' in page) == shown
        assert ("at least 90% are detected from 10 mm" in page) == shown
        assert "planted-name" not in page
        assert base64.b64encode(b"of an earlier measurement").decode() not in page
    assert results.read(tmp_path / "same", None) == result


def test_a_damaged_result_or_that_of_another_run_is_one_line(tmp_path):
    drawing = tmp_path / "examples.png"
    drawing.write_bytes(b"picture")
    pictures = {drawing.name: hashlib.sha256(b"picture").hexdigest()}
    result = Detectability(7, 0.5, "2026", "1", [_scan("a")], [], [], pictures)
    whole = results.to_json(result, "this run")
    unsigned = json.dumps(json.loads(whole) | {"sha256": None})  # as earlier versions wrote it
    for text in (whole, unsigned):
        (tmp_path / results.FILE).write_text(text)
        assert results.read(tmp_path, "this run") == result
    assert results.read(tmp_path / "none", "this run") is None
    for text in ('{"scans": 3}', whole.replace("0.5", "0.6", 1), results.to_json(result, "another run"), whole):
        (tmp_path / results.FILE).write_text(text)
        if text == whole:
            drawing.write_bytes(b"another")
        with pytest.raises(
            UserError, match=r"detectability.json is not as it was written.*again, or remove it"
        ) as error:
            results.read(tmp_path, "this run")
        assert "\n" not in str(error.value)
