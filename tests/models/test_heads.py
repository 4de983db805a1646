"""Windows and probabilities, worked by hand."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from covidscan.models import heads


def test_windows_map_their_bounds_to_zero_and_one():
    hu = np.array([-2000, -1350, -600, 150, 3000], np.int16)
    out = heads.hu_windows(jnp.asarray(hu), ((-600.0, 1500.0), (40.0, 400.0)))
    np.testing.assert_allclose(out[:, 0], [0, 0, 0.5, 1, 1], atol=1e-6)
    np.testing.assert_allclose(out[:, 1], [0, 0, 0, (150 - -160) / 400, 1], atol=1e-6)


LOGITS = st_numpy.arrays(np.float32, (5, 3), elements=st.floats(-20, 20, width=32))


@given(LOGITS, st.sampled_from(("binary", "severity", "classes", "multilabel")))
def test_probabilities_are_probabilities(logits, task):
    found = np.asarray(heads.probabilities(task, jnp.asarray(logits)))
    assert found.shape == (5, 4 if task == "severity" else 3)
    assert found.min() >= 0
    if task == "multilabel":  # labels that do not exclude each other
        np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits.astype(np.float64))), rtol=1e-5)
    else:
        np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)


def test_severity_probabilities_by_hand():
    exceeds = np.array([0.9, 0.5, 0.2])
    logits = jnp.log(exceeds / (1 - exceeds))
    np.testing.assert_allclose(heads.probabilities("severity", logits), [0.1, 0.4, 0.3, 0.2], rtol=1e-5)
    certain = heads.probabilities("severity", jnp.array([200.0, 200.0, -200.0]))
    assert not np.signbit(certain).any(), "it would be shown as -0.000"
