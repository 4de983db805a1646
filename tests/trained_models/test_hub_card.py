"""Exported models for the Hugging Face Hub: the metadata of the card, safetensors, and what may not be shared."""

import sys

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from covidscan.metrics import metrics_json
from covidscan.trained_models import export, exported, hub_card
from tests.support import runs
from tests.trained_models.test_exported import _ensemble
from tfds_mosmed.errors import UserError


def _on(network, dataset):
    """A network that was trained on another data set."""
    return network._replace(run={**network.run, "data": {**network.run["data"], "dataset": dataset}})


@pytest.fixture(scope="module")
def evaluated():
    (folder,) = (runs.ROOT / "tests/support/stored_run/run/evaluations").iterdir()
    return hub_card.Evaluated(*metrics_json.read(folder, edited=True), "# Model card: a network\n\nText.\n")


def test_the_folder_has_a_card_with_metadata_and_safetensors(evaluated, tmp_path):
    networks, model = _ensemble(members=2), tmp_path / "model"
    export.write(networks, model, evaluated, hub_card=True)
    _, metadata, text = (model / "README.md").read_text().split("---\n", 2)
    found = yaml.safe_load(metadata)
    assert {"license", "library_name", "pipeline_tag", "tags", "model-index"} <= found.keys()
    (result,) = found["model-index"][0]["results"]
    assert result["dataset"]["name"] == evaluated.provenance.dataset
    metrics = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert metrics["roc_auc"] == pytest.approx(evaluated.evaluation.metrics["auroc"].value, abs=1e-4)
    assert metrics.keys() >= {"accuracy", "sensitivity", "specificity"}
    assert "# Model card: a network" in text
    assert "- ct_phantom/tiny: None is needed" in text
    stored, weights = load_file(model / "model.safetensors"), np.load(model / "weights.npz")
    assert stored.keys() == set(weights.files)
    for name, value in stored.items():
        np.testing.assert_array_equal(value, weights[name])
    (model / "README.md").write_text(f"---\nlicense: apache-2.0\n---\n{text}")  # as the owner does before sharing
    assert exported.load(model).info.task == "binary"
    (model / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        exported.load(model)


def test_a_network_whose_data_forbid_sharing_is_refused(monkeypatch):
    (network,) = _ensemble().members
    hub_card.check([network, _on(network, "ct_folder/32x32x16"), _on(network, "unknown/32x32x16")])
    with pytest.raises(UserError, match=r"trained on mosmed/64x64x32, whose licence forbids to share it .CC BY-NC-ND"):
        hub_card.check([network, _on(network, "mosmed/64x64x32")])
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(UserError, match="pip install safetensors"):
        hub_card.check([network])


def test_a_run_that_was_not_evaluated_has_no_card(trained, trained_with_seed_1, tmp_path):
    with pytest.raises(UserError, match=r"first python -m covidscan.evaluate --workdir=\S+run --checkpoint=latest$"):
        export.export([str(trained)], str(tmp_path / "model"), "latest", hub_card=True)
    with pytest.raises(UserError, match=r"--workdir=\S+run --checkpoint=latest --tta=mirror$"):
        export.export([str(trained)], str(tmp_path / "model"), "latest", hub_card=True, tta="mirror")
    with pytest.raises(UserError, match="--workdir names 2: give one"):
        export.export([str(trained), str(trained_with_seed_1)], str(tmp_path / "model"), hub_card=True)
    assert not (tmp_path / "model").exists()
