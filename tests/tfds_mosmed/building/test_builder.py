"""The base class of the data sets, tested on a folder of small studies."""

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import grain
import numpy as np
import psutil
import pytest

from tests.support.chest import chest, write_nifti
from tests.support.tasks import TaskStudy
from tfds_mosmed import catalog
from tfds_mosmed.building.builder import GridConfig, StudyBuilder
from tfds_mosmed.building.index import assign_folds
from tfds_mosmed.ct_folder.ct_folder_dataset_builder import Builder
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing import signature
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.read import read_scan

REPOSITORY = Path(__file__).parents[3]
STUDIES = {f"{kind}/s{number}": number for number in range(12) for kind in (["covid", "normal"][number % 2],)}


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    root = tmp_path_factory.mktemp("studies")
    for study_id, seed in STUDIES.items():
        write_nifti(root / f"{study_id}.nii.gz", chest(seed))
    return root


def builder(data_dir, grid="24x32x12"):
    return Builder(config=GridConfig(name=grid, grid=grid), data_dir=data_dir)


@pytest.fixture(scope="module")
def built(studies, tmp_path_factory):
    made = builder(tmp_path_factory.mktemp("data"))
    made.prepare(studies, workers=2)
    return made


def test_records_hold_what_the_preparation_gives(built, studies):
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
    assert "lesion_mask" not in record


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


def test_order_says_nothing_of_the_class(built):
    categories = built.index().category
    assert categories != sorted(categories)


def test_folds_are_stratified_and_do_not_depend_on_order():
    ids = [f"s{number}" for number in range(103)]
    categories = ["a"] * 61 + ["b"] * 40 + ["c"] * 2
    folds = assign_folds(ids, categories)
    assert folds == assign_folds(ids[::-1], categories[::-1])
    for category in "abc":
        counts = np.bincount([folds[i] for i, c in zip(ids, categories, strict=True) if c == category], minlength=10)
        assert counts.max() - counts.min() <= 1
    counts = np.bincount(list(folds.values()))
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(built, studies, tmp_path, workers):
    other = builder(tmp_path)
    other.prepare(studies, workers=workers)
    assert other.fingerprint() == built.fingerprint()
    for one, another in zip(built.open_records(), other.open_records(), strict=True):
        np.testing.assert_array_equal(one["volume"], another["volume"])


def test_beam_builds_the_same_records(built, studies, tmp_path):
    options = pytest.importorskip("apache_beam.options.pipeline_options")
    other = builder(tmp_path)
    other.prepare(studies, beam_options=options.PipelineOptions(["--runner=DirectRunner"]))
    assert other.fingerprint() == built.fingerprint()
    assert other.index().study_id == built.index().study_id
    assert other.index().signature == built.index().signature
    np.testing.assert_array_equal(other.index().fold, built.index().fold)
    for one, another in zip(built.open_records(), other.open_records(), strict=True):
        np.testing.assert_array_equal(one["volume"], another["volume"])
        assert one["study_id"] == another["study_id"]
    assert sorted(path.suffix for path in other.data_path.iterdir()) == [".array_record-00000-of-00001", *[".json"] * 3]


@pytest.fixture
def bad_studies(studies, tmp_path):
    """The studies, a damaged one and one that is another's copy."""
    root = tmp_path / "bad"
    for study_id in STUDIES:
        path = root / f"{study_id}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(studies / f"{study_id}.nii.gz")
    (root / "covid/damaged.nii.gz").write_bytes((studies / "covid/s0.nii.gz").read_bytes()[:-1000])
    write_nifti(root / "normal/copy.nii.gz", chest(4).astype(np.float32))
    return root


def test_stops_at_a_bad_study_and_leaves_nothing(bad_studies, tmp_path):
    made = builder(tmp_path / "data")
    (bad_studies / "normal/copy.nii.gz").unlink()
    with pytest.raises(UserError, match=r"damaged\.nii\.gz: is damaged or cut short .*--on_bad_study=skip") as error:
        made.prepare(bad_studies, workers=1)
    assert "\n" not in str(error.value)
    assert not made.is_built()
    assert not [path for path in (tmp_path / "data").rglob("*record*") if path.is_file()]
    with pytest.raises(UserError, match="is not built"):
        made.index()


def test_stops_at_the_same_voxels_under_two_ids(bad_studies, tmp_path):
    (bad_studies / "covid/damaged.nii.gz").unlink()
    with pytest.raises(UserError, match="has the same voxels as") as error:
        builder(tmp_path / "data").prepare(bad_studies, workers=1)
    assert "covid/s4" in str(error.value)
    assert "normal/copy" in str(error.value)


