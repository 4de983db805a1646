"""Records of cohorts that change, and of two cohorts in one --data_dir."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.chest import chest, write_nifti
from tests.support.small_builds import STUDIES, small_builder
from tfds_mosmed.building import update
from tfds_mosmed.building.cohorts import own_place
from tfds_mosmed.errors import UserError


@pytest.fixture
def copies(studies, built, tmp_path):
    """Copies of the studies and of their records."""
    raw = shutil.copytree(studies, tmp_path / "raw")
    return raw, Path(shutil.copytree(built.data_dir_root, tmp_path / "data"))


@pytest.fixture
def prepared(monkeypatch):
    """The ids of the studies that updates prepare."""
    ids, prepare = [], update.prepare_studies

    def counted(studies, preparation, workers):
        ids.extend(study.study_id for study in studies)
        return prepare(studies, preparation, workers)

    monkeypatch.setattr(update, "prepare_studies", counted)
    return ids


def _change(raw):
    """Add a study, replace one and remove one."""
    write_nifti(raw / "covid/new.nii.gz", chest(20))
    write_nifti(raw / "normal/s1.nii.gz", chest(21))
    (raw / "covid/s2.nii.gz").unlink()


@pytest.mark.sampled
def test_one_new_and_one_replaced_study_are_prepared_and_the_records_are_those_of_a_fresh_build(
    copies, prepared, tmp_path
):
    raw, data = copies
    assert len(STUDIES) == 12
    _change(raw)
    with pytest.raises(UserError, match=r"prepare what changed: python -m covidscan\.build .* --update$"):
        small_builder(data).prepare(raw)
    updated = small_builder(data)
    updated.prepare(raw, workers=3, update=True)
    assert sorted(prepared) == ["covid/new", "normal/s1"]
    fresh = small_builder(tmp_path / "fresh")
    fresh.prepare(raw, workers=2)
    assert updated.fingerprint() == fresh.fingerprint()
    for path in Path(fresh.data_dir).iterdir():
        if path.name != "dataset_info.json":  # has the time of the build
            assert path.read_bytes() == Path(updated.data_dir, path.name).read_bytes(), path.name
    assert not list(Path(updated.data_dir).parent.glob("previous_*"))
    again = small_builder(data)
    again.prepare(raw, update=True)
    assert len(prepared) == 2, "nothing has changed since"
    assert len(again.open_records()) == 12


def test_an_update_that_waited_for_another_has_nothing_to_do(copies, prepared):
    raw, data = copies
    waiting = small_builder(data)
    waiting.place(raw)  # lists the studies, and reads which are in the records
    _change(raw)
    small_builder(data).prepare(raw, workers=1, update=True)
    waiting.prepare(raw, workers=1, update=True)
    assert sorted(prepared) == ["covid/new", "normal/s1"]
    assert waiting.fingerprint() == small_builder(data).fingerprint()


@pytest.mark.sampled
def test_an_update_that_fails_leaves_the_records(copies):
    raw, data = copies
    _change(raw)
    before = small_builder(data).fingerprint()
    (raw / "covid/new.nii.gz").write_bytes(b"no scan")
    with pytest.raises(UserError, match="covid/new"):
        small_builder(data).prepare(raw, update=True)
    assert small_builder(data).fingerprint() == before
    # A power cut between the two renames.
    folder = Path(small_builder(data).data_dir)
    folder.rename(folder.with_name(f"previous_{folder.name}"))
    builder = small_builder(data)
    builder.download_and_prepare()
    assert builder.fingerprint() == before


@pytest.mark.parametrize("renamed", [False, True], ids=["before the new records have their name", "after it"])
def test_an_update_that_was_killed_is_done_by_the_same_command(renamed, copies):
    raw, data = copies
    (raw / "covid/s2.nii.gz").unlink()
    folder = Path(small_builder(data).data_dir)
    aside = folder.with_name(f"previous_{folder.name}")
    if renamed:
        shutil.copytree(folder, aside)
        (aside / "metadata.json").unlink()  # it was being removed
    else:
        folder.rename(aside)
    small_builder(data).prepare(raw, update=True)
    assert len(small_builder(data).open_records()) == 11
    assert not aside.exists()


@pytest.mark.sampled
@pytest.mark.parametrize("kind", ["another cohort", "another version", "no folder"])
def test_what_is_not_updated(kind, copies, prepared):
    raw, data = copies
    _change(raw)
    if kind == "another version":
        path = Path(small_builder(data).data_dir) / "metadata.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"prepared_by": "0"}))
    if kind == "another cohort":
        for path in sorted(raw.rglob("*.nii.gz"))[:7]:
            path.rename(path.with_name(f"other_{path.name}"))
    before = small_builder(data).fingerprint()
    with pytest.raises(UserError, match=kind if kind != "no folder" else "--manual_dir") as error:
        small_builder(data).prepare(None if kind == "no folder" else raw, update=True)
    assert "\n" not in str(error.value)
    assert not prepared
    assert small_builder(data).fingerprint() == before


def _at(data, manual_dir):
    """Return the builder as `catalog.load_builder` chooses it."""
    return small_builder(small_builder(data).place(manual_dir) or data)


@pytest.mark.sampled
def test_two_cohorts_do_not_collide(studies, built, tmp_path):
    data = Path(shutil.copytree(built.data_dir_root, tmp_path / "data"))
    for number in range(2):
        write_nifti(tmp_path / f"site b/{number}/patient{number}.nii.gz", chest(40 + number))
    second = _at(data, tmp_path / "site b")
    second.prepare(tmp_path / "site b", workers=2)
    assert Path(second.data_dir_root) == own_place(data, tmp_path / "site b")
    assert Path(second.data_dir_root).relative_to(data).as_posix().startswith("cohorts/site_b-")
    for manual_dir, ids in ((studies, built.index().study_id), (tmp_path / "site b", second.index().study_id)):
        builder = _at(data, manual_dir)
        builder.prepare(manual_dir)
        assert builder.index().study_id == ids
    with pytest.raises(
        UserError, match=r"holds ct_folder of several cohorts: give --manual_dir.*cohorts/site_b-"
    ) as error:
        small_builder(data).place(None)
    assert "\n" not in str(error.value)
    assert small_builder(second.data_dir_root).place(None) is None, "it is a --data_dir of its own"


def test_a_changed_cohort_stays_in_its_place_and_is_refused(studies, built, tmp_path):
    raw = shutil.copytree(studies, tmp_path / "raw")
    (raw / "covid/s2.nii.gz").unlink()
    builder = _at(built.data_dir_root, raw)
    assert builder.data_dir == built.data_dir
    with pytest.raises(UserError, match="1 missing: covid/s2"):
        builder.prepare(raw)
