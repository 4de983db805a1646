"""Percentage of lung involved, the map and the lungs, as files on the study's own voxels."""

import json

import jax
import nibabel as nib
import numpy as np
import pytest

from covidscan.explanation.explainer import Explainer
from covidscan.explanation.involvement import EVIDENCE, LEFT, LESIONS, RIGHT, measure_involvement, write_involvement
from covidscan.explanation.lesion_map import LesionMapper, has_lesion_maps
from covidscan.models import heads
from covidscan.trained_models.model_info import Answer
from tests.support import runs
from tests.support.chest import chest, write_nifti
from tests.trained_models.test_exported import _ensemble
from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.read import read_mask, read_scan

MODEL = "0123456789ab"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A phantom in an oblique file with other axes, whose map is its lesions."""
    folder = tmp_path_factory.mktemp("measured")
    phantom = generator.make_phantom(7, "CT-3", 128)
    generator.write_study(phantom, folder / "plain.nii.gz", folder / "mask.nii.gz")
    turn = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.03, -0.02, 0.04), [3, -5, 7])
    for name in ("plain", "mask"):
        image = nib.load(folder / f"{name}.nii.gz")
        voxels, affine = np.asarray(image.dataobj)[:, ::-1].transpose(2, 0, 1), image.affine
        affine = affine @ [[1, 0, 0, 0], [0, -1, 0, image.shape[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1]]
        nib.save(nib.Nifti1Image(voxels, turn @ affine[:, [2, 0, 1, 3]]), folder / f"{name}.nii.gz")
    scan = read_scan(folder / "plain.nii.gz")
    prepared = prepare(scan, Grid(128, 128, 32), read_mask(folder / "mask.nii.gz", scan))
    found = measure_involvement(scan, prepared, prepared.lesion_mask.astype(np.float32), LESIONS)
    return folder, phantom, scan, prepared, found


def test_the_percentage_is_that_of_the_lungs_also_where_they_are_consolidated(measured):
    _, phantom, _, _, found = measured
    voxel_ml = np.prod(phantom.spacing_mm) / 1000
    expected = 100 * phantom.lesion_mask.sum() / phantom.lung_mask.sum()
    assert found.percent.both == pytest.approx(expected, abs=3)
    assert found.lung_ml.both == pytest.approx(phantom.lung_mask.sum() * voxel_ml, rel=0.1)
    assert found.counted_ml.both == pytest.approx(phantom.lesion_mask.sum() * voxel_ml, rel=0.1)
    right = np.arange(128) < 64  # columns, from the patient's right
    for side, columns in ((found.lung_ml.right, right), (found.lung_ml.left, ~right)):
        assert side == pytest.approx(phantom.lung_mask[..., columns].sum() * voxel_ml, rel=0.12)
    for side, columns in ((found.percent.right, right), (found.percent.left, ~right)):
        own = phantom.lesion_mask[..., columns].sum() / phantom.lung_mask[..., columns].sum()
        assert side == pytest.approx(100 * own, abs=4)


def test_the_files_have_the_geometry_of_the_study(measured, tmp_path):
    folder, _, scan, _, found = measured
    names = write_involvement(tmp_path, "0001", scan, found, MODEL)
    assert names == ["0001_lesions.nii.gz", "0001_lungs.nii.gz", "0001_lungs.json"]
    study, mask = nib.load(folder / "plain.nii.gz"), nib.load(folder / "mask.nii.gz").get_fdata() > 0
    lesions, lungs = (nib.load(tmp_path / name) for name in names[:2])
    for image in (lesions, lungs):
        assert image.shape == study.shape
        np.testing.assert_allclose(image.affine, study.affine, atol=1e-4)
    marked = lesions.get_fdata() >= found.threshold
    assert 2 * (marked & mask).sum() / (marked.sum() + mask.sum()) > 0.9
    centres = [nib.affines.apply_affine(lungs.affine, np.argwhere(lungs.get_fdata() == side)) for side in (RIGHT, LEFT)]
    assert centres[0][:, 0].mean() > centres[1][:, 0].mean() + 80, "NIfTI's x grows to the patient's right"
    written = json.loads((tmp_path / names[2]).read_text())
    assert written["percent_of_lung_involved"]["both"] == pytest.approx(found.percent.both, abs=0.01)
    assert written["lesions_ml"]["left"] == pytest.approx(found.counted_ml.left, abs=0.1)
    assert (written["model"], written["threshold"], written["map"]["kind"]) == (MODEL, 0.5, "lesions")


def test_evidence_is_not_called_lesions_and_counts_in_the_lungs_alone(measured, tmp_path):
    _, _, scan, prepared, lesions = measured
    found = measure_involvement(scan, prepared, np.ones(prepared.volume.shape, np.float32), EVIDENCE)
    assert found.percent == pytest.approx((100, 100, 100), abs=0.5)
    assert found.lung_ml.both < lesions.lung_ml.both
    names = write_involvement(tmp_path, "0001", scan, found, MODEL)
    assert names[0] == "0001_evidence.nii.gz"
    written = json.loads((tmp_path / names[2]).read_text())
    assert not any("lesions" in key or "involved" in key for key in written)
    assert written["percent_of_lung_with_evidence"]["both"] == pytest.approx(100, abs=0.5)
    assert "outlines no lesions" in written["map"]["meaning"]


def test_without_lungs_there_is_no_percentage(tmp_path):
    hu = chest()
    hu[(hu < -700) & (np.arange(hu.shape[2]) > 20)] = 40
    scan = read_scan(write_nifti(tmp_path / "white.nii.gz", hu))
    prepared = prepare(scan, Grid(32, 32, 16))
    found = measure_involvement(scan, prepared, np.ones(prepared.volume.shape, np.float32), LESIONS)
    assert found.percent == found.lung_ml == found.counted_ml == (None, None, None)
    names = write_involvement(tmp_path, "0001", scan, found, MODEL)
    assert json.loads((tmp_path / names[2]).read_text())["percent_of_lung_involved"]["both"] is None


@pytest.mark.sampled
def test_the_lesion_map_is_that_of_the_network():
    networks = _ensemble()
    (member,) = networks.members
    volume = np.random.default_rng(0).integers(-1000, 400, networks.info.volume_shape).astype(np.int16)
    got = LesionMapper(networks)(volume)
    assert got.shape == volume.shape
    windows = heads.hu_windows(volume[None], networks.info.windows)
    _, sown = jax.jit(lambda x: member.experiment.model.apply(member.variables, x, mutable=["lesions"]))(windows)
    cells = np.asarray(jax.nn.sigmoid(sown["lesions"]["logits"][0][0]))
    window = [size // number for size, number in zip(volume.shape, cells.shape, strict=True)]
    at = np.ix_(*(np.arange(number) * step + step // 2 for number, step in zip(cells.shape, window, strict=True)))
    assert np.corrcoef(got[at].ravel(), cells.ravel())[0, 1] > 0.9
    assert cells.min() - 1e-6 <= got.min() <= got.max() <= cells.max() + 1e-6


@pytest.mark.sampled
@pytest.mark.parametrize("kind", [LESIONS, EVIDENCE])
def test_a_map_that_no_mask_taught_is_evidence(kind, measured, tmp_path):
    log = (runs.ROOT / "tests/support/stored_run/run/metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(log if kind == LESIONS else log.replace('"lesion_loss"', '"other"'))
    networks = _ensemble()
    networks = networks._replace(members=[networks.members[0]._replace(workdir=tmp_path)])
    assert has_lesion_maps(networks.members) == (kind == LESIONS)
    explainer = Explainer(networks, saliency=False, involvement=True, dicom=True)
    explainer.__dict__["_scales"] = None  # there are no validation studies
    scan, answer = measured[2], Answer("caption", {"negative": 0.25, "positive": 0.75}, MODEL)
    files, problems = explainer.write(tmp_path, "1", scan, prepare(scan, Grid(16, 16, 16)), None, answer)
    assert problems == ["no SEG and SR: they describe DICOM series only"]
    assert files == [f"1_{kind}.nii.gz", "1_lungs.nii.gz", "1_lungs.json"]
    assert 0 < nib.load(tmp_path / files[0]).get_fdata().max() <= 1.001
