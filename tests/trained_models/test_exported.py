"""Exported models: they predict as their runs do with only JAX and NumPy, and describe themselves."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import nibabel as nib
import numpy as np
import pytest

import covidscan
from covidscan.config import Config
from covidscan.metrics.results import OperatingPoint
from covidscan.prediction.source import ModelSource
from covidscan.trained_models import ensemble, export, exported, predict_volume
from covidscan.trained_models.model_info import ModelInfo
from covidscan.trained_models.restore import RestoredModel
from covidscan.training import step as steps
from covidscan.training.experiment import create_experiment
from tests.support import runs
from tests.support.chest import chest, write_series
from tfds_mosmed.errors import UserError

# What JAX cannot do without, and what it reads exported models with.
BARE = ("jax", "jaxlib", "numpy", "numpy.libs", "scipy", "scipy.libs", "ml_dtypes", "opt_einsum", "flatbuffers")


@pytest.fixture(scope="module")
def run_bare(tmp_path_factory):
    """Run a script where JAX and numpy, and packages of this project that are named, are all that is installed."""
    installed = Path(jax.__file__).parents[1]
    folder = tmp_path_factory.mktemp("bare")
    for name in BARE:
        if (installed / name).exists():
            (folder / name).symlink_to(installed / name)

    def run(script, *arguments, ours=(), theirs=()):
        for name in ours:
            (folder / name).symlink_to(runs.ROOT / name)
        more = tmp_path_factory.mktemp("more")
        for name in theirs:
            for path in installed.glob(f"{name}*"):  # pydicom reads its version from the folder beside it
                (more / path.name).symlink_to(path)
        done = subprocess.run(
            [sys.executable, "-S", str(script), *map(str, arguments)],  # -S: without the installed packages
            cwd=folder,
            env={**runs.environment(), "PYTHONPATH": f"{folder}:{more}"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def _volumes(shape, batch, seed=0):
    """Chests at random: air, soft tissue, and everything that the records may hold."""
    generator = np.random.default_rng(seed)
    volumes = generator.choice([-1024, -850, -600, 40, 1500], (batch, *shape)) + generator.integers(-60, 60)
    return np.clip(volumes, -1024, 1500).astype(np.int16)


def _ensemble(task="binary", members=1, **changes):
    """Networks that were never trained, on a grid of 16 x 16 x 16."""
    names = {"binary": ("negative", "positive"), "severity": ("CT-0", "CT-1", "CT-2", "CT-3+4")}.get(task, tuple("abc"))
    threshold = None if task == "classes" else 0.4
    networks = []
    for seed in range(members):
        config = Config(**{"task": task, "width": 4, "windows": ((-600.0, 1500.0),), "seed": seed, **changes})
        experiment = create_experiment(config, len(names), (16, 16, 16), num_train=8)
        variables = jax.tree.map(np.asarray, steps.eval_variables(jax.jit(experiment.create_state)()))
        # Networks start near one half for every study.
        variables["params"] = jax.tree.map(lambda leaf: leaf * 3 if leaf.ndim > 1 else leaf, variables["params"])
        data = {"dataset": "ct_phantom/tiny", "fingerprint": "f", "split_hash": "s"}
        run = {"data": data, "code_version": "0", "package_versions": {}}
        networks.append(RestoredModel(Path("run"), run, experiment, variables, step=7))
    choices = [OperatingPoint("youden", "Chosen.", threshold, 0.5 + place, 9, 7) for place in range(members)]
    info = ModelInfo(
        task=task,
        label_names=names,
        threshold=threshold,
        temperatures=tuple(one.temperature for one in choices),
        grid="16x16x16",
        windows=((-600.0, 1500.0),),
        trained_on="ct_phantom/tiny",
        described="Chosen.",
        typical=None,
    )
    return ensemble.Ensemble(networks, choices, info)


@pytest.fixture(scope="module")
def model(trained, tmp_path_factory):
    """The run's networks, exported as users do it."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    runs.run("export", f"--workdir={trained}", f"--output={folder}")
    return folder


@pytest.fixture(scope="module")
def described(model):
    return json.loads((model / "model.json").read_text())


@pytest.fixture(scope="module")
def original(trained):
    """The run's own ensemble and its probabilities of volumes."""
    loaded = ensemble.load([trained])
    return loaded, jax.jit(loaded.probabilities)


# What nibabel needs besides NumPy.
NIBABEL = ("nibabel", "packaging", "importlib_resources", "typing_extensions")
PYDICOM = (*NIBABEL, "pydicom")


