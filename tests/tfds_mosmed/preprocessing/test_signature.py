"""Distances of copies and of other studies: of phantoms, and of real CT if available."""

import functools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tests.support import real_ct
from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.preprocessing import signature
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.preprocessing.signature import MAX_DISTANCE, near_duplicates
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import Scan

PHANTOMS = ((11, "CT-0"), (12, "CT-1"), (13, "CT-3"), (14, "CT-0"), (15, "CT-2"), (16, "CT-4"))
REAL = ("covid/P001", "cap/cap001", "normal/normal001")


def distance(one, other):
    return signature.distances(one[None], other[None])[0, 0]


@functools.cache
def phantom(index):
    made = generator.make_phantom(*PHANTOMS[index], matrix=128)
    return made.hu, made.spacing_mm


@functools.cache
def signature_of(index):
    return signature.signature(*phantom(index))


def zoomed(hu, spacing, factors):
    values = ndimage.zoom(hu.astype(np.float32), factors, order=1, mode="nearest", grid_mode=True)
    return np.rint(values).astype(np.int16), tuple(np.array(spacing) * hu.shape / values.shape)


def shifted(hu, offset):
    return ndimage.shift(hu, offset, order=0, mode="nearest")


def noisy(hu, sd, seed=0):
    values = hu + np.random.default_rng(seed).normal(0, sd, hu.shape)
    return np.clip(np.rint(values), -1024, 3071).astype(np.int16)


def eight_bits(hu):
    return (np.rint((np.clip(hu, -1024, 600) + 1024) / 1624 * 255) / 255 * 1624 - 1024).astype(np.int16)


