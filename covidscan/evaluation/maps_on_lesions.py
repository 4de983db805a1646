"""The maps of a trained network, and of networks that learned nothing, held against lesion masks."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from covidscan.data.dataset import Dataset
from covidscan.evaluation.localisation import localisation, summarise
from covidscan.explanation.saliency import SaliencyMapper
from covidscan.trained_models import ensemble
from covidscan.trained_models.ensemble import Ensemble
from covidscan.training import state as train_state
from covidscan.training import step
from tfds_mosmed.errors import UserError

MAPS = ("grad_cam", "integrated_gradients")


def compare(trained: Ensemble, shuffled: Ensemble | None, studies: Dataset) -> dict[str, Any]:
    """Draw the maps of diseased test studies that have a lesion mask, and see what they hit.

    Args:
      trained: the network.
      shuffled: one trained on shuffled labels, or None.
      studies: the data set, with the network's own parts.

    Returns:
      "networks": name ("trained", "untrained", "shuffled labels") -> map -> `localisation.summarise`; "chance": the
      mean share of the lungs that is lesion.

    Raises:
      UserError: no test study has a lesion mask.
    """
    networks = {"trained": trained, "untrained": untrained_control(trained)}
    if shuffled is not None:
        networks["shuffled labels"] = shuffled
    rows = list(_rows_with_lesions(studies))
    if not rows:
        raise UserError(
            f"{studies.dataset}: no test study has a lesion mask, so that there is nothing to hold the maps against: "
            "use a run whose data set has masks"
        )
    result = {name: _judge(network, studies, rows) for name, network in networks.items()}
    return {"chance": result["trained"]["grad_cam"]["chance"], "networks": result}


def _rows_with_lesions(studies: Dataset) -> Iterator[int]:
    for row in map(int, studies.parts["test"] if studies.has_masks else []):
        record = studies.records[row]
        if record["has_lesion_mask"] and np.any(record["lesion_mask"]):
            yield row


def _judge(network: Ensemble, studies: Dataset, rows: list[int]) -> dict[str, Any]:
    explain, found = SaliencyMapper(network), {name: [] for name in MAPS}
    for row in rows:
        record = studies.records[row]
        volume, label = np.asarray(record["volume"]), int(studies.labels.values[row])
        maps = explain(volume, label)
        for name in MAPS:
            mask, spacing = np.asarray(record["lesion_mask"]), np.asarray(record["spacing_mm"]).tolist()
            found[name].append(localisation(getattr(maps, name), mask, volume, spacing))
    return {name: summarise(figures) for name, figures in found.items()}


def untrained_control(trained: Ensemble) -> Ensemble:
    """Give networks of the same shape as they are before training, from seeds that no member was trained with."""
    members = []
    for member in trained.members:
        experiment = member.experiment
        state = train_state.create_train_state(
            experiment.model, experiment.tx, experiment.input_shape, experiment.config.seed + 1_000_000, ema=False
        )
        members.append(member._replace(variables=step.eval_variables(state)))
    return trained._replace(members=members)


def shuffled_control(trained: Ensemble, workdir: epath.PathLike) -> Ensemble:
    """Restore the control that was trained on shuffled labels.

    Args:
      trained: the network that it stands beside.
      workdir: of the control.

    Raises:
      UserError: it was not trained so, or on other studies.
    """
    control = ensemble.load([workdir], "latest")
    if not control.members[0].experiment.config.shuffle_labels:
        raise UserError(f"--shuffled_workdir={workdir}: was not trained with --shuffle_labels: train the control so")
    for name in ("task", "label_names", "grid"):
        if getattr(control.info, name) != getattr(trained.info, name):
            raise UserError(f"--shuffled_workdir={workdir}: its {name} is not the run's: train it with the same flags")
    if control.members[0].run["data"]["split_hash"] != trained.members[0].run["data"]["split_hash"]:
        raise UserError(
            f"--shuffled_workdir={workdir}: its studies are split in another way than the run's: train it with "
            "the same --dataset, --protocol, --fold and --split_seed"
        )
    return control