@pytest.mark.parametrize("with_beam", [False, True])
def test_skips_bad_studies_and_keeps_the_reasons(bad_studies, tmp_path, with_beam):
    beam_options = None
    if with_beam:
        beam_options = pytest.importorskip("apache_beam.options.pipeline_options").PipelineOptions()
    made = builder(tmp_path / "data")
    made.prepare(bad_studies, on_bad_study="skip", workers=1, beam_options=beam_options)
    skipped = dict(made.skipped())
    duplicate = {"covid/s4", "normal/copy"} & skipped.keys()
    assert len(duplicate) == 1
    assert set(skipped) == {"covid/damaged", *duplicate}
    assert "cut short" in skipped["covid/damaged"]
    assert "same voxels" in skipped[duplicate.pop()]
    assert len(made.open_records()) == len(made.index()) == len(STUDIES)
    # Another builder, in another process perhaps, finds the same.
    assert dict(builder(tmp_path / "data").skipped()) == skipped


class TaskBuilder(StudyBuilder, skip_registration=True):
    """Data set of the studies whose tasks are given."""

    tasks: tuple[str, ...] = ()

    def _list_studies(self, dl_manager):
        return [TaskStudy(task) for task in self.tasks]


REASONS = {
    "hang": "took longer than 3 s to read",
    "hang natively": "took longer than 3 s to read",
    "crash": "crashed its reader (SIGSEGV)",
    "abort": "crashed its reader (SIGABRT)",
    "vanish": "killed, as happens where memory is short",
    "eat": "needs more than 2 GiB of memory",
    "fail": "cannot be read (ValueError)",
}


