"""Embeddings: what the last layer of each network of an ensemble sees."""

import jax
import numpy as np

from covidscan.trained_models.embedder import Embedder
from covidscan.training import step
from tests.trained_models.test_exported import _ensemble, _volumes


def test_the_logits_are_a_linear_function_of_the_embeddings():
    networks = _ensemble(members=2)
    embedder = Embedder(networks)
    volume = _volumes((16, 16, 16), 1)
    features = embedder(volume[0])
    assert features.dtype == np.float32
    assert len(embedder.layers) == len(features)
    for number, member in enumerate(networks.members):
        own = [name.startswith(f"{number}/") for name in embedder.layers]
        (layer,) = {name.partition("/")[2] for name in np.array(embedder.layers)[own]}
        last = member.variables["params"][layer]
        expected = jax.jit(step.logits, static_argnums=(0, 1))(
            member.experiment.config, member.experiment.model, member.variables, volume
        )
        np.testing.assert_allclose(features[own] @ last["kernel"] + last["bias"], expected[0], atol=1e-5)
