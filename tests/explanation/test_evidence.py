"""Evidence in maps: an absolute scale, slices by their peaks in the lungs, shares outside of lungs and body."""

import json

import numpy as np
import pytest

from covidscan.explanation import scale as scales
from covidscan.explanation.evidence import find_evidence, telling_slices
from covidscan.explanation.scale import Scale
from covidscan.trained_models import ensemble
from tests.support import runs
from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.lung_region import lung_region
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.read import read_scan

SCALE = Scale(floor=0.1, full=1.0, attribution=0.05)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "study.nii.gz"
    generator.write_study(generator.make_phantom(5, "CT-0", 128), path)
    return prepare(read_scan(path), Grid(64, 64, 32))


def lung_voxel(prepared, number):
    """Return a voxel in the middle of the lungs of a slice."""
    region = lung_region(prepared.volume, prepared.spacing_mm)
    rows, columns = np.nonzero(region.lungs[number])
    return number, int(rows[len(rows) // 2]), int(columns[len(columns) // 2])


def test_a_small_lesion_outranks_faint_and_wide_spread_values(prepared):
    cam = np.full(prepared.volume.shape, 0.05, np.float32)  # below the floor, and by far the largest sum
    cam[20] = 0.09
    cam[lung_voxel(prepared, 12)] = 0.8
    evidence = find_evidence(prepared, cam, SCALE)
    assert evidence.peak[0] == 12
    assert telling_slices(prepared, evidence, SCALE, 5) == [12]
    assert (evidence.outside_lungs, evidence.outside_body) == (0, 0)


def test_evidence_outside_of_the_lungs_is_reported_and_does_not_choose_the_slices(prepared):
    cam = np.zeros(prepared.volume.shape, np.float32)
    cam[3, 0, 0] = 0.9  # air before the chest
    cam[lung_voxel(prepared, 16)] = 0.3
    evidence = find_evidence(prepared, cam, SCALE)
    assert telling_slices(prepared, evidence, SCALE, 5) == [16]
    assert evidence.outside_lungs == pytest.approx(0.8)
    assert evidence.outside_body == pytest.approx(0.8)
    assert "80% of the evidence lies outside of the body" in evidence.describe()


def test_nothing_above_the_floor_is_no_evidence(prepared):
    evidence = find_evidence(prepared, np.full(prepared.volume.shape, 0.1, np.float32), SCALE)
    assert not evidence.is_present
    assert evidence.describe().startswith("No evidence")
    assert len(telling_slices(prepared, evidence, SCALE, 5)) == 3


def test_the_scale_begins_where_studies_without_the_label_end():
    with_label = np.arange(40) % 2 == 0
    peaks = np.where(with_label, 1.0 + np.arange(40) / 100, np.arange(40) / 100)
    floor, full = scales._range(peaks, with_label)
    assert (peaks[~with_label] > floor).sum() == 1  # of 20
    assert full == pytest.approx(np.median(peaks[with_label]))
    assert scales._range(peaks, ~with_label)[1] > scales._range(peaks, ~with_label)[0] > 0  # upside down: still a range


def test_evaluation_stores_the_scale_and_prediction_applies_it(trained, tmp_path):
    stored = json.loads((trained / scales.FILE).read_text()) if (trained / scales.FILE).exists() else None
    if stored is None:
        runs.run("evaluate", f"--workdir={trained}")
        stored = json.loads((trained / scales.FILE).read_text())
    network = ensemble.load([trained])
    applied = scales.of_ensemble(network)
    step = str(network.members[0].step)
    assert [scale._asdict() for scale in applied] == stored[step]["scales"]
    assert 0 < applied[1].floor < applied[1].full

    stored[step]["scales"][1]["floor"] = 0.5
    changed = network.members[0]._replace(workdir=tmp_path)
    (tmp_path / scales.FILE).write_text(json.dumps(stored))
    with pytest.raises(UserError, match="was edited"):
        scales.of_ensemble(network._replace(members=[changed]))
