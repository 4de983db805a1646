"""The user's own network: what is expected of it, and that every command uses it."""

import importlib
import json
import re
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from covidscan.config import Config, check_model
from covidscan.training import network
from tests.support import runs
from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.errors import UserError

README = runs.ROOT / "covidscan" / "models" / "README.md"
SHAPE = (8, 8, 8, 3)


def _example() -> str:
    """Return the network in the README."""
    (code,) = re.findall(r"```python\n(# mynet\.py.*?)```", README.read_text(), re.DOTALL)
    return code


def _create(name, dtype=jnp.float32, **settings):
    return network.create_network(Config(model=name, **settings), 2, SHAPE, dtype)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A function that writes the README's network with changes, as a module of that name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, *changes):
        code = _example()
        for old, new in changes:
            assert old in code
            code = code.replace(old, new)
        (tmp_path / f"{name}.py").write_text(code)
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return write


def test_a_network_is_created_in_the_dtype_and_with_the_flags_that_are_given(module):
    name = module("own_flags", ("    axis_name: str", "    width: int = 3\n    axis_name: str = ''"))
    made = _create(f"{name}:Net", jnp.bfloat16, width=5)
    assert (made.outputs, made.dtype, made.width, made.axis_name) == (2, jnp.bfloat16, 5, "replicas")  # type: ignore[attr-defined]
    assert _create(f"{name}:Net").width == 3  # type: ignore[attr-defined]


# What is wrong, and the words of the line that says so.
WRONG = {
    "own_logits": (("nn.Dense(self.outputs", "nn.Dense(5"), r"returned float32 \(batch, 5\) in place of"),
    "own_dtype": ((".astype(jnp.float32)", ".astype(jnp.bfloat16)"), "returned bfloat16"),
    "own_mean": (("x.mean((1, 2, 3))", "x.mean((0, 1, 2, 3))"), r"returned float32 \(2,\) in place of"),
    "own_train": (
        ("train=False):", "training=False):\n        train = training"),
        "unexpected keyword argument 'train'",
    ),
    "own_sync": (("axis_name=self.axis_name, ", ""), "pass axis_name on to every nn.BatchNorm"),
    "own_stream": (("x = nn.relu", "self.make_rng('noise')\n        x = nn.relu"), "InvalidRng"),
    "own_state": (
        ("x = nn.relu", "self.variable('cache', 'x', jnp.zeros, 3)\n        x = nn.relu"),
        "variables in cache",
    ),
    "own_half": (("(3, 3, 3), ", "(3, 3, 3), param_dtype=jnp.bfloat16, "), "leave param_dtype at float32"),
    "own_bug": (("x = nn.relu", "x = nn.rellu"), r"raised AttributeError \(line \d+ of own_bug.py\)"),
    "own_import": (("import flax", "import flaxx\nimport flax"), "importing own_import needs flaxx: install it"),
    "own_lesions": (
        ("x = nn.relu", "self.sow('lesions', 'logits', x)\n        x = nn.relu"),
        r"logits \(batch, slice, row, column\), is expected",
    ),
    "own_plain": (("class Net(nn.Module)", "class Net(dict)"), "a Net, not a flax.linen.Module"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_network_that_does_not_fit_is_refused_in_one_line(module, name):
    change, words = WRONG[name]
    with pytest.raises(UserError, match=words) as refused:
        _create(f"{module(name, change)}:Net")
    assert str(refused.value).startswith(f"--model={name}:Net: ")
    assert "\n" not in str(refused.value)


def test_a_network_that_is_not_there_is_refused_with_the_way_out(module):
    with pytest.raises(UserError, match="no module nowhere: put the folder that holds it on PYTHONPATH"):
        _create("nowhere.at.all:Net")
    with pytest.raises(UserError, match="module own_missing has no function or class Nett"):
        _create(f"{module('own_missing')}:Nett")
    for text in ("mynet", "mynet:", "my-net:Net", "mynet.py:Net:x"):
        with pytest.raises(UserError, match=r"package\.module:factory"):
            check_model(text)


def test_a_changed_file_is_noticed(module, caplog):
    config = Config(model=f"{module('own_changed')}:Net")
    run = {"config": config.to_json(), "network_sha256": network.source_sha256(config)}
    network.warn_if_changed(run, "runs/a")
    assert not caplog.messages
    module("own_changed", ("16", "17"))
    network.warn_if_changed(run, "runs/a")
    assert "its file has changed since runs/a was trained" in caplog.messages[0]


@pytest.mark.sampled
def test_every_command_uses_a_users_own_network(data_dir, tmp_path, monkeypatch):
    (tmp_path / "mynet.py").write_text(_example())
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    workdir, data, scan = f"--workdir={tmp_path / 'run'}", f"--data_dir={data_dir}", tmp_path / "scan.nii.gz"
    flags = [flag for flag in runs.SMALL if not flag.startswith("--width")]
    runs.run("train", *flags, "--epochs=1", "--model=mynet:Net", workdir, data, devices=2)
    runs.run("evaluate", workdir)
    generator.write_study(generator.make_phantom(901, "CT-2", matrix=128), scan)
    predicted = runs.run("predict", workdir, "--format=json", str(scan)).stdout
    refused = runs.run("predict", workdir, "--explain", f"--output_dir={tmp_path / 'out'}", str(scan), check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "exposes no layer to saliency maps" in refused.stderr
    runs.run("predict", workdir, "--embeddings", f"--output_dir={tmp_path / 'embedded'}", str(scan))
    with np.load(tmp_path / "embedded" / "embeddings.npz") as stored:
        assert stored["features"].shape == (1, 16)
    runs.run("export", workdir, f"--output={tmp_path / 'model'}")
    (tmp_path / "mynet.py").unlink()  # an exported model is complete
    again = runs.run("predict", f"--model={tmp_path / 'model'}", "--format=json", str(scan)).stdout
    one, other = (json.loads(text)["probability"] for text in (predicted, again))
    assert one == pytest.approx(other, abs=1e-5)
    missing = runs.run("evaluate", workdir, check=False)
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert "there is no module mynet" in missing.stderr
