"""Entries of a table for its studies, as training and evaluation use it."""

from types import SimpleNamespace

import numpy as np
import pytest

from covidscan.config import Config, DataPaths
from covidscan.data import dataset as datasets
from covidscan.data.dataset import load_dataset
from covidscan.evaluation import subgroups
from tests.support.chest import chest, write_nifti
from tfds_mosmed.building.grid_config import GridConfig
from tfds_mosmed.ct_table.ct_table_dataset_builder import Builder
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing import signature

NUM_STUDIES = 16


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Studies of patients with two each, at two sites, with a table of all that it may tell."""
    folder = tmp_path_factory.mktemp("listed")
    rows = ["path,label,patient,site,split,weight,age,ward"]
    for number in range(NUM_STUDIES):
        write_nifti(folder / f"root/s{number}.nii", chest(number))
        patient = number // 2
        part = ("train", "train", "validation", "test")[number // 4]
        label = ("normal", "covid")[patient % 2]
        rows.append(
            f"s{number}.nii,{label},P{patient},{'AB'[number < 8]},{part},{1 + number % 3},{30 + number},w{number % 2}"
        )
    (folder / "studies.csv").write_text("\n".join(rows))
    builder = Builder(config=GridConfig(name="16x20x10", grid="16x20x10"), data_dir=folder / "data")
    builder.prepare(folder / "root", workers=2, table=folder / "studies.csv")
    return folder, builder


def _load(cohort, monkeypatch, **flags):
    folder, builder = cohort
    monkeypatch.setattr("tfds_mosmed.catalog.load_builder", lambda *_: builder)
    paths = DataPaths(str(folder / "data"), str(folder / "root"), table=str(folder / "studies.csv"))
    return load_dataset(Config(dataset="ct_table/32x32x16", **flags), paths)


@pytest.mark.parametrize(
    "flags",
    [
        {}, {"protocol": "kfold", "num_folds": 3}, {"protocol": "table"},
        {"protocol": "leave_one_site_out", "num_folds": 2, "fold": 1},
    ],
)  # fmt: skip
def test_patients_stay_whole_and_the_report_says_so(cohort, monkeypatch, flags):
    dataset = _load(cohort, monkeypatch, **flags)
    part_of = {dataset.study_ids[row]: part for part, rows in dataset.parts.items() for row in rows}
    assert len(part_of) == NUM_STUDIES
    assert all(part_of[f"s{number}"] == part_of[f"s{number + 1}"] for number in range(0, NUM_STUDIES, 2))
    bits = np.random.default_rng(0).integers(-90, 90, (NUM_STUDIES, signature.from_texts([]).shape[1])).astype(np.int8)
    keys = dataset.keys._replace(signature=[*map(signature.to_text, bits)])  # those of the chests are nearly the same
    assert "No patient is in two parts: 8 patients have 16 studies." in dataset._replace(keys=keys).check_leaks()
    if flags.get("protocol") == "table":
        assert [part_of[f"s{number}"] for number in range(0, NUM_STUDIES, 4)] == [
            "train",
            "train",
            "validation",
            "test",
        ]
    if flags.get("fold") == 1:
        assert {name for name, part in part_of.items() if part == "test"} == {f"s{number}" for number in range(8)}


def test_near_copies_are_dropped_where_that_is_asked_for(cohort, monkeypatch):
    with pytest.raises(UserError, match=r"have nearly the same voxels.*or train with --on_leak=drop"):
        _load(cohort, monkeypatch).check_leaks()
    with pytest.raises(UserError, match="--on_leak=drop leaves no studies to train: all are near copies"):
        _load(cohort, monkeypatch, on_leak="drop")


def test_weights_have_a_mean_of_one(cohort, monkeypatch):
    dataset = _load(cohort, monkeypatch)
    rows = np.arange(NUM_STUDIES)
    weights = dict(zip(dataset.study_ids, dataset.weights(rows).tolist(), strict=True))
    assert np.mean(list(weights.values())) == pytest.approx(1)
    assert weights["s2"] == pytest.approx(3 * weights["s0"])
    without = dataset._replace(index=datasets.dataclasses.replace(dataset.index, listed={}))
    assert without.weights(rows).tolist() == [1] * NUM_STUDIES


def test_other_columns_and_sites_are_subgroups(cohort, monkeypatch):
    dataset = _load(cohort, monkeypatch)
    rows = np.arange(NUM_STUDIES)
    columns = subgroups.columns(SimpleNamespace(rows=rows, dataset=dataset, study_ids=dataset.study_ids), None)
    first = dataset.study_ids.index("s3")
    assert columns["age"][first] == 33
    assert columns["ward"][first] == "w1"
    assert columns["site"][first] == "B"
    assert columns["category"][first] == "covid"
