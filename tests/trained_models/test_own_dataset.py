"""The data set of a restored network is the one that it was trained on, or an error."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from etils import epath

from covidscan.config import Config
from covidscan.evaluation.evaluation_set import RELABELLED, load_evaluation_set
from covidscan.metrics.signed_json import checksum
from covidscan.runs.workdir import read_run
from covidscan.trained_models.restore import RestoredModel
from tfds_mosmed.errors import UserError


@pytest.fixture
def network(trained, tmp_path):
    """A network with a copy of its run's files, whose records have another fingerprint than config.json."""
    for name in ("config.json", "studies.json"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    run = read_run(tmp_path)
    run["data"]["fingerprint"] = "of an earlier version"
    experiment: Any = SimpleNamespace(config=Config.from_json(run["config"]))
    return RestoredModel(epath.Path(tmp_path), run, experiment, {}, 14)


def test_records_of_the_same_voxels_are_taken_whatever_their_version(network):
    assert len(network.own_dataset().study_ids) == 24


def test_labels_that_were_changed_since_the_training_are_told(network, monkeypatch, caplog):
    own, described = network.own_dataset(), network.run["data"]
    monkeypatch.setattr(RestoredModel, "own_dataset", lambda *_: own)
    loaded = load_evaluation_set(network, "test", "best", None, None)
    assert RELABELLED not in loaded.leak_check + caplog.text
    corrected = own._replace(categories=["CT-0" if name == "CT-4" else name for name in own.categories])
    assert not corrected.is_labelled_as(described)
    fewer = {**own.counts("test"), "negative": 0}
    earlier = {name: value for name, value in described.items() if name != "categories_sha256"}
    assert own.is_labelled_as(earlier)
    assert not own.is_labelled_as(earlier | {"studies": described["studies"] | {"test": fewer}})
    assert own.is_labelled_as({name: value for name, value in earlier.items() if name != "studies"})
    monkeypatch.setattr(RestoredModel, "own_dataset", lambda *_: corrected)
    assert load_evaluation_set(network, "test", "best", None, None).leak_check.endswith(RELABELLED)
    assert RELABELLED in caplog.text


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_other_voxels_under_the_same_names_are_not_taken(network, part):
    path = network.workdir / "studies.json"
    studies = json.loads(path.read_text())
    studies[part][0]["voxels_sha256"] = "0" * 64
    studies["sha256"] = checksum({name: keys for name, keys in studies.items() if name != "sha256"})
    path.write_text(json.dumps(studies))
    with pytest.raises(UserError, match=r"--data_dir=\S+ holds other studies of ct_phantom/tiny"):
        network.own_dataset()
