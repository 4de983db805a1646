"""Views of test-time augmentation."""

import jax.numpy as jnp
import numpy as np
import pytest

from covidscan.models.views import SETS, View, views

VOLUME = np.random.default_rng(0).integers(-1024, 600, (2, 4, 12, 10)).astype(np.int16)


def test_a_view_moves_and_mirrors_as_its_names_say():
    np.testing.assert_array_equal(View(mirror=True).of(VOLUME)[0, 2, 3], VOLUME[0, 2, 3, ::-1])
    up, down = (View(slices=slices).of(VOLUME) for slices in (1, -1))
    np.testing.assert_array_equal(up[:, 1:], VOLUME[:, :-1])
    np.testing.assert_array_equal(up[:, 0], VOLUME[:, 0])
    np.testing.assert_array_equal(down[:, :-1], VOLUME[:, 1:])


@pytest.mark.parametrize("scale", [0.95, 1.05])
def test_scaling_stretches_the_plane_about_its_middle(scale):
    rows, columns = np.meshgrid(np.arange(41) - 20, np.arange(31) - 15, indexing="ij")
    ramp = (100 * rows + 10 * columns).astype(np.int16)[None]
    found = View(scale=scale).of(ramp)[0]
    inner = (slice(3, -3), slice(3, -3))  # beyond the edge is its value
    np.testing.assert_allclose(found[inner], ramp[0][inner] / scale, atol=0.51)


@pytest.mark.parametrize("name", SETS)
def test_views_are_the_same_in_numpy_and_jax_and_begin_with_the_study(name):
    assert views(name)[0] == views("")[0] == View()
    assert len(set(views(name))) == len(views(name))
    for view in views(name):
        one, other = view.of(VOLUME), view.of(jnp.asarray(VOLUME))
        assert one.dtype == other.dtype == np.int16
        assert one.shape == VOLUME.shape
        np.testing.assert_allclose(one, other, atol=1)  # of roundings
