"""Networks, by name."""

import flax.linen as nn

from covidscan.models.covidscan_cnn import CovidScanCNN
from covidscan.models.densenet3d121 import DenseNet3D121
from covidscan.models.keras_cnn import KerasCNN
from covidscan.models.lung_resnet import LungResNet
from covidscan.models.resnet3d18 import ResNet3D18

NETWORKS = {
    "lung_resnet": LungResNet,
    "covidscan_cnn": CovidScanCNN,
    "resnet3d18": ResNet3D18,
    "densenet3d121": DenseNet3D121,
    "keras_cnn": KerasCNN,
}


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
