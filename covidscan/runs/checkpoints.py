"""Checkpoints of a run, by Orbax: one copy of the state as numpy arrays, and the history of validations."""

import errno
import functools
import json
import logging as stdlib_logging
import os
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from covidscan.runs import operating_points, remote_checkpoints
from covidscan.runs.durable_checkpoints import DurablePath
from covidscan.runs.workdir import has_checkpoints, read_run, trained_as
from tfds_mosmed import storage
from tfds_mosmed.errors import UserError, first_line

PyTree = Any  # of arrays, with the leaf `step`
REMOVAL_S = 0.2  # for which a checkpoint may be there in part while it is removed


class Validation(NamedTuple):
    """One evaluation on the validation studies.

    Attributes:
      step: steps taken.
      score: that chooses the checkpoint, higher is better, see `headline.Headline`; None where it is not defined.
    """

    step: int
    score: float | None


def best(history: list[Validation]) -> Validation | None:
    """Return the validation with the highest score, the latest of equals; None where no score is defined."""
    defined = [validation for validation in history if validation.score is not None]
    return max(defined, key=lambda validation: (validation.score, validation.step), default=None)


# Fields of the state that older checkpoints lack -> the field whose values they begin with.
_ADDED_FIELDS = {"ema_batch_stats": "batch_stats"}


class DamagedError(UserError):
    """A checkpoint that cannot be read, or whose checksum differs.

    Args:
      directory: of the checkpoint.
    """

    def __init__(self, directory: epath.Path):
        super().__init__(f"{directory} is damaged: use another --checkpoint")


def _unreadable(directory: epath.Path, error: Exception) -> UserError:
    """Return the error of a checkpoint that a library could not read."""
    time.sleep(REMOVAL_S)
    is_remote = storage.is_remote(directory)
    if not directory.exists() and (is_remote or os.access(directory.parent, os.X_OK, effective_ids=True)):
        return UserError(
            f"{directory} was removed while it was read: a training in its workdir keeps the newest and the best; "
            "run the same command again"
        )
    # It need not be damaged then, and must not be moved away.
    forbidden = not is_remote and any(
        not os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK, effective_ids=True)
        for path in (directory, *Path(directory).rglob("*"))
    )
    if forbidden or "permission denied" in str(error).lower():
        return UserError(f"{directory} cannot be read: give yourself permission to read all of it")
    return DamagedError(directory)


class _History(NamedTuple):
    """Content of a checkpoint besides the state: the validations so far, a checksum of the state, and config.json.

    `trained_as` is of `workdir.trained_as`; None in checkpoints of earlier versions.
    """

    validations: list[Validation]
    checksum: int
    trained_as: dict[str, Any] | None


def checksum(tree: PyTree) -> int:
    """Return the CRC-32 of all leaves, which detects flipped bits."""
    return functools.reduce(
        lambda crc, leaf: zlib.crc32(np.ascontiguousarray(leaf).data, crc), jax.tree.leaves(tree), 0
    )


def parameters_checksum(variables: PyTree) -> str:
    """Return the checksum of a network's parameters and batch statistics, as hexadecimal digits."""
    return f"{checksum(variables):08x}"


class _KeepBest(policies.PreservationPolicy):
    """Preserves the best checkpoint by the score of its validation.

    Orbax's BestN knows only the metrics of checkpoints saved by this process. The history of validations is part of
    every checkpoint, so it includes those before a restart.
    """

    def __init__(self):
        self.history: list[Validation] = []

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        leader = best(self.history)
        return [leader is not None and info.step == leader.step for info in checkpoints]


def _is_not_of_orbax(record: stdlib_logging.LogRecord) -> bool:
    """Return whether to log a record: Orbax warns that a read-only folder is read-only."""
    return "orbax" not in record.pathname


