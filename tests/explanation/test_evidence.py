"""Evidence in maps: an absolute scale, slices by their peaks in the lungs, shares outside of lungs and body."""

import json

import jax
import numpy as np
import pytest

from covidscan.explanation import scale as scales
from covidscan.explanation.evidence import find_evidence, telling_slices
from covidscan.trained_models import ensemble
from tests.support import runs
from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.lung_region import lung_region
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.read import read_scan


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
    cam = np.full(prepared.volume.shape, 0.1, np.float32)  # by far the largest sum
    cam[20] = 0.2
    cam[lung_voxel(prepared, 12)] = 0.8
    evidence = find_evidence(prepared, cam, 1.0)
    assert evidence.peak[0] == 12
    assert telling_slices(prepared, evidence, 5) == [12]
    assert (evidence.outside_lungs, evidence.outside_body) == (0, 0)


def test_evidence_outside_of_the_lungs_is_reported_and_does_not_choose_the_slices(prepared):
    cam = np.zeros(prepared.volume.shape, np.float32)
    cam[3, 0, 0] = 0.9  # air before the chest
    cam[lung_voxel(prepared, 16)] = 0.45
    evidence = find_evidence(prepared, cam, 1.0)
    assert telling_slices(prepared, evidence, 5) == [16]
    assert evidence.outside_lungs == pytest.approx(0.7 / 0.9)
    assert evidence.outside_body == pytest.approx(0.7 / 0.9)
    assert "78 % of it lies outside of the body" in evidence.describe()


def test_a_study_like_those_without_the_label_shows_no_evidence(prepared):
    cam = np.zeros(prepared.volume.shape, np.float32)
    cam[lung_voxel(prepared, 16)] = 0.4
    evidence = find_evidence(prepared, cam, 0.0)
    assert evidence.describe().startswith("No evidence")
    assert len(telling_slices(prepared, evidence, 5)) == 3


def test_the_scale_begins_where_studies_without_the_label_end():
    has_label = np.arange(40) % 2 == 0
    log_odds = np.where(has_label, 3.0 + np.arange(40) / 10, -5 + np.arange(40) / 10)
    scale = scales.scale_of(log_odds, has_label)
    shown = np.array([scale.strength(each) for each in log_odds])
    assert (shown[~has_label] > 0).sum() == 1  # of 20
    assert (shown[has_label] == 1).mean() == 0.5
    assert (np.diff(shown[np.argsort(log_odds)]) >= 0).all()
    assert np.isfinite(scales.scale_of(-log_odds, has_label).strength(0.0))  # of a network that is worse than chance


def test_evaluation_stores_the_scale_and_prediction_applies_it(trained, tmp_path, caplog):
    if not (trained / scales.FILE).exists():
        runs.run("evaluate", f"--workdir={trained}")
    stored = json.loads((trained / scales.FILE).read_text())
    network = ensemble.load([trained])
    member = network.members[0]
    applied = scales.of_ensemble(network)
    assert [scale._asdict() for scale in applied] == stored[str(member.step)]["scales"]
    elsewhere = network._replace(members=[member._replace(workdir=tmp_path)])
    assert scales.of_ensemble(elsewhere)[0] == pytest.approx(applied[0], abs=1e-3)  # computed where it is not stored
    of_another = member._replace(variables=jax.tree.map(np.zeros_like, member.variables))  # of the same step
    assert scales.of_ensemble(network._replace(members=[of_another]))[0] != applied[0]
    assert f"the scale of step {member.step} is of another network" in caplog.text
    empty = tmp_path / "data"
    moved = member._replace(
        workdir=tmp_path, run={**member.run, "paths": {**member.run["paths"], "data_dir": str(empty)}}
    )
    assert scales.of_ensemble(network._replace(members=[moved])) is None
    assert not empty.exists()  # predicting builds no records

    stored[str(member.step)]["scales"][0]["floor"] = 0.5
    (tmp_path / scales.FILE).write_text(json.dumps(stored))
    with pytest.raises(UserError, match="was edited"):
        scales.of_ensemble(elsewhere)
