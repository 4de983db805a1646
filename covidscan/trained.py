"""A trained network, restored from its workdir alone."""

from typing import Any, NamedTuple

from etils import epath

from covidscan import steps
from covidscan.checkpoint import Checkpoints
from covidscan.experiment import Experiment, create_experiment
from covidscan.flags import Config
from covidscan.workdir import read_run


class Trained(NamedTuple):
    """A network as some checkpoint has it.

    Attributes:
      workdir: the run.
      run: what its config.json holds.
      experiment: the network with its flags.
      variables: what judges: parameters (averaged where the run keeps a mean) and statistics, numpy.
      step: the checkpoint.
    """

    workdir: epath.Path
    run: dict[str, Any]
    experiment: Experiment
    variables: dict[str, Any]
    step: int


def restore(workdir: epath.PathLike, checkpoint: str = "best") -> Trained:
    """Restore a network on any number of devices.

    Args:
      workdir: the run.
      checkpoint: "best" by validation AUROC, "latest" or a step.

    Raises:
      UserError: this is no run, it has no such checkpoint, or the checkpoint is of another network.
    """
    run = read_run(workdir)
    data = run["data"]
    experiment = create_experiment(
        Config.from_json(run["config"]), len(data["label_names"]), tuple(data["volume_shape"]), data["num_train"]
    )
    with Checkpoints(workdir, keep=None) as checkpoints:
        step = checkpoints.find(checkpoint)
        state, _ = checkpoints.restore(step, experiment.abstract_state())
    return Trained(epath.Path(workdir), run, experiment, steps.eval_variables(state), step)
