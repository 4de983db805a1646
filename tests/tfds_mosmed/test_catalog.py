"""Catalog of the data sets."""

import importlib
import re

import pytest

from tfds_mosmed import catalog
from tfds_mosmed.dataset_names import CONFIGS, check_name
from tfds_mosmed.errors import UserError


def test_builders_are_found_by_name(tmp_path):
    assert catalog.load_builder("mosmed/sample_64x64x32_full", tmp_path).name == "mosmed"
    assert catalog.load_builder("ct_phantom/demo", tmp_path).builder_config.num_studies == 200
    with pytest.raises(UserError, match="there is no data set 'mosmd'"):
        catalog.load_builder("mosmd/64x64x32", tmp_path)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_names_are_those_of_the_builders(name):
    builder = importlib.import_module(f"tfds_mosmed.{name}.{name}_dataset_builder").Builder
    assert set(CONFIGS[name]) == set(builder.builder_configs)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("ct_phantom/128x128", "ct_phantom has no configuration '128x128'. Did you mean ct_phantom/128x128x32"),
        ("mosmd/128x128x32", "there is no data set 'mosmd'. Did you mean mosmed/128x128x32"),
        ("MosMed/128X128X32", "there is no data set 'MosMed'. Did you mean mosmed/128x128x32"),
        ("mosmed", "mosmed has no configuration ''. Choose mosmed/CONFIG, CONFIG one of 32x32x16, 32x32x16_full, "),
        (
            "imagenet",
            "there is no data set 'imagenet'. Choose NAME/CONFIG, NAME one of ct_folder, ct_phantom, ct_table, mosmed",
        ),
    ],
)
def test_a_wrong_name_is_refused_with_the_closest_ones(given, message):
    with pytest.raises(UserError, match=re.escape(f"--dataset={given}: {message}")):
        check_name(given)
