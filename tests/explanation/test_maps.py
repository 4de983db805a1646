"""Saliency maps lie over the study at the right place, in the voxels of its own file."""

import gzip
import io
import math
from unittest import mock

import hypothesis
import hypothesis.strategies as st
import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from covidscan.explanation import maps
from tfds_mosmed.preprocessing.prepare import Prepared
from tfds_mosmed.scans import scan as scan_module
from tfds_mosmed.scans.nifti import read_nifti

GRID = (8, 12, 10)
AXES = [
    (first + second + third)
    for first, second, third in ("LPS", "PLS", "SLP", "LSP", "PSL", "SPL")
]  # fmt: skip


@st.composite
def studies(draw):
    """A study in a file of any order and direction of axes, a box of it, and a cell of the grid inside."""
    shape = tuple(draw(st.integers(16, 40)) for _ in range(3))
    codes = "".join(draw(st.sampled_from((axis, "RAI"["LPS".index(axis)]))) for axis in draw(st.sampled_from(AXES)))
    spacing = [draw(st.floats(0.5, 9)) for _ in range(3)]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    # Smooth, as every second slice of noise may look like another scan.
    voxels = ndimage.zoom(rng.uniform(-1000, 400, (4, 4, 4)), np.array(shape) / 4, order=1).astype(np.int16)
    affine = nib.orientations.inv_ornt_aff(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)),
        shape,
    )
    affine = np.diag([*rng.uniform(0.5, 9, 3), 1]) @ affine if draw(st.booleans()) else affine @ np.diag([*spacing, 1])
    affine[:3, 3] += rng.uniform(-200, 200, 3)
    image = nib.Nifti1Image(voxels, affine)
    scan = read_nifti(image.to_bytes(), "study.nii")
    fixed = draw(st.booleans())  # a field with edges between voxels and outside of the scan
    box, spans = [], []
    for size in scan.hu.shape:
        first, last = draw(st.integers(0, size // 3)), draw(st.integers(2 * size // 3, size))
        if fixed:
            first, last = first - draw(st.floats(0, 8)), last + draw(st.floats(0, 8))
        spans.append((first, last))
        box.append(slice(max(0, math.floor(first)), min(size, math.ceil(last))))
    cell = tuple(draw(st.integers(2, size - 3)) for size in GRID)
    return image, scan, tuple(box), tuple(spans), cell


def _prepared(box, spans):
    return Prepared(np.zeros(GRID, np.int16), None, (1.0, 1.0, 1.0), box, spans, True, ())


def _read(content):
    return nib.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(content)))


@hypothesis.given(studies())
@hypothesis.settings(max_examples=60)
def test_a_cell_of_the_grid_lands_at_its_centre_in_mm(drawn):
    _, scan, box, spans, cell = drawn
    grid_map = np.zeros(GRID, np.float32)
    grid_map[cell] = 1
    written = _read(maps.map_to_nifti(scan, maps.lay_over(scan, _prepared(box, spans), grid_map)))
    values = written.get_fdata()
    # The centre of the cell computed from the box and the grid, without the code under test.
    steps = np.array([(last - first) / size for (first, last), size in zip(spans, GRID, strict=True)])
    centre = np.array([first for first, _ in spans]) + (np.array(cell) + 0.5) * steps - 0.5
    hypothesis.assume((centre > 0).all() and (centre < np.array(scan.hu.shape) - 1).all())
    expected = (scan.affine @ [*centre, 1])[:3]
    # The peak is the voxel nearest to the centre; if voxels are wider than cells, one of the two around it.
    found = np.argwhere(values == values.max()).mean(axis=0)
    found = (written.affine @ [*found, 1])[:3]
    away = np.linalg.solve(scan.affine[:3, :3], found - expected)
    np.testing.assert_array_less(np.abs(away), np.where(steps >= 1, 0.501, 1.001))
    assert values.max() > 0
    assert values.min() == 0


@hypothesis.given(studies())
@hypothesis.settings(max_examples=60)
def test_the_file_has_the_shape_and_affine_of_the_studys_own(drawn):
    image, scan, box, spans, _ = drawn
    rng = np.random.default_rng(0)
    laid = maps.lay_over(scan, _prepared(box, spans), rng.normal(size=GRID).astype(np.float32))
    written = _read(maps.map_to_nifti(scan, laid))
    assert written.shape == image.shape
    np.testing.assert_allclose(written.affine, image.affine, atol=1e-4)
    np.testing.assert_allclose(written.get_qform(), image.affine, atol=1e-3)
    assert written.header["sform_code"] == written.header["qform_code"] == 1
    assert written.header.get_xyzt_units()[0] == "mm"
    # read back as any study is read, each voxel has its value
    values = np.rint(1000 * written.get_fdata()).astype(np.int16) - 500
    with mock.patch.object(scan_module, "_check_peaks"):  # a map has no air and no tissue
        again = read_nifti(nib.Nifti1Image(values, image.affine).to_bytes(), "map")
    np.testing.assert_allclose(again.hu, np.rint(1000 * laid) - 500, atol=1.01)
    outside = np.ones(scan.hu.shape, bool)
    outside[box] = False
    assert not laid[outside].any()


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_a_constant_map_stays_constant(value):
    """Up to the edges of the box, and for an empty map too."""
    voxels = np.random.default_rng(0).integers(-1000, 400, (20, 24, 28)).astype(np.int16)
    scan = read_nifti(nib.Nifti1Image(voxels, np.diag([1, 1, 2, 1])).to_bytes(), "study")
    box = (slice(2, 25), slice(3, 20), slice(1, 20))
    spans = tuple((part.start, part.stop) for part in box)
    laid = maps.lay_over(scan, _prepared(box, spans), np.full(GRID, value, np.float32))
    stored = _read(maps.map_to_nifti(scan, laid)).get_fdata()
    np.testing.assert_allclose(laid[box], value, rtol=1e-6)
    np.testing.assert_allclose(stored.sum(), laid.sum(), rtol=1e-4)
