"""Exported models of unknown origin: what they may call, what they may return, and what else is refused in one line."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export

from covidscan.trained_models import export, exported
from covidscan.trained_models.model_info import ModelInfo
from tfds_mosmed.errors import UserError

INFO = ModelInfo(
    task="binary",
    label_names=("negative", "positive"),
    threshold=0.4,
    temperatures=(1.0,),
    grid="16x16x16",
    windows=((-600.0, 1500.0),),
    trained_on="ct_phantom/tiny",
    described="Chosen.",
    typical=None,
)
VOLUMES = np.zeros((3, 16, 16, 16), np.int16)
FOREIGN = ("xla_ffi_python_cpu_callback", "anything")


def _forged(folder, function, weights=None, **changes):
    """Write an exported model around any function of (weights, volumes), with right hashes; returns its folder."""
    folder.mkdir()
    shape = jax.ShapeDtypeStruct((*jax_export.symbolic_shape("batch"), 16, 16, 16), np.int16)
    weights = {"bias": np.zeros(2, np.float32)} if weights is None else weights
    # What jax.export refuses to write unless it is told to, and would not refuse to read.
    disabled = [jax_export.DisabledSafetyCheck.custom_call(name) for name in FOREIGN]
    made = jax_export.export(jax.jit(function), disabled_checks=disabled)(jax.eval_shape(lambda: weights), shape)
    (folder / exported.COMPUTATION).write_bytes(made.serialize())
    np.savez(folder / exported.WEIGHTS, **weights)
    return _described(folder, **changes)


def _described(folder, **changes):
    """Write model.json of a folder with the hashes that its files have."""
    files = {path.name: export._hash(path) for path in folder.iterdir() if path.name != exported.DESCRIPTION}
    description = {"format": exported.FORMAT, "model": INFO.to_json(), "files": files}
    description |= {"package_versions": {"jax": jax.__version__}} | changes
    description["sha256"] = exported.content_sha256(description)
    (folder / exported.DESCRIPTION).write_text(json.dumps(description))
    return folder


def _constant(*probabilities):
    return lambda weights, volumes: np.float32(probabilities) + weights["bias"] + 0 * volumes[:, 0, 0, :1]


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("place", ["outside", "in a loop"])
def test_a_computation_that_calls_code_outside_of_itself_is_refused(name, place, tmp_path):
    def function(weights, volumes):
        bias = weights["bias"]
        call = jax.ffi.ffi_call(name, jax.ShapeDtypeStruct(bias.shape, bias.dtype))
        bias = call(bias) if place == "outside" else jax.lax.fori_loop(0, 2, lambda _, value: call(value), bias)
        return _constant(0.5, 0.5)({"bias": bias}, volumes)

    message = rf"model\.stablehlo calls code outside of itself \({name}\).*export again"
    with pytest.raises(UserError, match=message) as error:
        exported.load(_forged(tmp_path / "model", function))
    assert "\n" not in str(error.value)


def test_a_library_of_linear_algebra_is_code_outside_of_the_model_too(tmp_path):
    def function(weights, volumes):
        return _constant(0.5, 0.5)({"bias": jnp.linalg.cholesky(jnp.eye(2))[1] * 0 + weights["bias"]}, volumes)

    with pytest.raises(UserError, match="calls code outside of itself"):
        exported.load(_forged(tmp_path / "model", function))


@pytest.mark.parametrize(
    "written", ['"stablehlo.custom_call"(%0) <{call_target_name = "x"}>', 'custom_call @"a b"(%0)']
)
def test_another_form_of_a_custom_call_is_refused(written):
    class Computation:
        def mlir_module(self):
            return f"stablehlo.custom_call @shape_assertion(%1)\n{written}"

    with pytest.raises(UserError, match="another form"):
        exported._check_custom_calls(Path("model.stablehlo"), Computation())


def test_a_computation_of_a_later_jax_is_an_error_in_one_line():
    class Computation:
        def mlir_module(self):
            raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: Failed to deserialize StableHLO\nat …")

    with pytest.raises(
        UserError, match=rf"^model\.stablehlo was exported with a later JAX than .*{jax.__version__}"
    ) as error:
        exported._check_custom_calls(Path("model.stablehlo"), Computation())  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "probabilities", [(-0.2, 1.2), (2.0, 3.0), (np.nan, np.nan), (np.inf, 0.0), (0.9, 0.9), (0.0, 0.0), (0.5, np.nan)]
)
def test_results_that_are_no_probabilities_are_refused(probabilities, tmp_path):
    model = exported.load(_forged(tmp_path / "model", _constant(*probabilities)))
    with pytest.raises(UserError, match=r"/model: its results for a study are no probabilities") as error:
        model.probabilities(VOLUMES)
    assert "\n" not in str(error.value)


def test_probabilities_at_the_bounds_are_taken(tmp_path):
    model = exported.load(_forged(tmp_path / "model", _constant(-1e-7, 1 + 1e-7)))
    assert model.probabilities(VOLUMES).shape == (3, 2)


@pytest.mark.parametrize(
    ("function", "weights"),
    [
        (lambda weights, volumes: volumes[:, 0, 0, :3].astype(np.float32), None),
        (lambda weights, volumes: volumes[:, 0, :2].astype(np.float32), None),
        (lambda weights, volumes: volumes[:, 0, 0, :2] + weights["bias"].sum(), {"bias": np.zeros(3, np.float32)}),
    ],
    ids=["three labels", "a matrix a study", "other weights"],
)
def test_a_computation_that_does_not_fit_its_description_is_refused(function, weights, tmp_path):
    folder = _forged(tmp_path / "model", function, weights)
    if weights:
        np.savez(folder / exported.WEIGHTS, bias=np.zeros(2, np.float32))
        _described(folder)
    with pytest.raises(UserError, match=r"model\.stablehlo does not fit model\.json \(.*\): export again") as error:
        exported.load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes", [{"files": {}}, {"files": {"weights.npz": 3}}, {"files": None}, {"model": []}, {"package_versions": 1}]
)
def test_a_description_without_what_it_must_hold_is_refused(changes, tmp_path):
    with pytest.raises(UserError, match="is damaged") as error:
        exported.load(_forged(tmp_path / "model", _constant(0.5, 0.5), **changes))
    assert str(tmp_path / "model") in str(error.value)


def test_content_that_is_no_computation_is_refused(tmp_path):
    folder = _forged(tmp_path / "model", _constant(0.5, 0.5))
    (folder / exported.COMPUTATION).write_bytes(b"not a computation")
    with pytest.raises(UserError, match=r"model\.stablehlo was written with JAX .* cannot read it \(.+\)") as error:
        exported.load(_described(folder))
    assert "\n" not in str(error.value)
