"""Checkpoints of a run, by Orbax: one copy of the state as numpy, and what its validations gave."""

import errno
import os
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from covidscan.train_state import TrainState
from tfds_mosmed.errors import UserError


class Validation(NamedTuple):
    """One evaluation on the validation studies.

    Attributes:
      step: steps taken.
      auroc: the area under the ROC curve, or None where it is not defined.
    """

    step: int
    auroc: float | None


def best(history: list[Validation]) -> Validation | None:
    """Find the best validation; of equals the latest, as it has seen more."""
    defined = [validation for validation in history if validation.auroc is not None]
    return max(defined, key=lambda validation: (validation.auroc, validation.step), default=None)


class Checkpoints:
    """The checkpoints of a workdir: the newest few and the best by validation AUROC.

    Args:
      workdir: the run.
      keep: how many of the newest are kept; None: nothing is written or removed.
    """

    def __init__(self, workdir: epath.PathLike, *, keep: int | None):
        self.directory = epath.Path(workdir).absolute() / "checkpoints"  # Orbax wants no relative paths
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(keep),
                    policies.BestN(
                        get_metric_fn=lambda metrics: metrics["auroc"],
                        n=1,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
            save_decision_policy=policies.FixedIntervalPolicy(1),
            cleanup_tmp_directories=keep is not None,  # what a kill left half written
            create=keep is not None,
            read_only=keep is None,
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, state: TrainState, history: list[Validation]) -> None:
        """Save a state in the background.

        Args:
          state: replicated or not; it is copied to numpy before this returns.
          history: all validations so far; where the last one is of this very step it ranks the checkpoint.

        Raises:
          UserError: it could not be written.
        """
        state = jax.device_get(state)
        step = int(state.step)
        auroc = history[-1].auroc if history and history[-1].step == step else None
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state),
            history=ocp.args.JsonSave({"validations": [list(validation) for validation in history]}),
        )
        try:
            self._manager.save(step, args=items, metrics=None if auroc is None else {"auroc": auroc})
        except Exception as error:
            raise self._not_written(error) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Wait for what is being written; raises UserError where it could not be and nothing else went wrong."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            if kind is None:
                raise self._not_written(error) from error
        finally:
            self._manager.close()

    def _not_written(self, error: Exception) -> UserError:
        told = str(error).strip() or repr(error)
        causes = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)]
        reason = next((cause for cause in causes if cause in told), told.splitlines()[0])
        return UserError(
            f"{self.directory}: a checkpoint could not be written ({reason}): check that the disk has space and may be "
            "written to; the same command resumes from the last one"
        )

    def latest_step(self) -> int | None:
        """Find the newest step, or None."""
        return self._manager.latest_step()

    def find(self, which: str) -> int:
        """Find a step.

        Args:
          which: "best", "latest" or a number.

        Raises:
          UserError: there is no such checkpoint.
        """
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise UserError(f"{self.directory} holds no checkpoint: train first with python -m covidscan.train")
        if which == "latest":
            return steps[-1]
        if which == "best":
            leader = best(self._history(steps[-1]))
            return leader.step if leader and leader.step in steps else steps[-1]
        if which.isdecimal() and int(which) in steps:
            return int(which)
        raise UserError(f"--checkpoint={which}: give best, latest or one of the steps {', '.join(map(str, steps))}")

    def _history(self, step: int) -> list[Validation]:
        restored = self._manager.restore(step, args=ocp.args.Composite(history=ocp.args.JsonRestore()))
        return [Validation(*validation) for validation in restored["history"]["validations"]]

    def restore(self, step: int, abstract: TrainState) -> tuple[TrainState, list[Validation]]:
        """Restore a state on any topology.

        Args:
          step: the step.
          abstract: shapes and dtypes of the state, as `jax.eval_shape` gives them.

        Returns:
          The state as numpy, and the validations before it.

        Raises:
          UserError: the checkpoint is not of this network.
        """
        self._check_fits(step, abstract)
        restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), abstract)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(state=ocp.args.PyTreeRestore(item=abstract, restore_args=restore_args)),
        )
        return restored["state"], self._history(step)

    def _check_fits(self, step: int, abstract: TrainState) -> None:
        def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
            leaves = jax.tree_util.tree_leaves_with_path(tree)
            return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(x.shape) for path, x in leaves}

        handler = ocp.PyTreeCheckpointHandler()
        saved = shapes(handler.metadata(self.directory / str(step) / "state").tree)
        wanted = shapes(abstract)
        for name in sorted(saved.keys() | wanted.keys()):
            if saved.get(name) != wanted.get(name):
                raise UserError(
                    f"{self.directory / str(step)} is of another network than config.json tells of ({name} is "
                    f"{saved.get(name, 'absent')}, not {wanted.get(name, 'absent')}): use the workdir it came from"
                )
