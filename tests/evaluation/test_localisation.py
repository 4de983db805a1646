"""Saliency maps of a trained network lie on lesions; those of networks that learned nothing do not."""

import json
from unittest import mock

import numpy as np
import pytest

from covidscan.evaluation import localisation
from covidscan.evaluation.localisation import mean_overlap, overlap
from covidscan.explanation import maps, saliency
from covidscan.trained_models import ensemble
from tests.support import planted, runs
from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.read import read_mask, read_scan

PLANTED = 12


@pytest.fixture(scope="module", autouse=True)
def optimised():
    """Compile with optimisation: so many gradients take longer to run than to compile."""
    environment = runs.environment() | {"XLA_FLAGS": ""}
    with mock.patch.object(runs, "environment", return_value=environment):
        yield


@pytest.fixture(scope="module")
def learned(data_dir, tmp_path_factory):
    """A small network trained to separate the phantoms: 210 steps."""
    workdir = tmp_path_factory.mktemp("learned") / "run"
    flags = ("--dataset=ct_phantom/tiny", "--width=8", "--batch_size=4", "--epochs=60", "--eval_every=60")
    runs.run("train", *flags, f"--workdir={workdir}", f"--data_dir={data_dir}")
    return workdir


@pytest.mark.sampled
def test_the_peak_of_a_planted_lesions_map_is_in_its_mask(learned, tmp_path):
    """In the study's own voxels, of phantoms that no network has seen."""
    network = ensemble.load([learned])
    explainers = {
        "trained": saliency.SaliencyMapper(network),
        "untrained": saliency.SaliencyMapper(localisation.untrained_control(network)),
    }
    hits = dict.fromkeys(explainers, 0)
    for seed in range(900_000, 900_000 + PLANTED):
        generator.write_study(planted.phantom(seed, 128), tmp_path / "study.nii.gz", tmp_path / "mask.nii.gz")
        scan = read_scan(tmp_path / "study.nii.gz")
        mask = read_mask(tmp_path / "mask.nii.gz", scan)
        prepared = prepare(scan, Grid.parse(network.info.grid))
        for name, explainer in explainers.items():
            laid = maps.lay_over(scan, prepared, explainer.grad_cam(prepared.volume)[0])
            hits[name] += bool(mask.flat[laid.argmax()])
    assert hits["trained"] >= PLANTED * 2 / 3  # lesions of 3 % are a few cells of so coarse a grid
    assert hits["untrained"] <= 1


@pytest.mark.sampled
def test_the_command_compares_with_controls(learned, data_dir, tmp_path):
    shuffled = tmp_path / "shuffled"
    flags = (*runs.SMALL, "--shuffle_labels", f"--data_dir={data_dir}")
    runs.run("train", *flags, f"--workdir={shuffled}")
    assert "lesion_loss" not in runs.log_lines(shuffled, "train")[0]
    done = runs.run("localise", f"--workdir={learned}", f"--shuffled_workdir={shuffled}")
    result = json.loads((learned / "explanations" / "localisation.json").read_text())
    networks = {name: maps["grad_cam"] for name, maps in result["networks"].items()}
    assert list(networks) == ["trained", "untrained", "shuffled labels"]
    assert networks["trained"]["in_lesion"] > 2 * networks["untrained"]["in_lesion"]
    assert networks["trained"]["in_lesion"] > 2 * networks["shuffled labels"]["in_lesion"]
    assert f"{networks['trained']['in_lesion']:.2f}" in done.stdout
    assert len((learned / "test_openings.jsonl").read_text().splitlines()) == 1
    with pytest.raises(UserError, match="--shuffle_labels"):
        localisation.shuffled_control(ensemble.load([learned]), learned)


def test_overlaps_follow_their_definition():
    chest = planted.phantom(900_000, 128)
    mask, volume = chest.lesion_mask, chest.hu
    perfect = overlap(mask.astype(float), mask, volume, chest.spacing_mm)
    assert (perfect.in_lesion, perfect.in_lungs, perfect.peak_in_lesion) == (1.0, 1.0, True)
    share = mask.sum() / (chest.lung_mask | mask).sum()
    assert perfect.chance == pytest.approx(share, rel=0.25)
    elsewhere = np.zeros(mask.shape)
    elsewhere[0, 0, 0], elsewhere[tuple(np.argwhere(mask)[0])] = 3, 1
    missed = overlap(elsewhere - 5 * (chest.hu > 0) * (elsewhere == 0), mask, volume, chest.spacing_mm)
    assert (missed.in_lesion, missed.in_lungs, missed.peak_in_lesion) == (0.25, 0.25, False)
    assert overlap(np.zeros(mask.shape), mask, volume, chest.spacing_mm) is None
    means = mean_overlap([perfect, missed, None])
    assert means.studies == 2
    assert means.peak_in_lesion == 0.5
    assert mean_overlap([]).in_lesion is None
