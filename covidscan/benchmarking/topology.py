"""Compilation of the training and evaluation steps for TPUs and GPUs that are not there."""

import dataclasses
import importlib.metadata
import importlib.util
import os
from typing import Any

import jax
import jax.numpy as jnp

from covidscan.benchmarking.chips import GPU_TARGETS, Slice
from covidscan.config import Config
from covidscan.data.feed import Batch
from covidscan.distributed import compiler_arguments, devices
from covidscan.training import step
from covidscan.training.experiment import create_experiment
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.grid import Grid

NUM_LABELS = 2
# The compiler asks neither a metadata server nor other hosts, and does not claim a TPU that this machine may have.
ALONE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",  # any that libtpu knows: without one it warns
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# The plug-in for GPUs: of JAX's version, without the libraries that it runs programs with.
PLUGIN = ("jax-cuda12-plugin", "jax-cuda12-pjrt")


def compiler_package(target: Slice) -> str:
    """Return the name of the package that holds the compiler."""
    return PLUGIN[-1] if target.chip.is_gpu else "libtpu"


def slice_devices(target: Slice) -> list[Any]:
    """Return devices of a slice, for which programs can be compiled but not run.

    Raises:
      UserError: the compiler is not installed, or does not know the slice.
    """
    if target.chip.is_gpu:
        return _gpu_devices(target)
    if importlib.util.find_spec("libtpu") is None:
        wanted = [each.split(";")[0].strip() for each in importlib.metadata.requires("jax") or [] if "libtpu" in each]
        raise UserError(f"--topology needs libtpu, the compiler for TPUs: pip install {' '.join(wanted) or 'libtpu'}")
    os.environ.update(ALONE)
    compiler_arguments.set_arguments()
    jax.config.update("jax_platforms", "cpu")
    from jax.experimental import topologies  # imported lazily: nothing else needs it

    # Both cores of a v4 chip work as one device in JAX.
    options = {"chip_config_name": "megacore"} if target.chip.generation == "v4" else {}
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=target.name, **options).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={target.name}: libtpu refuses it: {_first_line(error)}") from error


def _gpu_devices(target: Slice) -> list[Any]:
    try:
        versions = {importlib.metadata.version(package) for package in PLUGIN}
    except importlib.metadata.PackageNotFoundError:
        versions = set()
    if versions != {jax.__version__}:
        wanted = " ".join(f"{package}=={jax.__version__}" for package in PLUGIN)
        raise UserError(
            f"--topology={target.name} needs JAX's compiler for GPUs: pip install --no-deps --target=.venv/gpu "
            f"{wanted}, then set PYTHONPATH=.venv/gpu"
        )
    jax.config.update("jax_platforms", "cpu")
    from jax.experimental import topologies  # imported lazily: nothing else needs it

    kind = target.chip.generation
    options = {"topology": f"1x1x{target.chips}", "target_config": GPU_TARGETS[kind]}  # of one host
    try:
        return topologies.get_topology_desc(kind, platform="cuda", **options).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={target.name}: {PLUGIN[-1]} refuses it: {_first_line(error)}") from error


class SliceCompiler:
    """Compiles an experiment's steps for a slice.

    Attributes:
      target: the slice.
      experiment: the network with its training.
    """

    def __init__(self, target: Slice, config: Config, grid: Grid):
        self.target = target
        self._devices = slice_devices(target)
        if config.dtype == "auto":
            config = dataclasses.replace(config, dtype="bfloat16")
        self.experiment = create_experiment(config, NUM_LABELS, grid.shape, num_train=max(1, config.batch_size))

    def train(self, rows: int) -> Any:
        """Compile the training step of `rows` studies on each chip."""
        mapped = devices.pmap_train_step(self.experiment.replica_step(), self._devices)
        return self._compile(mapped, self.experiment.abstract_state(), self.shares(rows))

    def evaluation(self, rows: int) -> Any:
        """Compile the evaluation step of `rows` studies on each chip."""
        experiment = self.experiment
        mapped = devices.pmap_eval_step(
            step.make_eval_step(experiment.config, experiment.model, devices.REPLICAS), self._devices
        )
        variables = jax.eval_shape(step.eval_variables, experiment.abstract_state())
        return self._compile(mapped, variables, self.shares(rows).volume)

    def shares(self, rows: int) -> Batch:
        """Return the shapes and dtypes of a global batch with `rows` studies on each chip, (chip, row, …)."""

        def field(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((self.target.chips, rows, *shape), dtype)

        volume = field(self.experiment.input_shape[:-1], jnp.int16)
        return Batch(volume, label=field((), jnp.int32), weight=field((), jnp.float32))

    def _compile(self, mapped: Any, *arguments: Any) -> Any:
        try:
            return mapped.lower(*arguments).compile()
        except jax.errors.JaxRuntimeError as error:
            remedy = ": use a smaller --batch_size, --grid or --width" if "memory" in str(error) else ""
            raise UserError(
                f"this network does not compile for --topology={self.target.name}: {_first_line(error)}{remedy}"
            ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