COPIES = {
    "whole slices shifted": lambda hu, mm: (shifted(hu, (1, 0, 0)), mm),
    "10 mm shifted": lambda hu, mm: (shifted(hu, (0, -10 / mm[1], 10 / mm[2])), mm),
    "two slices cut off at the feet": lambda hu, mm: (hu[2:], mm),
    "two slices cut off at the head": lambda hu, mm: (hu[:-2], mm),
    "noise of 40 HU": lambda hu, mm: (noisy(hu, 40), mm),
    "left and right flipped": lambda hu, mm: (hu[:, :, ::-1], mm),
    "front and back flipped": lambda hu, mm: (hu[:, ::-1], mm),
    "head and feet flipped": lambda hu, mm: (hu[::-1], mm),
    "turned by half": lambda hu, mm: (hu[:, ::-1, ::-1], mm),
    "0.8 in the slice": lambda hu, mm: zoomed(hu, mm, (1, 0.8, 0.8)),
    "1.25 in the slice": lambda hu, mm: zoomed(hu, mm, (1, 1.25, 1.25)),
    "0.8 along all axes": lambda hu, mm: zoomed(hu, mm, (0.8, 0.8, 0.8)),
    "1.25 along all axes": lambda hu, mm: zoomed(hu, mm, (1.25, 1.25, 1.25)),
    "slices 5 mm apart": lambda hu, mm: zoomed(hu, mm, (mm[0] / 5, 1, 1)),
    "20 HU brighter": lambda hu, mm: (hu + np.int16(20), mm),
    "20 HU darker": lambda hu, mm: (hu - np.int16(20), mm),
    "windowed": lambda hu, mm: (np.clip(hu, -1000, 400), mm),
    "eight bits": lambda hu, mm: (eight_bits(hu), mm),
    "a smaller field of view": lambda hu, mm: (hu[:, 4:-4, 6:-2], mm),
    "a larger field of view": lambda hu, mm: (
        np.pad(hu, ((0, 0), (16, 16), (20, 8)), constant_values=-1024),
        mm,
    ),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_of_a_phantom_is_found(copy):
    for index in range(4):
        assert distance(signature_of(index), signature.signature(*COPIES[copy](*phantom(index)))) <= MAX_DISTANCE


def test_phantoms_are_not_copies_of_each_other():
    signatures = np.stack([signature_of(index) for index in range(len(PHANTOMS))])
    far = signature.distances(signatures, signatures)[np.triu_indices(len(PHANTOMS), 1)]
    assert far.min() > MAX_DISTANCE + 0.05
    assert far.mean() > 0.42  # the reference removes what all chests share; without it this is 0.39


@given(
    index=st.integers(0, len(PHANTOMS) - 1),
    flips=st.tuples(*[st.sampled_from((1, -1))] * 3),
    offset_mm=st.tuples(st.floats(-10, 10), st.floats(-10, 10)),
    sd=st.floats(0, 40),
    offset_hu=st.integers(-20, 20),
    scale=st.floats(0.8, 1.25),
    cut=st.integers(0, 2),
)
@settings(max_examples=20)
def test_a_copy_with_all_changes_at_once_is_found(index, flips, offset_mm, sd, offset_hu, scale, cut):
    hu, spacing = phantom(index)
    moved = shifted(hu[cut:], (0, *(mm / step for mm, step in zip(offset_mm, spacing[1:], strict=True))))
    changed = noisy(moved + np.int16(offset_hu), sd)[:: flips[0], :: flips[1], :: flips[2]]
    found = near_duplicates(
        np.stack([signature_of(p) for p in range(len(PHANTOMS))]), zoomed_signature(changed, spacing, scale)
    )
    assert [(one, other) for one, other, _ in found] == [(index, 0)]


def zoomed_signature(hu, spacing, scale):
    return signature.signature(*zoomed(hu, spacing, (1, scale, scale)))[None]


@pytest.mark.parametrize("grid", ["64x64x32", "64x64x32_full", "128x128x32"])
def test_records_are_found_on_any_grid(grid):
    for index in range(3):
        hu, spacing = phantom(index)
        prepared = prepare(Scan(hu, spacing, np.eye(4)), Grid.parse(grid))
        assert distance(signature_of(index), signature.signature(prepared.volume, prepared.spacing_mm)) <= MAX_DISTANCE


def test_the_orientations_are_those_of_flipped_volumes():
    """The signs of odd frequencies, compared with signatures of flipped volumes."""
    hu = np.random.default_rng(3).integers(-1000, 100, (16, 32, 32)).astype(np.int16)
    hu = np.rint(ndimage.gaussian_filter(hu.astype(float), 3) * 4 + 800).astype(np.int16)
    plain = signature.signature(hu, (8.0, 8.0, 8.0))
    for parity, (slices, rows, columns) in zip(signature._parities(), np.ndindex(2, 2, 2), strict=True):
        flipped = hu[:: 1 - 2 * slices, :: 1 - 2 * rows, :: 1 - 2 * columns]
        there = signature.signature(flipped, (8.0, 8.0, 8.0))
        np.testing.assert_allclose(there.astype(int), plain * parity, atol=1)


def test_all_pairs_of_mosmeddata_are_compared_fast_and_bit_by_bit():
    rng = np.random.default_rng(0)
    signatures = rng.integers(-90, 90, (1110, len(signature_of(0)))).astype(np.int8)
    start = time.process_time()
    found = near_duplicates(signatures, signatures)
    assert time.process_time() - start < 5  # 0.3 s on an idle core
    assert [(one, other) for one, other, _ in found] == [(row, row) for row in range(1110)]
    one, other = signatures[0] >= signature._reference(), signatures[1] >= signature._reference()
    far = signature.distances(signatures[:1], signatures[1:2])[0, 0]
    assert far <= np.mean(one != other) + 1e-6


def test_studies_that_are_alike_are_no_copies_of_each_other_and_a_copy_among_them_is_found():
    rng = np.random.default_rng(0)
    alike = 60 * np.sign(rng.normal(size=len(signature_of(0)))) + rng.normal(0, 25, (150, len(signature_of(0))))
    alike = np.rint(np.clip(alike, -127, 127)).astype(np.int8)
    assert np.median(signature.distances(alike[:75], alike[75:])) < MAX_DISTANCE  # by the demo's medians
    copy = np.clip(alike[7] + rng.integers(-2, 3, alike.shape[1]), -127, 127).astype(np.int8)
    assert near_duplicates(alike[:75], alike[75:]) == []
    assert [pair[:2] for pair in near_duplicates(alike[:75], np.stack([*alike[75:], copy]))] == [(7, 75)]


def test_signs_alone_do_not_make_copies():
    """As of two expiratory scans, which show a smooth density and few vessels."""
    rng = np.random.default_rng(0)
    one = signature_of(1).astype(float)
    middle = signature._reference().astype(float)
    size = rng.permutation(np.abs(one - middle))
    other = np.clip(np.rint(middle + np.where(one > middle, 1, -1) * size), -127, 127).astype(np.int8)
    assert distance(signature_of(1), other) < 0.05
    assert near_duplicates(signature_of(1)[None], other[None]) == []
    assert near_duplicates(signature_of(1)[None], signature_of(1)[None]) == [(0, 0, 0.0)]


def test_signatures_are_encoded_as_text():
    texts = [signature.to_text(signature_of(index)) for index in range(3)]
    np.testing.assert_array_equal(signature.from_texts(texts), [signature_of(index) for index in range(3)])
    assert signature.from_texts([]).shape == (0, len(signature_of(0)))


def test_a_volume_without_a_chest_has_a_signature():
    assert signature.signature(np.full((10, 20, 20), -1000, np.int16), (8.0, 4.0, 4.0)).shape == signature_of(0).shape


@real_ct.needed
@pytest.mark.parametrize("name", REAL)
def test_copies_of_real_studies_are_found_and_no_others(name):
    root = real_ct.FOLDER / "nifti"
    scans = {real: read_scan(root / f"{real}.nii.gz") for real in REAL}
    others = [signature.signature(scans[real].hu, scans[real].spacing_mm) for real in REAL if real != name]
    others += [signature_of(index) for index in range(len(PHANTOMS))]
    hu, spacing = scans[name].hu, scans[name].spacing_mm
    plain = signature.signature(hu, spacing)
    assert signature.distances(plain[None], np.stack(others)).min() > MAX_DISTANCE + 0.1
    for copy in ("noise of 40 HU", "left and right flipped", "0.8 along all axes", "two slices cut off at the feet"):
        assert distance(plain, signature.signature(*COPIES[copy](hu, spacing))) <= MAX_DISTANCE
