"""Files that make an exported model ready for the Hugging Face Hub: a model card with metadata, and safetensors."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from covidscan.metrics.classification import TITLES
from covidscan.metrics.provenance import Provenance
from covidscan.metrics.results import Evaluation
from covidscan.trained_models.restore import RestoredModel
from tfds_mosmed.errors import UserError
from tfds_mosmed.facts import forbidding_licence, load_facts

CARD, TENSORS = "README.md", "model.safetensors"
_METRIC_IDS = {"auroc": "roc_auc"}  # where the Hub has another name
_USE = """
## How to use
`model.stablehlo` is the network for CPU, CUDA and TPU; `weights.npz` and `model.safetensors` hold the same weights;
`model.json` describes how a scan is prepared, and `preparation.zip` holds the code that does it. An exported model is
an executable program: use it only if you trust its origin.

```
pip install jax flatbuffers nibabel scipy      # for DICOM also: pydicom python-gdcm
python predict_volume.py scan.nii.gz
```

## Licences
The code is under the Apache License 2.0. The metadata above leave the licence of the weights open: choose one that the
training data allow.

"""


class Evaluated(NamedTuple):
    """Evaluation of an exported checkpoint, what it was made from, and its model card as Markdown."""

    evaluation: Evaluation
    provenance: Provenance
    model_card: str


def check(members: Sequence[RestoredModel]) -> None:
    """Check that networks may be shared, and that safetensors is installed.

    Raises:
      UserError: the licence of the training data forbids it, or the package is missing.
    """
    for dataset in _datasets(members):
        if licence := forbidding_licence(dataset):
            raise UserError(
                f"--hub_card: the network was trained on {dataset}, whose licence forbids to share it ({licence}): "
                "export without --hub_card, for your own use"
            )
    try:
        import safetensors  # noqa: F401
    except ImportError as error:
        raise UserError("--hub_card needs one more package: pip install safetensors") from error


def write_tensors(folder: Path, weights: dict[str, np.ndarray]) -> None:
    """Write weights, float32 by name, as safetensors."""
    from safetensors.numpy import save  # imported lazily: an extra

    tensors = {name: np.ascontiguousarray(value) for name, value in weights.items()}
    (folder / TENSORS).write_bytes(save(tensors))  # its own writer would make a file that only the owner may read


def card(members: Sequence[RestoredModel], evaluated: Evaluated) -> str:
    """Return the card: metadata in YAML, the evaluation's model card, use and licences."""
    licences = "".join(
        f"- {name}: {load_facts(name).get('licence', 'not known: that of the owner of the studies')}\n"
        for name in _datasets(members)
    )
    return f"{_metadata(members, evaluated)}\n{evaluated.model_card.rstrip()}\n{_USE}{licences}"


def _datasets(members: Sequence[RestoredModel]) -> list[str]:
    return sorted({member.run["data"]["dataset"] for member in members})


def _metadata(members: Sequence[RestoredModel], evaluated: Evaluated) -> str:
    """Return the metadata between lines of ---; values are JSON, which YAML includes."""
    evaluation, provenance = evaluated.evaluation, evaluated.provenance
    network = members[0].experiment.config.model
    kind = "other" if evaluation.regression else "image-classification"  # the Hub has no regression of images
    values = {
        "license": "other",
        "license_name": "not-chosen",
        "library_name": "jax",
        "pipeline_tag": kind,
        "tags": [
            "chest-ct",
            "covid-19",
            "medical-imaging",
            "3d",
            "flax",
            "stablehlo",
            "covidscan",
            "not-for-diagnosis",
        ],
        "model-index": [
            {
                "name": network,
                "results": [
                    {
                        "task": {"type": kind, "name": f"{evaluation.task} labels of chest CT"},
                        "dataset": {"name": provenance.dataset, "type": provenance.dataset, "split": provenance.part},
                        "metrics": [
                            {"type": _METRIC_IDS.get(name, name), "name": TITLES[name], "value": round(metric.value, 4)}
                            for name, metric in evaluation.metrics.items()
                            if metric.value is not None
                        ],
                    }
                ],
            }
        ],
    }
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in values.items()), "---", ""])
