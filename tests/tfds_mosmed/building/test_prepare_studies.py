"""Studies that cannot be used: they stop the build in one line, or are skipped and listed."""

import re

import numpy as np
import pytest

from tests.support.chest import chest, write_nifti
from tests.support.small_builds import STUDIES, small_builder
from tests.support.tasks import TaskStudy
from tfds_mosmed.building.builder import StudyBuilder
from tfds_mosmed.building.grid_config import GridConfig
from tfds_mosmed.errors import UserError


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
    made = small_builder(tmp_path / "data")
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
        small_builder(tmp_path / "data").prepare(bad_studies, workers=1)
    assert "covid/s4" in str(error.value)
    assert "normal/copy" in str(error.value)


@pytest.mark.parametrize("with_beam", [False, True])
def test_skips_bad_studies_and_keeps_the_reasons(bad_studies, tmp_path, with_beam):
    beam_options = None
    if with_beam:
        beam_options = pytest.importorskip("apache_beam.options.pipeline_options").PipelineOptions()
    made = small_builder(tmp_path / "data")
    made.prepare(bad_studies, on_bad_study="skip", workers=1, beam_options=beam_options)
    skipped = dict(made.skipped())
    duplicate = {"covid/s4", "normal/copy"} & skipped.keys()
    assert len(duplicate) == 1
    assert set(skipped) == {"covid/damaged", *duplicate}
    assert "cut short" in skipped["covid/damaged"]
    summary = made.summary()
    assert (summary.num_studies, sum(each.count for each in summary.unusable)) == (12, 2)
    assert {each.text for each in summary.unusable} > {"one study under two names; remove one of them"}
    assert [each.counts for each in summary.texts if each.name == "file format"] == [{"NIfTI": summary.classes}]
    assert "same voxels" in skipped[duplicate.pop()]
    assert len(made.open_records()) == len(made.index()) == len(STUDIES)
    # Another builder, in another process perhaps, finds the same.
    assert dict(small_builder(tmp_path / "data").skipped()) == skipped


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
    monkeypatch.setattr("tfds_mosmed.building.prepare_studies.MIN_SECONDS", 3.0)
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
    made = small_builder(tmp_path / "data")
    with pytest.raises(UserError, match=r"no study could be used.*a\.nii\.gz: is not a NIfTI image"):
        made.prepare(tmp_path / "raw", on_bad_study="skip")
    assert not made.is_built()
