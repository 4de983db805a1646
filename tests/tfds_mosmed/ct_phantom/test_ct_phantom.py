import dataclasses

import numpy as np
import pytest

from tfds_mosmed import catalog
from tfds_mosmed.ct_phantom.ct_phantom_dataset_builder import Builder, CaseConfig, PhantomConfig
from tfds_mosmed.ct_phantom.generator import make_phantom
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.lung_region import find_lung_box


def config(**changes):
    fields = {"grid": "24x32x12", "num_studies": 6, "shares": "balanced", "matrix": 64, **changes}
    return PhantomConfig(name="mine", **fields)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    made = Builder(config=config(), data_dir=tmp_path_factory.mktemp("data"))
    made.prepare(workers=2)
    return made


def test_builds_phantoms_with_masks(built):
    index = built.index()
    assert sorted(index.study_id) == [f"phantom_{number:04d}" for number in range(1, 7)]
    assert index.category.count("CT-0") >= 2
    assert set(index.category) <= {"CT-0", "CT-1", "CT-2", "CT-3", "CT-4"}
    assert index.has_lesion_mask.all()
    assert index.lungs_found.all()
    np.testing.assert_allclose(index.source_spacing_mm[:, 0], 8, rtol=1e-5)
    for record in built.open_records():
        assert record["volume"].shape == record["lesion_mask"].shape == (12, 24, 32)
        assert record["lesion_mask"].any() == (record["category"] != "CT-0")
        # What lies under the mask is denser than aerated lung.
        if record["category"] in ("CT-3", "CT-4"):
            assert record["volume"][record["lesion_mask"] == 1].mean() > -700


@pytest.mark.parametrize("category", ["CT-0", "CT-2", "CT-4"])
def test_the_lungs_box_keeps_the_lungs_and_what_is_wrong_with_them(category):
    phantom = make_phantom(seed=11, category=category, matrix=128)
    lungs = find_lung_box(phantom.hu, phantom.spacing_mm)
    assert lungs.found
    for mask in (phantom.lung_mask, phantom.lesion_mask):
        assert mask[lungs.box].sum() >= 0.995 * mask.sum()
    size = [side.stop - side.start for side in lungs.box] * np.array(phantom.spacing_mm)
    extent = [np.ptp(where) + 1 for where in np.nonzero(phantom.lung_mask)] * np.array(phantom.spacing_mm)
    assert (size - extent <= [40, 50, 80]).all()  # the table, for one, is not in it


def test_phantoms_do_not_depend_on_their_number_and_another_seed_gives_others(built, tmp_path):
    again = Builder(config=config(), data_dir=tmp_path / "again")
    again.prepare(workers=1)
    assert again.fingerprint() == built.fingerprint()
    large = [Builder(config=config(seed=seed, num_studies=1110), data_dir=tmp_path) for seed in (0, 1)]
    seeds = [{study.seed for study in made._list_studies(None)} for made in large]
    assert [len(of_set) for of_set in seeds] == [1110, 1110]
    assert not seeds[0] & seeds[1]


def test_records_of_other_fields_are_not_taken_for_these(built):
    """The name alone says nothing of a configuration that is made in Python."""
    with pytest.raises(
        UserError,
        match=r"ct_phantom/mine/.*: was built with .*num_studies=6.*num_studies=7.*another name or --data_dir",
    ):
        Builder(config=config(num_studies=7), data_dir=built.data_dir_root).prepare()


def test_names_of_configurations(tmp_path):
    configs = Builder.builder_configs
    assert {"demo", "tiny", "64x64x32", "128x128x32_full", "balanced_256x256x40"} <= configs.keys()
    assert catalog.load_builder("ct_phantom/64x64x32", tmp_path).builder_config.num_studies == 1110
    assert configs["64x64x32"].shares == "mosmed"
    assert configs["balanced_64x64x32"].shares == "balanced"
    assert configs["64x64x32"].matrix == 512
    assert (configs["tiny"].num_studies, str(configs["tiny"].grid)) == (24, "32x32x16")
    for known in configs.values():
        assert known.shares in ("mosmed", "balanced", "classes")
        assert dataclasses.replace(known, name="other").grid == known.grid


@pytest.mark.parametrize("changes", [{"shares": "equal"}, {"num_studies": 0}, {"matrix": 8}, {"grid": "64"}])
def test_refuses_impossible_sets(changes):
    with pytest.raises(UserError, match=str(next(iter(changes.values())))):
        config(**changes)


def test_sets_of_many_scanners_know_findings_and_diameters(tmp_path):
    fields = {"grid": "24x32x12", "num_studies": 8, "matrix": 128, "masks": 2, "version": "1.0.0"}
    made = Builder(config=CaseConfig(name="hard_small", **fields), data_dir=tmp_path)
    made.prepare(workers=2)
    index = made.index()
    assert sorted(index.study_id) == [f"hard_{number:04d}" for number in range(1, 9)]
    assert (index.has_lesion_mask.sum(), made.data_path.name) == (2, "1.0.0")
    for row, record in enumerate(made.open_records()):
        details = index.details[record["study_id"]]
        assert bool(details["lesion_diameters_mm"]) == (record["category"] != "CT-0")
        assert index.has_lesion_mask[row] <= (record["category"] == "CT-1")
        patterns = {"ground_glass", "crazy_paving", "consolidation", "reversed_halo", "perilobular"}
        assert bool(patterns & set(details["findings"])) == (record["category"] != "CT-0")


def test_sets_for_classes_and_external_tests(tmp_path):
    configs = Builder.builder_configs
    classes, hard, external = (configs[f"{name}_128x128x32"] for name in ("classes", "hard", "external"))
    studies = Builder(config=classes, data_dir=tmp_path)._list_studies(None)
    assert {study.category for study in studies} == {"covid", "normal", "other", "other_pneumonia"}
    assert all((study.grade == "CT-0") == (study.category != "covid") for study in studies)
    assert (hard.num_studies, hard.masks, hard.shares, hard.matrix) == (1110, 50, "mosmed", 512)
    assert external.hospital == "external"
    masked = [study for study in Builder(config=hard, data_dir=tmp_path)._list_studies(None) if study.has_mask]
    assert [study.category for study in masked] == ["CT-1"] * 50
    study = next(study for study in studies if study.category == "other_pneumonia")
    loaded = dataclasses.replace(study, matrix=64).load()
    assert not loaded.lesion_mask.any()
    assert loaded.details["lesion_diameters_mm"] == []
