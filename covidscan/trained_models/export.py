"""Export of trained networks to a folder that needs JAX and flatbuffers alone."""

import contextlib
import hashlib
import importlib.resources
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import export as jax_export

from covidscan.metrics import metrics_json
from covidscan.runs.workdir import OUT_OF_FOLD, evaluation_folder, is_cross_validation, run_id
from covidscan.trained_models import ensemble, exported
from covidscan.trained_models import hub_card as hub
from covidscan.trained_models.ensemble import Ensemble
from covidscan.trained_models.hub_card import Evaluated
from covidscan.trained_models.model_json import describe, exported_dtype
from covidscan.trained_models.restore import RestoredModel
from tfds_mosmed import storage
from tfds_mosmed.errors import UserError
from tfds_mosmed.progress import announce

PLATFORMS = ("cpu", "cuda", "tpu")
MODEL_CARD, EXAMPLE = "model_card.md", "predict_volume.py"
PREPARATION = "preparation.zip"
PREPARED_BY = ("scans", "scans/dicom", "preprocessing")  # rooms of tfds_mosmed


class Computation(NamedTuple):
    """Computation of an ensemble, and its weights.

    Attributes:
      computation: (weights, int16 volumes (batch, slice, row, column)) -> probabilities (batch, label), float32.
      weights: variables of all networks, by MEMBER/COLLECTION/LAYER/…, float32.
    """

    computation: jax_export.Exported
    weights: dict[str, np.ndarray]


def export(
    workdirs: Sequence[str], output: str, checkpoint: str = "best", *, hub_card: bool = False, tta: str = ""
) -> None:
    """Export a network, or an ensemble of several.

    Args:
      workdirs: of runs and cross-validations; a cross-validation contributes the networks of its folds.
      output: folder, created atomically; one that holds the same model is kept, and mended where it is damaged.
      checkpoint: of each run: "best" by validation AUROC, "latest" or a step.
      hub_card: whether to write what the Hugging Face Hub shows, see `hub_card`.
      tta: set of views over which logits are averaged, see `models.views`; "": none.

    Raises:
      UserError: there is no such run, the folder holds something else, or the network may not be shared.
      OSError: the folder cannot be written.
    """
    if storage.is_remote(output):
        raise UserError(f"--output={output}: give a local folder, and copy it there afterwards")
    target = Path(output).absolute()
    _check_free(target)
    networks = ensemble.load(workdirs, checkpoint, tta)
    evaluated = _evaluated(workdirs[0], checkpoint, networks.members, tta) if len(workdirs) == 1 else None
    if hub_card:
        hub.check(networks.members)
        if evaluated is None:
            raise UserError(f"--hub_card: {_not_evaluated(workdirs, checkpoint, tta)}")
    announce("Exporting for CPU, CUDA and TPU, which takes seconds for each network")
    description = write(networks, target, evaluated, hub_card=hub_card)
    size = sum(file["bytes"] for file in description["files"].values())
    count = "1 network" if len(networks.members) == 1 else f"{len(networks.members)} networks"
    sha256 = description["sha256"]
    print(f"{output}: {count}, {size / 2**20:.1f} MiB, SHA-256\n  {sha256}")
    print(f"To predict:\n  python -m covidscan.predict --model={output} --expect_sha256={sha256} STUDY")
    print(f"Without CovidScan:\n  python {Path(output) / EXAMPLE} STUDY")
    if hub_card:
        print(f"To share, after the choice of a licence in {Path(output) / hub.CARD}:\n  hf upload OWNER/NAME {output}")


def write(
    networks: Ensemble, target: Path, evaluated: Evaluated | None = None, *, hub_card: bool = False
) -> dict[str, Any]:
    """Write an exported model.

    Args:
      networks: the ensemble.
      target: the folder.
      evaluated: the evaluation of its checkpoint, whose model card is written too.
      hub_card: whether to write what the Hugging Face Hub shows, which needs `evaluated`.

    Returns:
      The content of its model.json.

    Raises:
      UserError: the folder holds something else.
      OSError: the folder cannot be written.
    """
    computed = to_stablehlo(networks)
    with _atomic(target) as folder:
        (folder / exported.COMPUTATION).write_bytes(computed.computation.serialize())
        with (folder / exported.WEIGHTS).open("wb") as file:
            np.savez(file, **computed.weights)  # type: ignore[arg-type]
        (folder / EXAMPLE).write_bytes(
            importlib.resources.files("covidscan.trained_models").joinpath(EXAMPLE).read_bytes()
        )
        _write_preparation(folder / PREPARATION)
        if evaluated is not None:
            (folder / MODEL_CARD).write_text(evaluated.model_card)
        if hub_card and evaluated is not None:
            hub.write_tensors(folder, computed.weights)
        files = {path.name: _hash(path) for path in sorted(folder.iterdir())}
        description = {"format": exported.FORMAT, **describe(networks, computed.computation), "files": files}
        description["sha256"] = exported.content_sha256(description)
        text = json.dumps(description, indent=2, allow_nan=False) + "\n"
        (folder / exported.DESCRIPTION).write_text(text)
        if hub_card and evaluated is not None:  # without a hash in the description: it is there to be edited
            (folder / hub.CARD).write_text(hub.card(networks.members, evaluated))
    return description


