"""Networks to parametrise tests with; the baselines, which take seconds to compile, are in the random share."""

import pytest

from covidscan import models

BASELINES = ("resnet3d18", "densenet3d121", "keras_cnn")
NETWORKS = [pytest.param(name, marks=pytest.mark.sampled) if name in BASELINES else name for name in models.NETWORKS]
