"""Catalog of the data sets."""

import pytest

from tfds_mosmed import catalog
from tfds_mosmed.errors import UserError


def test_builders_are_found_by_name_and_the_message_lists_them(tmp_path):
    assert catalog.load_builder("mosmed/sample_64x64x32_full", tmp_path).name == "mosmed"
    assert catalog.load_builder("ct_phantom/demo", tmp_path).builder_config.num_studies == 200
    with pytest.raises(UserError, match=r"there is no 'mosmd'; .* ct_folder, ct_phantom, mosmed"):
        catalog.load_builder("mosmd/64x64x32", tmp_path)
    with pytest.raises(UserError, match=r"no configuration '64x64'; .*64x64x32, 64x64x32_full.*sample_128x128x32"):
        catalog.load_builder("mosmed/64x64", tmp_path)
