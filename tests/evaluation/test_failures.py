"""Evidence in the failures that a report shows."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from covidscan.evaluation import failures
from covidscan.metrics.results import Failure
from tests.support.evaluations import chest

NAMES = ["marked", "first", "second", "absent"]


def _with_evidence(monkeypatch, grad_cam, members=1, task="classes"):
    """Add the evidence of a network to failures: one is marked, two are not, and one has no volume."""
    volumes = {name: chest((6, 17)) for name in ("first", "second", "right")}
    volumes["marked"] = chest()._replace(lesion_mask=np.ones((24, 48, 48), np.uint8))
    failed = [Failure(name, "Wrong", "cap", "covid", 0.1, "cap") for name in NAMES]
    evaluation = SimpleNamespace(task=task, failures=failed, label_names=["covid", "cap"])
    monkeypatch.setattr(failures.ensemble, "of_network", lambda member, point: (member, point))
    monkeypatch.setattr(failures, "SaliencyMapper", lambda network: SimpleNamespace(grad_cam=grad_cam))
    scored = SimpleNamespace(members=["network"] * members, operating_point="point")
    return failures.with_evidence(volumes, evaluation, scored)


@pytest.mark.parametrize(("task", "label"), [("classes", None), ("multilabel", 1)])
def test_failures_without_a_marked_lesion_have_the_networks_evidence(task, label, monkeypatch):
    def grad_cam(volume, explained):
        assert explained == label
        cam = np.zeros(volume.shape, np.float32)
        cam[9, 20, 14], cam[2, 0, 0] = 0.4, 0.9  # in a lung, and in the air before the chest
        return cam, 0.0

    found = _with_evidence(monkeypatch, grad_cam, task=task)
    assert {name for name, study in found.items() if study.evidence is None} == {"marked", "right"}
    for name in ("first", "second"):
        assert np.flatnonzero(found[name].evidence).tolist() == [9]
        assert found[name].opening() == (9, "the network’s highest evidence")
    assert "absent" not in found


def test_without_evidence_failures_open_at_dense_lung(monkeypatch, caplog):
    def grad_cam(volume, explained):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    assert _with_evidence(monkeypatch, grad_cam)["first"].opening() == (6, "most dense lung")
    assert "out of memory" in caplog.text
    found = _with_evidence(monkeypatch, lambda volume, _: (np.ones(volume.shape), 0.0), members=5)
    assert found["first"].evidence is None
