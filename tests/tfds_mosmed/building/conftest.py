"""Fixtures: small studies, and their records."""

import pytest

from tests.support.chest import chest, write_nifti
from tests.support.small_builds import STUDIES, small_builder


@pytest.fixture(scope="package")
def studies(tmp_path_factory):
    root = tmp_path_factory.mktemp("studies")
    for study_id, seed in STUDIES.items():
        write_nifti(root / f"{study_id}.nii.gz", chest(seed))
    return root


@pytest.fixture(scope="package")
def built(studies, tmp_path_factory):
    made = small_builder(tmp_path_factory.mktemp("data"))
    made.prepare(studies, workers=2)
    return made