class Checkpoints:
    """The checkpoints of a workdir: the newest few and the best by the score of its validation.

    Args:
      workdir: the run.
      keep: number of newest checkpoints that are kept; None: nothing is written or removed.
      passed_on: errors of saving that are raised as they are; others become a UserError.
    """

    def __init__(
        self, workdir: epath.PathLike, *, keep: int | None, passed_on: Callable[[Exception], bool] = lambda _: False
    ):
        self.workdir = storage.absolute(workdir)  # Orbax rejects relative paths
        self._passed_on = passed_on
        self.directory = self.workdir / "checkpoints"
        self._best = _KeepBest()
        logging.get_absl_logger().addFilter(_is_not_of_orbax)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), self._best]),
            save_decision_policy=policies.FixedIntervalPolicy(1),
            cleanup_tmp_directories=keep is not None,  # incomplete checkpoints of a killed process
            create=keep is not None,
            read_only=keep is None,
            atomicity_options=remote_checkpoints.atomicity(self.directory),
            temporary_path_class=None if storage.is_remote(self.directory) else DurablePath,
        )
        try:
            self._manager = ocp.CheckpointManager(
                self.directory, options=options, handler_registry=remote_checkpoints.handlers(self.directory)
            )
        except (RecursionError, ValueError, TypeError, KeyError) as error:  # Orbax reads these files here
            raise UserError(
                f"{self.directory}: a file _CHECKPOINT_METADATA in it is damaged ({first_line(error)}): remove the "
                "folder of that checkpoint"
            ) from error
        finally:
            logging.get_absl_logger().removeFilter(_is_not_of_orbax)

    def save(self, state: PyTree, history: list[Validation]) -> None:
        """Save a state in the background, unless the newest checkpoint has this step; all processes call it.

        Args:
          state: replicated or not; copied to numpy before this returns.
          history: all validations so far; the checkpoint of the best one is kept.

        Raises:
          UserError: the checkpoint could not be written.
        """
        state = jax.device_get(state)
        step = int(state.step)
        if step == self.latest_step():
            return
        self._best.history = list(history)
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state),
            history=ocp.args.JsonSave(
                {
                    "validations": [list(validation) for validation in history],
                    "crc32": checksum(state),
                    "trained_as": self._trained_as(),
                }
            ),
        )
        try:
            self._manager.save(step, args=items)
        except Exception as error:
            if self._passed_on(error):
                raise
            raise self._not_written(error) from error

    def wait(self) -> None:
        """Wait until all checkpoints are written.

        Raises:
          UserError: one could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            if self._passed_on(error):
                raise
            raise self._not_written(error) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Wait for pending writes; raises UserError where they fail, unless another exception is being raised."""
        try:
            self.wait()
        except UserError:
            if kind is None:
                raise
        finally:
            self._manager.close()

    def _not_written(self, error: Exception) -> UserError:
        message = str(error)
        causes = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)]
        reason = next((cause for cause in causes if cause in message), None)
        reason = reason or getattr(error, "strerror", None) or first_line(error)
        return UserError(
            f"{self.directory}: a checkpoint could not be written ({reason}): check the free space and the permissions "
            "of the folder; the same command resumes from the last checkpoint"
        )

    def latest_step(self) -> int | None:
        """Return the newest step; None where there is no checkpoint."""
        return self._manager.latest_step()

    def find(self, which: str) -> int:
        """Return the step of a checkpoint.

        Args:
          which: "best" on the validation studies, "latest" or a step.

        Raises:
          UserError: there is no such checkpoint.
        """
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise UserError(f"{self.directory} holds no checkpoint: train first with python -m covidscan.train")
        if which in ("latest", "best"):
            history = self._history(steps[-1])
            self._check_none_is_lost(steps[-1])
            if which == "latest":
                return steps[-1]
            leader = best(history.validations)
            if leader is None:
                logging.warning(
                    "%s: no metric of the validation studies is defined; using the latest checkpoint", self.directory
                )
                return steps[-1]
            if leader.step not in steps:
                raise UserError(
                    f"--checkpoint=best: the best checkpoint, step {leader.step}, is no longer in {self.directory}: "
                    f"use --checkpoint=latest or one of the steps {', '.join(map(str, steps))}, or train again"
                )
            return leader.step
        if which.isdecimal() and int(which) in steps:
            self._history(int(which))  # names what was changed in config.json before a network is made of it
            return int(which)
        raise UserError(f"--checkpoint={which}: use best, latest or one of the steps {', '.join(map(str, steps))}")

    def _check_none_is_lost(self, newest: int) -> None:
        """Raise UserError where an operating point was chosen for a checkpoint newer than all that are there."""
        chosen = operating_points.newest_step(self.workdir)
        if chosen is not None and chosen > newest:
            raise UserError(
                f"{self.directory / str(chosen)} is missing, for which {operating_points.FILE} was written: put it "
                f"back, use --checkpoint={newest}, or run python -m covidscan.train again with the same flags"
            )

    def _trained_as(self) -> dict[str, Any] | None:
        if not (self.workdir / "config.json").exists():
            return None
        run = read_run(self.workdir)
        # Of the network that it began with: without it, the studies that developed that one would not be looked for.
        began = {name: run.get("initialisation", {}).get(name) for name in ("identity", "trained_on", "unknown")}
        return {**trained_as(run), "initialisation": {name: value for name, value in began.items() if value}}

    def _history(self, step: int) -> "_History":
        with remote_checkpoints.local(self.directory / str(step) / "history") as folder:
            try:
                kept = ocp.JsonCheckpointHandler().restore(folder)
                validations = [Validation(*validation) for validation in kept["validations"]]
                history = _History(validations, kept["crc32"], kept.get("trained_as"))
            except Exception as error:  # Orbax and TensorStore raise many types for damaged files
                raise _unreadable(self.directory / str(step), error) from error
        self._check_trained_as(step, history.trained_as)
        return history

    def _check_trained_as(self, step: int, then: dict[str, Any] | None) -> None:
        now = self._trained_as()
        if then is None or now is None:
            return
        for part, fixed in then.items():
            for name in fixed:
                was, is_ = (json.dumps(run[part].get(name)) for run in (then, now))
                if was != is_:
                    raise UserError(
                        f"{self.workdir / 'config.json'} was changed since {self.directory / str(step)} was trained: "
                        f"{name} was {was} and is {is_}; put it back as it was"
                    )

    def restore(self, step: int, abstract: PyTree) -> tuple[PyTree, list[Validation]]:
        """Restore a state on any topology.

        Args:
          step: of the checkpoint.
          abstract: shapes and dtypes of the state, from `jax.eval_shape`.

        Returns:
          The state as numpy arrays, and the validations up to it.

        Raises:
          DamagedError: the checkpoint cannot be read, or its checksum differs.
          UserError: the checkpoint is of another network.
        """
        history = self._history(step)
        with remote_checkpoints.local(self.directory / str(step) / "state") as folder:
            try:
                tree = ocp.PyTreeCheckpointHandler().metadata(folder).tree
                added = [name for name in _ADDED_FIELDS if hasattr(abstract, name) and name not in tree]
                fitting = abstract.replace(**{name: {} for name in added}) if added else abstract
                self._check_fits(step, _shapes(tree), fitting)
                # Orbax takes no field that is not there, not even an empty one.
                stored = {name: part for name, part in vars(fitting).items() if name not in added} if added else fitting
                restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
                state = ocp.PyTreeCheckpointHandler().restore(
                    folder, args=ocp.args.PyTreeRestore(item=stored, restore_args=restore_args)
                )
                state = fitting.replace(**state) if added else state
            except UserError:
                raise
            except Exception as error:
                raise _unreadable(self.directory / str(step), error) from error
        if checksum(state) != history.checksum:
            raise DamagedError(self.directory / str(step))
        for name in added:
            if jax.tree.leaves(getattr(abstract, name)):
                state = state.replace(**{name: getattr(state, _ADDED_FIELDS[name])})
        return state, history.validations

    def restore_newest(self, abstract: PyTree) -> tuple[PyTree, list[Validation]] | None:
        """Restore the newest state that can be read; None where there is no checkpoint. All processes call it.

        Damaged checkpoints are moved to `WORKDIR/damaged`, with a warning.

        Args:
          abstract: see `restore`.

        Raises:
          UserError: all checkpoints are damaged, or they are of another network.
        """
        damaged, found = [], None
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                found = self.restore(step, abstract)
            except DamagedError as error:
                logging.warning("%s; trying the previous one", error)
                damaged.append(step)
                continue
            break
        if damaged and found is None:
            raise UserError(f"{self.directory}: none of its checkpoints can be read: train in another --workdir")
        self._move_damaged(damaged)
        return found

    def _move_damaged(self, steps: list[int]) -> None:
        if jax.process_index() == 0:
            for step in steps:
                target = self.workdir / "damaged" / f"{step}-{time.time_ns()}"
                storage.move_folder(self.directory / str(step), target)
                logging.warning("%s: moved to %s", self.directory / str(step), target)
        # Without damaged ones too: another process may have seen some.
        multihost_utils.sync_global_devices("damaged checkpoints")
        if steps:
            self._manager.reload()

    def _check_fits(self, step: int, saved: dict[str, tuple[int, ...]], abstract: PyTree) -> None:
        expected = _shapes(abstract)
        for name in sorted(saved.keys() | expected.keys()):
            if saved.get(name) != expected.get(name):
                raise UserError(
                    f"{self.directory / str(step)} is of another network than config.json describes ({name} is "
                    f"{saved.get(name, 'absent')}, not {expected.get(name, 'absent')}): use the workdir it came from"
                )


def best_step(workdir: epath.PathLike) -> int | None:
    """Return the step of the best checkpoint as it is now; None where none is there, or it cannot be told."""
    if not has_checkpoints(workdir):
        return None
    try:
        with Checkpoints(workdir, keep=None) as checkpoints:
            return checkpoints.find("best")
    except UserError:
        return None


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(x.shape) for path, x in leaves}
