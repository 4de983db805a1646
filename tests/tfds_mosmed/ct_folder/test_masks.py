"""Lesion masks in a folder of studies: beside their study, or in a folder of masks."""

import json

import nibabel as nib
import numpy as np
import pytest

from tests.support.chest import chest, write_nifti, write_series
from tfds_mosmed.building.grid_config import GridConfig
from tfds_mosmed.building.study import FileStudy
from tfds_mosmed.ct_folder.ct_folder_dataset_builder import Builder
from tfds_mosmed.ct_folder.study_folder import list_studies
from tfds_mosmed.errors import UserError
from tfds_mosmed.scans.read import read_scan

CONFIG = GridConfig(name="16x20x10", grid="16x20x10")
LESION = chest() > 300


def _folder(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def _masks(root):
    studies, left_out = list_studies(root)
    assert all(isinstance(study, FileStudy) for study in studies)
    found = {study.study_id: study.mask and study.mask.path.relative_to(root).as_posix() for study in studies}
    return found, left_out


@pytest.mark.parametrize(
    "mask",
    [
        "covid/a_mask.nii.gz",
        "covid/masks/a.nii.gz",
        "covid/Masks/a_mask.nii",
        "masks/covid/a.nii.gz",
        "mask/a_mask.nii.gz",
        "masks/a.nii",
    ],
)
def test_a_mask_is_found_beside_its_study_or_in_a_folder(mask, tmp_path):
    found, left_out = _masks(_folder(tmp_path, "covid/a.nii.gz", "covid/b.nii", "normal/c.nii.gz", mask))
    assert found == {"covid/a": mask, "covid/b": None, "normal/c": None}
    assert left_out == {}


def test_deeper_folders_and_masks_without_a_study(tmp_path):
    names = ("covid/x/a.nii", "covid/y/a.nii", "covid/x/masks/a.nii", "masks/y/a.nii", "masks/gone.nii", "n/b.nii")
    found, left_out = _masks(_folder(tmp_path, *names))
    assert found == {"covid/x/a": "covid/x/masks/a.nii", "covid/y/a": "masks/y/a.nii", "n/b": None}
    assert left_out == {"masks without a study": 1}


def test_a_study_whose_name_ends_like_a_mask_is_a_study(tmp_path):
    found, _ = _masks(_folder(tmp_path, "covid/with_mask.nii.gz", "covid/b.nii.gz", "normal/b_mask.nii.gz"))
    assert found == {"covid/with_mask": None, "covid/b": None, "normal/b_mask": None}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("covid/a.nii", "normal/a.nii", "masks/a.nii"), "masks/a.nii: may be the mask of covid/a or normal/a; put"),
        (("covid/a.nii", "n/b.nii", "covid/a_mask.nii", "masks/a.nii"), "covid/a has the mask .*masks/a.nii too; rem"),
        (
            ("covid/a.nii", "n/b.nii", "masks/lesion_a.nii"),
            "masks/lesion_a.nii: lies among masks, and no study has",
        ),
    ],
)
def test_masks_of_no_or_several_studies_are_refused(names, words, tmp_path):
    with pytest.raises(UserError, match=words) as error:
        list_studies(_folder(tmp_path, *names))
    assert "\n" not in str(error.value)


def test_masks_are_on_the_grid_and_those_of_elsewhere_are_refused(tmp_path):
    raw = tmp_path / "raw"
    for name in ("covid/a.nii.gz", "normal/b.nii.gz"):
        write_nifti(_folder(raw, name) / name, chest(len(name)))
    write_series(raw / "covid/P1", chest())
    affine = read_scan(raw / "covid/P1").affine[:, [2, 1, 0, 3]]
    nib.save(nib.Nifti1Image(LESION.astype(np.uint8).transpose(2, 1, 0), affine), raw / "covid/P1_mask.nii.gz")
    write_nifti(raw / "covid/a_mask.nii.gz", (chest(14) > 300).astype(np.uint8))
    builder = Builder(config=CONFIG, data_dir=tmp_path / "data")
    builder.prepare(raw, workers=1)
    known = dict(zip(builder.index().study_id, builder.index().has_lesion_mask.tolist(), strict=True))
    assert known == {"covid/a": True, "covid/P1": True, "normal/b": False}
    for record in builder.open_records():
        lesion = record["lesion_mask"] > 0
        assert lesion.any() == record["has_lesion_mask"]
        assert not lesion.any() or (record["volume"][lesion] > 0).mean() > 0.5
    write_nifti(raw / "covid/P1_mask.nii.gz", np.ones((20, 30, 30), np.uint8))
    with pytest.raises(UserError, match="does not hold the studies that"):
        Builder(config=CONFIG, data_dir=tmp_path / "data").prepare(raw, workers=1)
    (study,) = (study for study in list_studies(raw)[0] if study.study_id == "covid/P1")
    with pytest.raises(UserError, match=r"P1_mask.nii.gz: is a mask of \(20, 30, 30\) voxels.*the study's own mask"):
        study.load()
    # Records of earlier versions have no masks.
    features = builder.data_path / "features.json"
    fields = json.loads(features.read_text())
    del fields["featuresDict"]["features"]["lesion_mask"]
    features.write_text(json.dumps(fields))
    older = Builder(config=CONFIG, data_dir=tmp_path / "data")
    assert "lesion_mask" not in older.info.features
    assert "lesion_mask" not in older.open_records()[0]
