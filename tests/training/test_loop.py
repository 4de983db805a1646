"""Training as a user meets it: what is written, resuming after a kill, any number of devices, mistakes."""

import dataclasses
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import plugin_hparams_pb2

from covidscan.config import Config, DataPaths
from covidscan.data.dataset import load_dataset
from covidscan.data.labels import Labels
from covidscan.data.sampling import epoch_order
from covidscan.distributed.preemption import StopRequests
from covidscan.runs import durable_checkpoints
from covidscan.training.loop import _print_counts, train_and_evaluate, training_records
from tests.support import runs, share
from tfds_mosmed.errors import UserError


def test_a_run_writes_what_the_design_promises(trained):
    config = json.loads((trained / "config.json").read_text())
    assert config["config"]["batch_size"] == 4
    assert config["data"]["dataset"] == "ct_phantom/tiny"
    assert len(config["data"]["fingerprint"]) == 64
    assert config["package_versions"].keys() >= {"jax", "flax", "optax", "orbax-checkpoint"}
    assert sum(sum(labels.values()) for labels in config["data"]["studies"].values()) == 24
    train = runs.log_lines(trained, "train")
    assert [line["step"] for line in train] == list(range(1, 15))
    assert train[0].keys() >= {"step", "split", "loss", "auroc", "volumes_per_second", "gradient_norm"}
    rates = [line["learning_rate"] for line in train]
    assert rates[0] == 0 < rates[-1] < max(rates) == 0.002  # warm-up, then a cosine
    assert [line["step"] for line in runs.log_lines(trained, "validation")] == [3, 6, 9, 12, 14]
    assert (trained / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list(trained.glob("events.out.tfevents*"))


def test_a_study_without_disease_has_a_known_mask_which_is_empty(data_dir):
    config = Config(dataset="ct_phantom/tiny", task="severity")
    dataset = load_dataset(config, DataPaths(str(data_dir)))
    rows, categories = dataset.parts["train"], np.asarray(dataset.categories)
    # Of all masks one of a diseased study is left.
    kept = next(row for row in rows if categories[row] == "CT-1")
    records = [
        {"volume": np.zeros(1), "lesion_mask": np.ones((1, 1, 1)), "has_lesion_mask": row == kept} for row in range(24)
    ]
    index = dataclasses.replace(dataset.index, has_lesion_mask=np.arange(24) == kept)
    training = training_records(config, dataset._replace(records=records, index=index), has_lesion_map=True)
    known = np.flatnonzero(training.read().has_lesion_mask)
    assert set(rows[known]) == {kept, *rows[categories[rows] == "CT-0"]}
    drawn = np.concatenate([training.order.rows(step) for step in range(len(rows) * 10 // config.batch_size)])
    own = drawn[training.labels[drawn] == training.labels[rows == kept]]
    assert 0.5 <= np.mean(rows[own] == kept) < 0.75  # half of its label's examples, rounded up
    none = dataclasses.replace(index, has_lesion_mask=categories == "CT-0")
    assert training_records(config, dataset._replace(index=none), has_lesion_map=True).fields == ["volume"]  # all empty
    # A network without a lesion map sees the studies as often as if there were no masks.
    of_peer = training_records(config, dataset, has_lesion_map=False)
    assert of_peer.fields == ["volume"]
    assert (
        of_peer.order.rows(0).tolist()
        == training_records(config, dataset._replace(index=none), has_lesion_map=True).order.rows(0).tolist()
    )


def test_an_empty_mask_of_a_diseased_study_is_an_unknown_one(data_dir):
    """Lesions that are smaller than the grid's voxels are not in it; the study would teach that there are none."""
    config = Config(dataset="ct_phantom/tiny", task="binary")
    dataset = load_dataset(config, DataPaths(str(data_dir)))
    rows, categories = dataset.parts["train"], np.asarray(dataset.categories)
    lost = next(row for row in rows if categories[row] == "CT-1")
    records = [dict(dataset.records[row]) for row in range(24)]
    records[lost]["lesion_mask"] = np.zeros_like(records[lost]["lesion_mask"])
    training = training_records(config, dataset._replace(records=records), has_lesion_map=True)
    assert set(rows[~training.read().has_lesion_mask]) == {lost}


def test_shuffled_labels_have_another_order_than_any_epoch(data_dir):
    config = Config(dataset="ct_phantom/tiny", shuffle_labels=True, class_balance="none")
    dataset = load_dataset(config, DataPaths(str(data_dir)))
    values = np.arange(len(dataset.labels.values))
    labels = dataset.labels._replace(values=values)
    rows = dataset.parts["train"]
    training = training_records(config, dataset._replace(labels=labels), has_lesion_map=True)
    assert sorted(training.labels) == sorted(values[rows])
    for epoch in range(4):
        order = epoch_order(config.seed, epoch, np.zeros(len(rows)), balance=False)
        assert not np.array_equal(training.labels, values[rows][order])


def test_a_study_of_no_label_has_a_known_mask_which_is_empty(data_dir):
    dataset = load_dataset(Config(dataset="ct_phantom/tiny", task="severity"), DataPaths(str(data_dir)))
    rows, grades = dataset.parts["train"], dataset.labels.values
    config = Config(dataset="ct_phantom/tiny", task="multilabel")
    labels = Labels(np.stack([grades == 2, grades == 3], axis=1).astype(np.int32), ("moderate", "severe"))
    training = training_records(config, dataset._replace(labels=labels), has_lesion_map=True)
    assert training.known_empty.tolist() == (grades[rows] < 2).tolist()


@pytest.mark.sampled
def test_a_run_killed_at_any_step_ends_with_the_same_bits(trained, data_dir, tmp_path):
    workdir = tmp_path / "killed"
    flags = [*runs.SMALL, "--checkpoint_every=2", f"--workdir={workdir}", f"--data_dir={data_dir}"]
    step_of_kill = share.generator("step of the kill").randrange(4, 13)
    print(f"killed once step {step_of_kill} was logged")
    process = subprocess.Popen(
        [sys.executable, "-m", "covidscan.train", *flags],
        cwd=runs.ROOT,
        env=runs.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log = workdir / "metrics.jsonl"
    deadline = time.time() + 240
    while time.time() < deadline and process.poll() is None:
        if log.exists() and f'{{"step": {step_of_kill}, "split": "train"' in log.read_text():
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    resumed = runs.run("train", *flags)
    assert "Trained to step 14" in resumed.stdout
    runs.assert_equal_states(runs.saved_state(workdir, 14), runs.saved_state(trained, 14))
    assert (workdir / "choices.json").read_text() == (trained / "choices.json").read_text()
    for split in ("train", "validation"):
        mine, theirs = runs.log_lines(workdir, split), runs.log_lines(trained, split)
        assert [line["step"] for line in mine] == [line["step"] for line in theirs]
        assert [line["loss"] for line in mine] == [line["loss"] for line in theirs]


@pytest.mark.sampled
def test_loss_curve_is_the_same_on_1_2_and_4_devices(data_dir, tmp_path):
    flags = [*runs.SMALL, "--model=covidscan_cnn", "--dropout=0", "--learning_rate=1e-4", "--ema_decay=0"]
    curves = {}
    for devices in (1, 2, 4):
        workdir = tmp_path / str(devices)
        runs.run("train", *flags, f"--workdir={workdir}", f"--data_dir={data_dir}", devices=devices)
        curves[devices] = [line["loss"] for line in runs.log_lines(workdir, "train")]
    assert len(curves[1]) == 14
    assert np.ptp(curves[1]) > 1e-3
    np.testing.assert_allclose(curves[2], curves[1], atol=1e-4)
    np.testing.assert_allclose(curves[4], curves[1], atol=1e-4)


@pytest.mark.sampled
def test_early_stopping_ends_a_run_that_does_not_get_better(data_dir, tmp_path):
    flags = [*runs.SMALL, "--learning_rate=0", "--early_stopping=2", f"--workdir={tmp_path}", f"--data_dir={data_dir}"]
    assert "Trained to step 9" in runs.run("train", *flags).stdout
    assert [line["step"] for line in runs.log_lines(tmp_path, "validation")] == [3, 6, 9]


def test_a_finished_run_is_not_trained_again(trained, data_dir):
    before = (trained / "metrics.jsonl").read_text()
    chosen = (trained / "choices.json").read_text()
    # As of a checkpoint that was removed and trained again: the best step has the same number by then.
    ((step, point),) = json.loads(chosen).items()
    of_another = {name: value for name, value in point.items() if name != "sha256"} | {"parameters_crc32": "0" * 8}
    (trained / "choices.json").write_text(json.dumps({step: of_another | {"threshold": 0.123}}))
    measured = _written(trained / "typical.json")
    done = runs.run("train", *runs.SMALL, f"--workdir={trained}", f"--data_dir={data_dir}")
    assert "Trained to step 14" in done.stdout
    assert f"what was chosen for step {step} is of another network than is there now" in done.stderr
    assert (trained / "metrics.jsonl").read_text() == before
    assert (trained / "choices.json").read_text() == chosen  # by predicting again, equal to what training held
    assert _written(trained / "typical.json") == measured


def _written(path):
    return path.stat().st_ino, path.stat().st_mtime_ns


def test_tensorboard_holds_the_same_metrics(trained):
    events = runs.tensorboard_scalars(trained)
    for line in runs.log_lines(trained, "train"):
        for name in ("loss", "learning_rate"):
            assert events[f"train/{name}"][line["step"]] == pytest.approx(line[name], rel=1e-6)


def test_tensorboard_shows_validation_studies_curves_and_hyperparameters(trained):
    found: dict[str, dict] = {}
    for step, value in runs.tensorboard_values(trained):
        found.setdefault(value.tag, {})[step] = value
    validations = runs.log_lines(trained, "validation")
    steps = [line["step"] for line in validations]
    assert list(found["validation/studies"]) == list(found["validation/positive"]) == steps
    picture = Image.open(io.BytesIO(found["validation/studies"][14].image.encoded_image_string)).convert("RGB")
    rows = picture.height - 34  # above the captions
    assert picture.width == 3 * 192  # of all three validation studies
    outline = np.abs(np.asarray(picture).astype(int) - (230, 159, 0)).sum(-1) < 60
    lesions = outline[:rows].reshape(rows, 3, 192).sum((0, 2))
    assert (lesions > 50).tolist() == [True, True, False]  # two have lesions
    curve = found["validation/positive"][14]
    assert curve.metadata.plugin_data.plugin_name == "pr_curves"
    true_positives, false_positives = np.reshape(curve.tensor.float_val, (6, -1))[:2, 0]
    assert (true_positives, false_positives) == (2, 1)  # at the threshold 0 every study
    plugin = plugin_hparams_pb2.HParamsPluginData
    start, end = (found[f"_hparams_/session_{name}_info"].popitem()[1] for name in ("start", "end"))
    flags = plugin.FromString(start.metadata.plugin_data.content).session_start_info.hparams
    assert (flags["width"].number_value, flags["model"].string_value) == (8, "lung_resnet")
    assert flags["windows"].string_value == "-600.0:1500.0,40.0:400.0,-700.0:500.0"
    assert plugin.FromString(end.metadata.plugin_data.content).session_end_info.status
    best = max(line["auroc"] for line in validations)
    assert found["best/validation_auroc"][14].simple_value == pytest.approx(best)


MISTAKES = {
    "unknown flag": (["--epoch=3"], "epoch"),
    "value out of bounds": (["--dropout=2"], "dropout"),
    "positional argument": (["runs"], "'runs' is not a flag"),
    "windows": (["--windows=40"], "--windows=40 must be LEVEL:WIDTH"),
    "data set": (["--dataset=mosmedd/64x64x32"], "--dataset=mosmedd/64x64x32"),
    "configuration": (["--dataset=ct_phantom/huge"], "'huge'"),
    "fold": (["--protocol=kfold", "--fold=7"], "--fold"),
    "public split": (["--protocol=covidnet3d"], "--protocol=covidnet3d"),
    "not a number": (["--learning_rate=nan"], "must be a finite number"),
    "window without end": (["--windows=40:inf"], "--windows=40:inf must be LEVEL:WIDTH"),
    "seed": (["--seed=99999999999999999999"], "--seed"),
    "coordinator": (
        ["--coordinator_address=localhost", "--num_processes=2", "--process_id=0"],
        "--coordinator_address=localhost must be HOST:PORT",
    ),
    "network that is no Python function": (["--model=numpy:array"], "--model=numpy:array"),
    "target of another criterion": (["--target_sensitivity=0.98"], "needs --operating_point=sensitivity, not youden"),
    "cost of another criterion": (["--cost_ratio=5"], "--cost_ratio=5.0 needs --operating_point=cost"),
    "threshold of classes": (["--task=classes", "--operating_point=accuracy"], "predicts the likeliest label: leave"),
    "crops of another task": (["--lesion_crops=8x8x8", "--task=severity"], "--lesion_crops=8x8x8 needs --task=binary"),
    "crops of no size, before records are built": (
        ["--lesion_crops=64x64", "--dataset=mosmed/128x128x32"],
        "--lesion_crops=64x64: write ROWSxCOLUMNSxSLICES",
    ),
    "crops without masks": (
        ["--lesion_crops=8x8x8", "--size=tiny", "--lesion_loss=0"],
        "needs lesion masks of training",
    ),
    "negative categories": (["--negative_categories=healthy"], "--negative_categories=healthy"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_end_in_one_line_that_names_the_flag(mistake, data_dir, tmp_path):
    flags, message = MISTAKES[mistake]
    done = runs.run(
        "train", *runs.SMALL, *flags, f"--workdir={tmp_path / 'run'}", f"--data_dir={data_dir}", check=False
    )
    _assert_one_line(done, message)


def _assert_one_line(done, message):
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last


@pytest.mark.parametrize(
    "command", [["train", "--workdir=s4://bucket/run"], ["compare", "--output_dir=s4://bucket", "a", "b"]]
)
def test_a_bucket_of_an_unknown_kind_is_named(command):
    _assert_one_line(runs.run(*command, check=False), "s4://bucket")


def test_a_batch_that_the_devices_cannot_share_is_reported(data_dir, tmp_path):
    done = runs.run("train", *runs.SMALL, "--batch_size=6", f"--workdir={tmp_path}", devices=4, check=False)
    _assert_one_line(
        done, "--batch_size=6 is the global batch and must be divisible by the 4 devices: use --batch_size=4"
    )


def test_a_run_that_resumes_on_devices_that_do_not_fit_keeps_its_batch_size(trained, data_dir):
    done = runs.run("train", *runs.SMALL, f"--workdir={trained}", f"--data_dir={data_dir}", devices=3, check=False)
    _assert_one_line(
        done, "the 3 devices: the run was trained with it, so resume on a number of devices that divides 4"
    )


def test_a_workdir_made_with_other_flags_is_refused(trained, data_dir):
    done = runs.run(
        "train", *runs.SMALL, "--learning_rate=0.5", f"--workdir={trained}", f"--data_dir={data_dir}", check=False
    )
    _assert_one_line(done, "made with other flags (--learning_rate=0.002 there, 0.5 now)")


def test_a_checkpoint_of_another_network_is_refused(trained, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "14")
    shutil.copytree(runs.ROOT / "tests/support/stored_run/run/checkpoints/14", workdir / "checkpoints" / "14")
    done = runs.run("evaluate", f"--workdir={workdir}", "--checkpoint=14", check=False)
    _assert_one_line(done, "is of another network than config.json describes")


def test_a_config_that_was_changed_after_training_is_refused(trained, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    config["config"]["width"] = 16
    (workdir / "config.json").write_text(json.dumps(config))
    done = runs.run("evaluate", f"--workdir={workdir}", check=False)
    _assert_one_line(done, "width was 8 and is 16; put it back as it was")


def test_a_workdir_below_a_file_is_reported(data_dir, tmp_path):
    (tmp_path / "file").write_text("")
    done = runs.run(
        "train", *runs.SMALL, f"--workdir={tmp_path / 'file' / 'run'}", f"--data_dir={data_dir}", check=False
    )
    _assert_one_line(done, str(tmp_path / "file"))


def test_verbose_shows_where_an_error_came_from(tmp_path):
    done = runs.run("evaluate", "-v=1", f"--workdir={tmp_path}", check=False)
    assert "Traceback" in done.stderr


def test_a_stop_whose_last_checkpoint_cannot_be_written_is_an_error(data_dir, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable_checkpoints, "_publish", fail)
    monkeypatch.setattr(StopRequests, "reached", lambda self: True)
    config = Config(dataset="ct_phantom/tiny", width=8, batch_size=4)
    with pytest.raises(UserError, match=r"a checkpoint could not be written \(No space left on device\)"):
        train_and_evaluate(config, DataPaths(str(data_dir)), str(tmp_path / "run"), StopRequests(tmp_path))


def test_a_training_tells_the_warnings_of_records_that_exist(data_dir, tmp_path, capsys):
    copy = shutil.copytree(data_dir, tmp_path / "data")
    (path,) = copy.glob("ct_phantom/tiny/*/metadata.json")
    metadata = json.loads(path.read_text())
    for number in range(5):
        metadata["index"][number]["warnings"] = [f"oblique by {number} degrees"]
    path.write_text(json.dumps(metadata | {"left_out": {".mha": 2}}))
    dataset = load_dataset(Config(dataset="ct_phantom/tiny"), DataPaths(str(copy)))
    _print_counts(dataset)
    shown = capsys.readouterr().out
    first = ", ".join(sorted(row["study_id"] for row in metadata["index"][:5])[:3])
    assert f"  Warning: 5 studies ({first} and 2 more): oblique by " in shown
    assert "  Warning: left out 2 .mha, which were not read\n" in shown
    _print_counts(dataset._replace(was_built=False))  # told when they were built
    assert "Warning" not in capsys.readouterr().out
