"""The base class of the data sets, tested on a folder of small studies."""

import pickle
from pathlib import Path

import grain
import numpy as np
import pytest

from tests.support.small_builds import STUDIES, small_builder
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing import signature
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.read import read_scan


def test_records_hold_the_prepared_studies(built, studies):
    records = built.open_records()
    assert len(records) == len(STUDIES)
    record = records[3]
    scan = read_scan(studies / f"{record['study_id']}.nii.gz")
    prepared = prepare(scan, Grid(24, 32, 12))
    assert record["signature"] == signature.to_text(signature.signature(scan.hu, scan.spacing_mm))
    np.testing.assert_array_equal(record["volume"], prepared.volume)
    assert record["volume"].dtype == np.int16
    assert record["category"] == record["study_id"].split("/")[0]
    np.testing.assert_allclose(record["spacing_mm"], prepared.spacing_mm, rtol=1e-6)
    np.testing.assert_array_equal(record["source_shape"], [28, 80, 96])
    np.testing.assert_array_equal(record["source_spacing_mm"], [8, 4, 4])
    np.testing.assert_array_equal(record["source_box"], [[side.start, side.stop] for side in prepared.box])
    assert record["lungs_found"]
    assert not record["has_lesion_mask"]
    assert not record["lesion_mask"].any()


def test_index_matches_the_records_row_by_row(built):
    index = built.index()
    records = list(built.open_records())
    assert sorted(index.study_id) == sorted(STUDIES)
    assert index.study_id == [record["study_id"] for record in records]
    assert index.category == [record["category"] for record in records]
    assert index.voxels_sha256 == [record["voxels_sha256"] for record in records]
    assert index.signature == [record["signature"] for record in records]
    np.testing.assert_array_equal(index.fold, [record["fold"] for record in records])
    np.testing.assert_array_equal(index.num_slices, 28)
    np.testing.assert_array_equal(index.source_spacing_mm, [[8, 4, 4]] * len(records))
    assert index.lungs_found.all()
    assert not index.has_lesion_mask.any()
    assert index.warnings == {}
    assert built.skipped() == []


def test_order_does_not_depend_on_the_class(built):
    categories = built.index().category
    assert categories != sorted(categories)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(built, studies, tmp_path, workers):
    other = small_builder(tmp_path)
    other.prepare(studies, workers=workers)
    assert other.fingerprint() == built.fingerprint()
    for one, another in zip(built.open_records(), other.open_records(), strict=True):
        np.testing.assert_array_equal(one["volume"], another["volume"])


def test_beam_builds_the_same_records(built, studies, tmp_path):
    options = pytest.importorskip("apache_beam.options.pipeline_options")
    other = small_builder(tmp_path)
    other.prepare(studies, beam_options=options.PipelineOptions(["--runner=DirectRunner"]))
    assert other.fingerprint() == built.fingerprint()
    assert other.index().study_id == built.index().study_id
    assert other.index().signature == built.index().signature
    np.testing.assert_array_equal(other.index().fold, built.index().fold)
    for one, another in zip(built.open_records(), other.open_records(), strict=True):
        np.testing.assert_array_equal(one["volume"], another["volume"])
        assert one["study_id"] == another["study_id"]
    assert sorted(path.suffix for path in other.data_path.iterdir()) == [".array_record-00000-of-00001", *[".json"] * 3]


def test_builds_once(built, studies):
    records = sorted(Path(built.data_dir).iterdir())
    times = [path.stat().st_mtime_ns for path in records]
    again = small_builder(built.data_dir_root)
    again.prepare(studies)
    again.prepare()  # not even the folder is needed
    assert [path.stat().st_mtime_ns for path in records] == times
    assert again.fingerprint() == built.fingerprint()


def test_fingerprint_depends_on_grid_and_studies(built, studies, tmp_path):
    other_grid = small_builder(tmp_path / "one", "24x32x10")
    other_grid.prepare(studies, workers=1)
    fewer = small_builder(tmp_path / "two")
    for study_id in list(STUDIES)[1:]:
        path = tmp_path / f"raw/{study_id}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(studies / f"{study_id}.nii.gz")
    fewer.prepare(tmp_path / "raw", workers=1)
    assert len({built.fingerprint(), other_grid.fingerprint(), fewer.fingerprint()}) == 3


def test_records_can_be_read_by_threads_and_processes(built):
    records = built.open_records()
    expected = built.index().study_id
    dataset = grain.MapDataset.source(range(len(records))).map(lambda row: records[int(row)]["study_id"])
    assert list(dataset.to_iter_dataset(grain.ReadOptions(num_threads=4))) == expected
    assert [record["study_id"] for record in pickle.loads(pickle.dumps(records))] == expected
    with pytest.raises(IndexError):
        records[len(records)]


def test_builder_can_be_pickled(built):
    assert pickle.loads(pickle.dumps(built)).fingerprint() == built.fingerprint()


def test_records_without_one_of_their_files_are_not_opened(studies, tmp_path):
    made = small_builder(tmp_path)
    made.prepare(studies, workers=1)
    next(Path(made.data_dir).glob("*array_record*")).unlink()
    with pytest.raises(
        UserError, match=r"array_record-00000-of-00001: is missing; build the records again: rm -r \S+ && python -m"
    ):
        small_builder(tmp_path).open_records()


def test_refuses_an_unknown_on_bad_study_and_a_data_dir_that_cannot_be_written(studies, tmp_path):
    with pytest.raises(UserError, match="--on_bad_study=ignore: choose one of stop, skip"):
        small_builder(tmp_path / "data").prepare(studies, on_bad_study="ignore")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .*--data_dir"):
        small_builder(tmp_path / "file").prepare(studies)