def to_stablehlo(networks: Ensemble) -> Computation:
    """Lower `Ensemble.probabilities` for all platforms and any batch size, in the networks' own dtype.

    Thresholds were chosen on what it computes. Networks of older versions, whose dtype was not stored, are in float32.

    The weights are an argument. XLA would fold constants again for each batch size: with the 77 million parameters of
    the original CovidScan's network the first prediction took 15 s instead of 5, another batch size 27 s instead of
    1.6, and 2.6 GB instead of 0.9 (2 CPU cores, JAX 0.10.2). The input is int16, which has no gradient, so the
    computation is exported without its derivative.
    """
    members = [_in_stored_dtype(member) for member in networks.members]
    weights: Any = traverse_util.flatten_dict({str(index): one.variables for index, one in enumerate(members)}, sep="/")

    def probabilities(weights: dict[str, jax.Array], volumes: jax.Array) -> jax.Array:
        variables = traverse_util.unflatten_dict(weights, sep="/")
        own = [one._replace(variables=variables[str(index)]) for index, one in enumerate(members)]
        return networks._replace(members=own).probabilities(volumes)

    (batch,) = jax_export.symbolic_shape("batch")
    volumes = jax.ShapeDtypeStruct((batch, *networks.info.volume_shape), jnp.int16)
    shapes = jax.eval_shape(lambda: weights)
    # GPUs and TPUs would multiply in lower precision by default.
    with jax.default_matmul_precision("highest"), _without_paths():
        computation = jax_export.export(jax.jit(probabilities), platforms=PLATFORMS)(shapes, volumes)
    return Computation(computation, weights)


def _write_preparation(path: Path) -> None:
    """Write the modules that read and prepare a scan, as they are, for Python to import from the archive.

    They need NumPy, SciPy and nibabel, for DICOM pydicom too. Equal modules give equal bytes.
    """
    package = importlib.resources.files("tfds_mosmed")
    names = ["__init__.py", "errors.py"]
    for room in PREPARED_BY:
        names += [f"{room}/{file.name}" for file in package.joinpath(room).iterdir() if file.name.endswith(".py")]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(names):
            archive.writestr(
                zipfile.ZipInfo(f"tfds_mosmed/{name}"), package.joinpath(name).read_bytes(), zipfile.ZIP_DEFLATED
            )


def _in_stored_dtype(member: RestoredModel) -> RestoredModel:
    return member._replace(experiment=member.experiment.in_dtype(exported_dtype(member)))


@contextlib.contextmanager
def _without_paths() -> Iterator[None]:
    """Omit source paths from lowered computations, so that equal networks give equal bytes on every machine."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _evaluated(workdir: str, checkpoint: str, members: Sequence[RestoredModel], tta: str = "") -> Evaluated | None:
    """Read the evaluation of this checkpoint; None where it was not evaluated."""
    part = OUT_OF_FOLD if is_cross_validation(workdir) else "test"
    folder = evaluation_folder(workdir, members[0].run["data"]["dataset"], part, checkpoint, tta=tta)
    evaluated = metrics_json.read(folder, run_id(workdir))
    if evaluated is None or evaluated[0].operating_point.step != members[0].step:
        return None
    return Evaluated(*evaluated, metrics_json.read_file(folder, MODEL_CARD).decode())


def _not_evaluated(workdirs: Sequence[str], checkpoint: str, tta: str) -> str:
    if len(workdirs) > 1:
        return f"it describes the evaluation of one run, and --workdir names {len(workdirs)}: give one"
    flags = f"--workdir={workdirs[0]}" + ("" if checkpoint == "best" else f" --checkpoint={checkpoint}")
    flags += f" --tta={tta}" if tta else ""
    return f"{workdirs[0]} was not evaluated at this checkpoint: first python -m covidscan.evaluate {flags}"


def _check_free(target: Path) -> None:
    """Raise UserError where a folder holds anything but an exported model, before anything is computed."""
    if target.exists() and not (target / exported.DESCRIPTION).exists() and any(target.iterdir()):
        raise UserError(f"--output={target} exists and holds something else: choose another folder")


@contextlib.contextmanager
def _atomic(target: Path) -> Iterator[Path]:
    """Yield a new folder that is renamed to the target at the end, when all of it is on the disk."""
    storage.make_folder(target.parent)
    with storage.naming(target), storage.partial_folder(target.parent) as folder:
        yield folder
        if (target / exported.DESCRIPTION).exists():
            _mend(target, folder)
            return
        storage.sync_tree(folder)
        folder.rename(target)
        storage.sync(target.parent)


def _mend(target: Path, made: Path) -> None:
    """Put back what is damaged or missing of an exported model, from the same one; raise UserError at another one."""
    try:
        there = exported.read_description(target)
    except UserError as error:
        raise UserError(
            f"--output={target}: its {exported.DESCRIPTION} cannot be read, so it may be of another model: choose "
            "another folder, or remove it first"
        ) from error
    here = exported.read_description(made)
    if there["sha256"] != here["sha256"]:
        raise UserError(f"--output={target} holds another model: choose another folder, or remove it first")
    for name, file in here["files"].items():
        if not (target / name).is_file() or _hash(target / name) != file:
            storage.sync(made / name)
            (made / name).replace(target / name)
    storage.sync(target)


def _hash(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}
