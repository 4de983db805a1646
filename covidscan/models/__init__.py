"""Networks, by name."""

import flax.linen as nn

from covidscan.models.covidscan_cnn import CovidScanCNN
from covidscan.models.lung_resnet import LungResNet

NETWORKS = {"covidscan_cnn": CovidScanCNN, "lung_resnet": LungResNet}


def create(name: str, outputs: int, **settings) -> nn.Module:
    """Create a network.

    Args:
      name: a key of `NETWORKS`.
      outputs: number of logits.
      **settings: attributes of the network; None: the network's own default.

    Returns:
      A Linen module that maps (batch, slice, row, column, window) in [0, 1] to logits (batch, outputs).
    """
    return NETWORKS[name](outputs=outputs, **{k: v for k, v in settings.items() if v is not None})
