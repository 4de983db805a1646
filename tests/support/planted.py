"""Phantoms with one planted lesion, at a known position."""

from unittest import mock

from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.ct_phantom.disease import lesions


def phantom(seed: int, matrix: int = 256) -> generator.Phantom:
    """A study with a single focus of 3 to 10 % of the lungs, and with findings that are no lesion."""
    one_focus, shares = {"CT-1": (1, 1)}, {"CT-1": (0.03, 0.1)}
    with mock.patch.object(lesions, "FOCI", one_focus), mock.patch.object(lesions, "SHARES", shares):
        return generator.make_phantom(seed, "CT-1", matrix)