@pytest.mark.sampled
@pytest.mark.parametrize(("kind", "packages"), [("oblique", NIBABEL), ("dicom", PYDICOM)])
def test_the_example_prepares_a_scan_as_the_package_does(kind, packages, run_bare, tmp_path):
    networks, model = _ensemble(), tmp_path / "model"
    export.write(networks, model)
    if kind == "dicom":
        study = write_series(tmp_path / "series")
    else:  # axes in another order and direction, turned by a few degrees
        turned = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.03, -0.02, 0.04), [3, -5, 7])
        voxels, affine = chest().transpose(0, 2, 1)[:, ::-1], np.diag([-4.0, -4.0, 8.0, 1.0])
        affine = affine[:, [2, 0, 1, 3]] @ [[1, 0, 0, 0], [0, -1, 0, voxels.shape[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1]]
        study = tmp_path / "study.nii.gz"
        nib.save(nib.Nifti1Image(voxels, turned @ affine), study)
    printed = run_bare(model / "predict_volume.py", study, theirs=packages)
    expected = covidscan.load(model)(study).probabilities.values()
    np.testing.assert_allclose([float(p) for p in printed.split()], list(expected), atol=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_example_needs_only_jax_and_numpy_and_predicts_as_the_run_does(run_bare, model, original, tmp_path, batch):
    loaded, probabilities = original
    volumes = _volumes(loaded.info.volume_shape, batch, seed=batch)
    np.save(tmp_path / "volumes.npy", volumes)
    printed = run_bare(model / "predict_volume.py", tmp_path / "volumes.npy")
    got = np.array([line.split() for line in printed.splitlines()], float)
    np.testing.assert_allclose(got, probabilities(volumes), rtol=1e-5, atol=1e-6)
    if batch > 1:
        assert np.ptp(got[:, 1]) > 1e-4  # volumes, and not a constant, were predicted


def test_the_loader_needs_no_further_package_and_predicts_as_the_run_does(run_bare, model, original, tmp_path):
    loaded, probabilities = original
    script = tmp_path / "script.py"
    script.write_text(
        "import importlib.util, sys, numpy as np\n"
        "assert not any(map(importlib.util.find_spec, ('flax', 'nibabel', 'grain', 'tensorflow_datasets', 'etils')))\n"
        "from covidscan.trained_models import exported\n"
        "model = exported.load(sys.argv[1])\n"
        "assert model.info.threshold is not None\n"
        "np.save(sys.argv[3], model.probabilities(np.load(sys.argv[2])))\n"
    )
    volumes = _volumes(loaded.info.volume_shape, 3)
    np.save(tmp_path / "volumes.npy", volumes)
    run_bare(script, model, tmp_path / "volumes.npy", tmp_path / "got.npy", ours=("covidscan", "tfds_mosmed"))
    got = np.load(tmp_path / "got.npy")
    assert (got.shape, got.dtype) == ((3, 2), np.float32)
    np.testing.assert_allclose(got, probabilities(volumes), rtol=1e-5, atol=1e-6)


def test_model_json_has_the_operating_point_of_the_run_and_the_preparation(model, described, trained, original):
    (chosen,) = json.loads((trained / "choices.json").read_text()).values()
    del chosen["sha256"], chosen["parameters_crc32"]
    assert described["model"]["threshold"] == chosen["threshold"]
    assert described["model"]["temperatures"] == [chosen["temperature"]]
    assert described["networks"][0]["operating_point"] == chosen
    assert exported.load(model).info == original[0].info
    assert described["input"]["shape"] == ["batch", 16, 32, 32]
    assert described["preparation"]["grid"] == {"slices": 16, "rows": 32, "columns": 32}
    assert described["preparation"]["clip_hu"] == [-1024, 1500]
    assert described["computation"]["platforms"] == ["cpu", "cuda", "tpu"]
    assert described["licences"]["code"] == "Apache-2.0"
    assert described["files"].keys() == {path.name for path in model.iterdir()} - {"model.json"}


def test_only_the_model_card_of_this_checkpoint_is_exported(model, trained, tmp_path):
    assert not (model / "model_card.md").exists()
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    evaluation = workdir / "evaluations" / "ct_phantom_tiny-test-best"
    evaluation.mkdir(parents=True)
    (evaluation / "model_card.md").write_text("# Model card\n")
    (stored,) = (runs.ROOT / "tests/support/stored_run/run/evaluations").glob("*/metrics.json")
    metrics = json.loads(stored.read_text())
    (best,) = json.loads((trained / "choices.json").read_text())
    for step, found in ((int(best), "# Model card\n"), (int(best) + 1, None)):
        metrics["operating_point"]["step"] = step
        (evaluation / "metrics.json").write_text(json.dumps(metrics))
        evaluated = export._evaluated(str(workdir), "best", ensemble.load([workdir]).members)
        assert (evaluated and evaluated.model_card) == found


def test_an_exported_model_contains_no_local_path(model, trained):
    for path in model.iterdir():
        content = path.read_bytes()
        for private in (str(trained), str(runs.ROOT), sys.prefix, ".py:", "lung_resnet.py"):
            assert private.encode() not in content, path.name


def test_one_flipped_bit_raises_one_line_that_names_the_file(model, tmp_path):
    for name in [path.name for path in model.iterdir()]:
        damaged = tmp_path / name
        shutil.copytree(model, damaged)
        content = bytearray((damaged / name).read_bytes())
        content[len(content) // 2] ^= 1
        (damaged / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{re.escape(name)}/{re.escape(name)} is damaged") as error:
            exported.load(damaged)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", [{"more": 1}, {"windows": None}, {"label_names": 3}])
def test_a_description_that_does_not_fit_names_the_file(change):
    with pytest.raises(UserError, match=r"^folder/model\.json: .*: export again$"):
        exported._read_info(Path("folder/model.json"), _ensemble().info.to_json() | change)


def test_reference_ranges_that_do_not_fit_name_the_file(monkeypatch):
    info = dataclasses.replace(_ensemble().info, typical={"ranges": 1})
    model = exported.ExportedModel(folder=Path("folder"), info=info, sha256="", weights={}, call=None)
    monkeypatch.setattr(exported, "load", lambda *_: model)
    with pytest.raises(UserError, match=r"^folder/model\.json: .*: export again$"):
        ModelSource((), "folder").load()


def test_the_expected_hash_is_that_of_the_export_and_of_nothing_else(model, described, tmp_path):
    sha256 = described["sha256"]
    assert exported.load(model, f" {sha256.upper()}").sha256 == sha256
    for other in ("", sha256[:-1], sha256[1:] + sha256[0]):
        with pytest.raises(UserError, match=f"{model} has SHA-256 {sha256}, not the expected '{other}'"):
            exported.load(model, other)
    # One that was changed, with all hashes made to fit.
    changed = tmp_path / "model"
    shutil.copytree(model, changed)
    weights = dict(np.load(changed / "weights.npz"))
    np.savez(changed / "weights.npz", **{name: -values for name, values in weights.items()})
    content = described | {"files": described["files"] | {"weights.npz": export._hash(changed / "weights.npz")}}
    content["sha256"] = exported.content_sha256(content)
    (changed / "model.json").write_text(json.dumps(content))
    exported.load(changed)
    with pytest.raises(UserError, match="not the expected"):
        exported.load(changed, sha256)


def test_the_command_checks_the_expected_hash_before_it_reads_a_study(model, described, trained, tmp_path):
    for flags, message in (
        ([f"--model={model}", "--expect_sha256=0"], f"has SHA-256 {described['sha256']}, not the expected '0'"),
        ([f"--model={model}", "--expect_sha256="], "not the expected ''"),
        ([f"--workdir={trained}", f"--expect_sha256={described['sha256']}"], "--expect_sha256 applies to --model"),
    ):
        done = runs.run("predict", *flags, str(tmp_path / "no_study.nii"), check=False)
        assert done.returncode == 1
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert message in line


def test_a_folder_without_an_exported_model_raises(model, trained, tmp_path):
    incomplete, foreign, other = (tmp_path / name for name in ("incomplete", "foreign", "other"))
    shutil.copytree(model, incomplete)
    (incomplete / "weights.npz").unlink()
    for folder, content in ((foreign, {"name": "thing"}), (other, {"format": "covidscan model 0"})):
        folder.mkdir()
        (folder / "model.json").write_text(json.dumps(content))
    for folder, message in (
        (tmp_path / "nowhere", "holds no model.json"),
        (trained, "holds no model.json"),
        (incomplete, "weights.npz is missing"),
        (foreign, "is not that of an exported model"),
        (other, "was written by another version"),
    ):
        with pytest.raises(UserError, match=message) as error:
            exported.load(folder)
        assert str(folder) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_platform_that_it_was_not_exported_for_raises(model, monkeypatch):
    monkeypatch.setattr(exported.export, "default_export_platform", lambda: "rocm")
    with pytest.raises(UserError, match=r"runs on cpu, cuda, tpu, not on rocm"):
        exported.load(model)


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "severity", "members": 3},
        {"task": "classes", "windows": ((-600.0, 1500.0), (40.0, 400.0))},
    ],
    ids=["severity by an ensemble", "classes, two windows"],
)
def test_every_network_task_and_ensemble_is_exported(changes, tmp_path):
    loaded = _ensemble(model="covidscan_cnn", **changes)
    export.write(loaded, tmp_path / "model")
    model = exported.load(tmp_path / "model")
    volumes = _volumes((16, 16, 16), 5)
    want = jax.jit(loaded.probabilities)(volumes)
    np.testing.assert_allclose(model.probabilities(volumes), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.sum(want, axis=1), 1, atol=1e-5)
    assert want.shape == (5, len(model.info.label_names))


def test_it_computes_in_full_float32_where_the_dtype_was_not_stored():
    usual, older = (export.to_stablehlo(_ensemble(dtype=dtype)) for dtype in ("float32", "auto"))
    assert older.computation.serialize() == usual.computation.serialize()
    module = older.computation.mlir_module()
    assert "bf16" not in module
    products = [line for line in module.splitlines() if re.search(r"stablehlo\.(?:dot_general|convolution)", line)]
    assert len(products) > 10
    assert all("HIGHEST" in product for product in products)
    assert {leaf.dtype for leaf in older.weights.values()} == {np.dtype(np.float32)}


def test_it_computes_in_the_dtype_in_which_its_threshold_was_chosen(tmp_path):
    coarse, fine = (_ensemble(dtype=dtype, model="covidscan_cnn") for dtype in ("bfloat16", "float32"))
    assert export.write(coarse, tmp_path / "model")["computation"]["dtype"] == "bfloat16"
    volumes = _volumes((16, 16, 16), 4)
    got = exported.load(tmp_path / "model").probabilities(volumes)
    own, other = (np.asarray(jax.jit(one.probabilities)(volumes)) for one in (coarse, fine))
    assert abs(got - own).max() < abs(got - other).max() / 3


def test_a_cross_validation_is_exported_as_the_networks_of_its_folds(trained, trained_with_seed_1, tmp_path):
    workdir = tmp_path / "folds"
    for fold, run in enumerate((trained, trained_with_seed_1)):
        shutil.copytree(run, workdir / f"fold_{fold}")
    (workdir / "cross_validation.json").write_text(json.dumps({"config": {"num_folds": 2}}))
    export.export([str(workdir)], str(tmp_path / "model"))
    model = exported.load(tmp_path / "model")
    assert len(model.info.temperatures) == 2
    assert {name.partition("/")[0] for name in model.weights} == {"0", "1"}


def test_a_folder_that_holds_something_else_is_not_changed(model, trained, tmp_path):
    before = (model / "model.json").stat().st_mtime_ns
    export.export([str(trained)], str(model))  # the same model: nothing to do
    assert (model / "model.json").stat().st_mtime_ns == before
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        export.export([str(trained)], str(occupied))
    with pytest.raises(UserError, match="holds another model"):
        export.write(_ensemble(model="covidscan_cnn"), model)
    with pytest.raises(UserError, match="local folder"):
        export.export([str(trained)], "gs://bucket/model")
    assert [path.name for path in occupied.iterdir()] == ["notes.txt"]
    assert [path.name for path in model.parent.iterdir()] == ["model"]


def test_exporting_again_mends_a_damaged_model(tmp_path):
    target = tmp_path / "model"
    written = export.write(_ensemble(model="covidscan_cnn"), target)
    made = shutil.copytree(target, tmp_path / "made")
    whole = {path.name: path.read_bytes() for path in target.iterdir()}
    (target / "weights.npz").write_bytes(whole["weights.npz"][:-100])
    (target / "preparation.zip").write_bytes(b"import os")
    (target / "predict_volume.py").unlink()
    with pytest.raises(UserError, match=r"weights\.npz is damaged"):
        exported.load(target)
    export._mend(target, shutil.copytree(made, tmp_path / "again"))
    assert {path.name: path.read_bytes() for path in target.iterdir()} == whole
    (target / "preparation.zip").write_bytes(b"import os")
    with pytest.raises(UserError, match=r"preparation\.zip is damaged"):
        exported.load(target, written["sha256"])
    (target / "model.json").write_bytes(whole["model.json"][:-9])
    with pytest.raises(UserError, match=r"^--output=.*model: its model\.json cannot be read.*remove it first$"):
        export._mend(target, made)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        export.write(_ensemble(model="covidscan_cnn"), tmp_path / "models" / "model")
    assert not list((tmp_path / "models").iterdir())


def test_the_command_is_there_without_jax_and_numpy():
    code = "import sys, covidscan.export; assert not {'jax', 'numpy', 'etils'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=runs.ROOT, check=True)


def test_the_example_names_volumes_that_do_not_fit_and_goes_on(tmp_path, capsys):
    model = runs.ROOT / "tests" / "support" / "stored_run" / "exported"
    volumes = np.zeros((1, 16, 32, 32), np.int16)
    for name, volume in (("float", volumes.astype(np.float32)), ("single", volumes[0]), ("good", volumes)):
        np.save(tmp_path / f"{name}.npy", volume)
    (tmp_path / "text.npy").write_text("no array")
    given = [str(tmp_path / f"{name}.npy") for name in ("float", "single", "text", "good")]
    assert predict_volume.main(given, model) == 3
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1
    assert [line.split(":")[0] for line in printed.err.splitlines()] == given[:3]