@pytest.fixture
def task_builder(tmp_path, monkeypatch):
    monkeypatch.setattr("tfds_mosmed.building.prepare_studies.LEAST_SECONDS", 3.0)
    return TaskBuilder(config=GridConfig(name="16x20x10", grid="16x20x10"), data_dir=tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_study_that_takes_its_reader_down_costs_the_build_that_study(task_builder, workers):
    good = [f"study {'x' * number}" for number in range(10)]
    task_builder.tasks = (*good[:5], *REASONS, *good[5:])
    task_builder.prepare(on_bad_study="skip", workers=workers)
    assert sorted(task_builder.index().study_id) == sorted(good)
    skipped = dict(task_builder.skipped())
    assert skipped.keys() == REASONS.keys()
    for task, reason in REASONS.items():
        assert skipped[task].startswith(f"{task}: ")
        assert reason in skipped[task]
        assert "leave it out" in skipped[task] or "thicker slices" in skipped[task]


@pytest.mark.parametrize("task", ["hang", "abort", "eat"])
def test_a_study_that_takes_its_reader_down_stops_the_build_in_one_line(task_builder, task):
    task_builder.tasks = ("good", task)
    with pytest.raises(UserError, match=rf"^{task}: {re.escape(REASONS[task])}.*--on_bad_study=skip\)$") as error:
        task_builder.prepare()
    assert "\n" not in str(error.value)
    assert not task_builder.is_built()


def test_no_usable_study_is_an_error(tmp_path):
    (tmp_path / "raw/covid").mkdir(parents=True)
    (tmp_path / "raw/covid/a.nii.gz").write_bytes(b"nothing")
    made = builder(tmp_path / "data")
    with pytest.raises(UserError, match=r"no study could be used.*a\.nii\.gz: is not a NIfTI image"):
        made.prepare(tmp_path / "raw", on_bad_study="skip")
    assert not made.is_built()


def test_builds_once(built, studies):
    records = sorted(Path(built.data_dir).iterdir())
    times = [path.stat().st_mtime_ns for path in records]
    again = builder(built.data_dir_root)
    again.prepare(studies)
    again.prepare()  # not even the folder is needed
    assert [path.stat().st_mtime_ns for path in records] == times
    assert again.fingerprint() == built.fingerprint()


def test_fingerprint_tells_grids_and_studies_apart(built, studies, tmp_path):
    other_grid = builder(tmp_path / "one", "24x32x10")
    other_grid.prepare(studies, workers=1)
    fewer = builder(tmp_path / "two")
    for study_id in list(STUDIES)[1:]:
        path = tmp_path / f"raw/{study_id}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(studies / f"{study_id}.nii.gz")
    fewer.prepare(tmp_path / "raw", workers=1)
    assert len({built.fingerprint(), other_grid.fingerprint(), fewer.fingerprint()}) == 3


def test_a_full_shard_is_followed_by_another(built, studies, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tfds_mosmed.building.shards.SHARD_BYTES", 5.5 * 2 * 24 * 32 * 12
    )  # five records with their small fields
    made = builder(tmp_path)
    made.prepare(studies, workers=1)
    assert made.info.splits["studies"].shard_lengths == [5, 5, 2]
    assert [record["study_id"] for record in made.open_records()] == built.index().study_id


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


BUILD = """
import sys
from tfds_mosmed.ct_folder.ct_folder_dataset_builder import Builder
from tfds_mosmed.building.builder import GridConfig
builder = Builder(config=GridConfig(name="mine", grid="24x32x12"), data_dir=sys.argv[2])
builder.prepare(sys.argv[1], workers=2)
print(len(list(builder.open_records())), builder.fingerprint())
assert not {"jax", "flax", "tensorflow", "apache_beam"} & sys.modules.keys()
"""


def run(program, *args, **kwargs):
    command = [sys.executable, "-c", program, *map(str, args)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


def test_needs_neither_jax_nor_tensorflow_nor_beam(studies, tmp_path):
    process = run(BUILD, studies, tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.startswith(str(len(STUDIES)))
    assert "12/12" in err  # the progress bar
    assert out.count("\n") == 1  # and nothing else on stdout


def test_a_killed_build_is_not_taken_for_a_finished_one_and_starts_again(built, studies, tmp_path):
    """A named pipe among the studies holds the build up at a place where records are written already."""
    raw, data = tmp_path / "raw", tmp_path / "data"
    order = built.index().study_id
    for study_id in order:
        path = raw / f"{study_id}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(studies / f"{study_id}.nii.gz")
    held_up = raw / f"{order[-1]}.nii.gz"
    held_up.unlink()
    os.mkfifo(held_up)
    process = run(BUILD, raw, data)
    deadline = time.monotonic() + 60
    while not list(data.rglob("incomplete.*/*unnamed-0")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    made = Builder(config=GridConfig(name="mine", grid="24x32x12"), data_dir=data)
    assert not made.is_built()
    assert list(data.rglob("incomplete.*"))
    _, alive = psutil.wait_procs(workers, timeout=10)
    for orphan in alive:
        orphan.kill()
    assert not alive, "workers outlived the build"
    held_up.unlink()
    held_up.symlink_to(studies / f"{order[-1]}.nii.gz")
    made.prepare(raw, workers=1)
    assert made.is_built()
    assert not list(data.rglob("incomplete.*"))
    assert made.index().study_id == order


def test_a_full_disk_is_told_in_one_line(studies, tmp_path):
    """A limit on the size of files stands for a disk that is full."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    process = run(limit + BUILD, studies, tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    last = err.strip().splitlines()[-1]
    assert last.startswith(f"tfds_mosmed.errors.UserError: {tmp_path}: cannot be written")
    assert "make room there or give another --data_dir" in last
    assert not list(tmp_path.rglob("incomplete.*"))


def test_records_without_one_of_their_files_are_not_opened(studies, tmp_path):
    made = builder(tmp_path)
    made.prepare(studies, workers=1)
    next(Path(made.data_dir).glob("*array_record*")).unlink()
    with pytest.raises(UserError, match=r"array_record-00000-of-00001: is missing; delete .* and build it again"):
        builder(tmp_path).open_records()


def test_two_processes_that_build_at_once_build_once(studies, tmp_path):
    processes = [run(BUILD, studies, tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=90) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert sorted("12/12" in err for _, err in outputs) == [False, True]


def test_refuses_unknown_ways_and_unwritable_places(studies, tmp_path):
    with pytest.raises(UserError, match="--on_bad_study=ignore: choose one of stop, skip"):
        builder(tmp_path / "data").prepare(studies, on_bad_study="ignore")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .*--data_dir"):
        builder(tmp_path / "file").prepare(studies)


def test_catalog_names_what_there_is(tmp_path):
    assert catalog.load_builder("mosmed/sample_64x64x32_full", tmp_path).name == "mosmed"
    assert catalog.load_builder("ct_phantom/demo", tmp_path).builder_config.num_studies == 200
    with pytest.raises(UserError, match=r"there is no 'mosmd'; .* ct_folder, ct_phantom, mosmed"):
        catalog.load_builder("mosmd/64x64x32", tmp_path)
    with pytest.raises(UserError, match=r"no configuration '64x64'; .*64x64x32, 64x64x32_full.*sample_128x128x32"):
        catalog.load_builder("mosmed/64x64", tmp_path)
