"""Facts of the data sets."""

from tfds_mosmed.dataset_names import CONFIGS
from tfds_mosmed.facts import load_facts


def test_facts_lie_beside_each_builder():
    assert all({"name", "data", "unit"} <= load_facts(dataset).keys() for dataset in CONFIGS)
    assert "BY-NC-ND" in load_facts("mosmed/128x128x32")["licence"]
    assert "licence" not in load_facts("ct_folder")
    assert load_facts("another/64x64x32") == {}
