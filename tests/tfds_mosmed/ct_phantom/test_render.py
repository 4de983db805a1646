"""Slices from planes, sharp kernels, noise, and fields at single pixels."""

import dataclasses

import numpy as np
import pytest

from tests.tfds_mosmed.ct_phantom.test_cases import person
from tfds_mosmed.ct_phantom.acquisition import Noise
from tfds_mosmed.ct_phantom.disease.opacities import Focus
from tfds_mosmed.ct_phantom.render import _mix, _sharpen
from tfds_mosmed.ct_phantom.scene import Image


def test_a_slice_does_not_change_the_planes_that_its_neighbours_need():
    """Otherwise the noise of a slice is seen in the next ones, too."""
    planes = [Image(np.full((4, 4), hu, np.float32), *(np.zeros((4, 4), bool),) * 3) for hu in (10, 30)]
    for weights in ((1.0,), (0.5, 0.5)):
        mixed = _mix(list(zip(planes, weights, strict=False)))
        mixed.hu += 7
    assert (planes[0].hu == 10).all()
    assert (planes[1].hu == 30).all()


def test_sharp_kernels_overshoot_at_edges_alone():
    image = np.zeros((20, 20), np.float32)
    image[:, 10:] = 90
    _sharpen(image, 0.5)
    assert image[10, 3] == 0
    assert image[10, 15] == pytest.approx(90)
    assert image[10, 9:11] == pytest.approx([-15, 105])


def test_noise_has_its_level_and_no_two_slices_share_it():
    scan = person(3, matrix=64)[2]
    noise = Noise(scan, np.random.default_rng(0))
    first, second = noise.draw(0.0), noise.draw(0.0)
    assert first.shape == (64, 64)
    assert first.std() == pytest.approx(second.std(), rel=0.3)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.3
    assert noise.draw(2.0).std() > 1.5 * first.std()


def test_fields_at_some_pixels_are_those_of_the_window():
    scan = person(3, matrix=64)[2]
    field = np.random.default_rng(0).standard_normal((len(scan.coarse_y), len(scan.coarse_x)), dtype=np.float32)
    window = (slice(5, 40), slice(11, 50))
    at = np.array([0, 17, 39, 800, 35 * 39 - 1])
    np.testing.assert_array_equal(scan.refine_at(field, at, *window), scan.refine(field, *window).ravel()[at])


def test_spicules_leave_no_star_where_a_plane_only_grazes_a_tumour():
    scan = dataclasses.replace(person(3, matrix=64)[2], pixel=1.0, slab=1.0, resolution=1.0)
    lung = np.full((64, 64), -850, np.float32)
    centre = float(scan.z[5]) + 19.5, float(scan.y[32]), float(scan.x[32])
    focus = Focus(centre, (20.0,) * 3, 40.0, 2.0, ragged=0.3)
    focus.draw(scan, 5, (slice(0, 64),) * 2, lung, lung > 0, np.zeros((64, 64), np.uint8), 1)
    assert lung[30:35, 30:35].std() < 60
