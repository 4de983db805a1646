"""The chest walls, lungs and vessels of the patients of many hospitals, and the phantoms of MosMedData's hospital."""

import dataclasses
import functools

import numpy as np
import pytest

from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.ct_phantom.acquisition import sample_acquisition
from tfds_mosmed.ct_phantom.anatomy import vessels
from tfds_mosmed.ct_phantom.anatomy.body import build_chest_wall
from tfds_mosmed.ct_phantom.anatomy.organs import build_organs
from tfds_mosmed.ct_phantom.anatomy.subject import sample_subject
from tfds_mosmed.ct_phantom.disease.opacities import Focus
from tfds_mosmed.ct_phantom.hospital import HOSPITALS

ANY = HOSPITALS["any"]
THICK = dataclasses.replace(ANY.scanner, protocols=((8.0, 2.0, 1.0),))


@functools.cache
def person(seed, **changes):
    rng = np.random.default_rng(seed)
    subject = dataclasses.replace(sample_subject(rng, ANY.patients), **changes)
    scan = sample_acquisition(rng, subject, 64, THICK)
    wall = build_chest_wall(subject, scan)
    return subject, scan, wall, build_organs(subject, scan, wall, rng)


@pytest.mark.parametrize("seed", range(5))
def test_lungs_bones_muscles_and_skin_lie_within_each_other(seed):
    s, scan, wall, organs = person(seed)
    for field in (wall.skin, wall.muscle, wall.bone, organs.lungs):
        assert np.isfinite(field).all()
    chest = scan.z < s.lung_height
    assert (wall.skin < wall.muscle - 1.9)[chest].all()
    bones = (wall.bone < 0) & chest[:, None, None]
    assert wall.skin[bones].max() < -4
    assert wall.muscle[organs.lungs < 0].max() < 0


def test_the_back_is_flatter_than_the_front():
    """As a mean over persons: the edges are those of pixels of 8 mm."""
    fronts, backs = [], []
    for seed in range(24):
        s, scan, wall, _ = person(seed, arms_down=False, breast=0.0)
        plane = wall.skin[int(np.argmin(np.abs(scan.z - 0.4 * s.lung_height)))] < 0
        columns = np.abs(scan.coarse_x) < 0.7 * s.half_width
        fronts.append(np.ptp(plane.argmax(0)[columns]))
        backs.append(np.ptp(plane[::-1].argmax(0)[columns]))
    assert np.mean(backs) < 0.85 * np.mean(fronts)


def test_the_left_lung_is_the_smaller_one():
    shares = []
    for seed in range(5):
        _, scan, _, organs = person(seed)
        lungs = organs.lungs < 0
        shares.append(lungs[:, :, scan.coarse_x > 0].sum() / lungs.sum())
    assert 0.42 < np.mean(shares) < 0.49


def test_vessels_that_fan_out_do_not_turn_back():
    turns = []
    for fan in (0.0, 0.6):
        rng = np.random.default_rng(0)
        targets = [rng.uniform((-50, -50, 0), (50, 50, 100), (400, 3))]
        b = vessels.grow(np.zeros((1, 3)), np.array([[0.0, 0, 1]]), targets, rng, fan)
        along = b.end - b.start
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-3)
        turns.append(np.mean((along * b.heading).sum(1) < 0))
    assert turns[1] < 0.7 * turns[0]


def test_ground_glass_is_uneven_inside_and_at_its_edge():
    scan = person(0)[1]
    box = (slice(0, 64), slice(0, 64))
    drawn = []
    for mottle in (0.0, 60.0):
        lung, lesion = np.full((64, 64), -850, np.float32), np.zeros((64, 64), bool)
        centre = float(scan.z[5]), float(scan.y[32]), float(scan.x[32])
        focus = Focus(centre, (40.0,) * 3, -600.0, 6.0, denser=80, mottle_hu=mottle, lesion=True)
        net = np.random.default_rng(0).standard_normal((len(scan.coarse_y), len(scan.coarse_x)), dtype=np.float32)
        focus.draw(scan, 5, box, lung, lesion, np.zeros((64, 64), np.uint8), 1, net)
        drawn.append((lung[30:35, 30:35].std(), lesion))
    assert drawn[0][0] == 0
    assert 10 < drawn[1][0] < 100
    assert (drawn[0][1] ^ drawn[1][1]).any()
    assert drawn[1][1].sum() == pytest.approx(drawn[0][1].sum(), rel=0.2)


def test_phantoms_of_mosmeddata_are_what_they_were():
    """Networks and records of earlier versions are made of them."""
    expected = {
        ("CT-0", 1): (-856.6906, 747.0657, 9432, 0),
        ("CT-3", 4): (-523.9751, 464.8639, 16845, 11855),
    }
    for (category, seed), (mean, spread, lungs, lesions) in expected.items():
        p = generator.make_phantom(seed, category, 64)
        assert p.hu.mean() == pytest.approx(mean, abs=0.01)
        assert p.hu.std() == pytest.approx(spread, abs=0.01)
        assert (p.lung_mask.sum(), p.lesion_mask.sum()) == (lungs, lesions)
