"""Long runs under kills at any moment, non-finite losses and damaged checkpoints."""

import json
import multiprocessing
import os
import runpy
import shutil
import signal
import statistics
import sys
import time

import pytest

from tests.support import runs, share

KILLS = 50


def _train(flags):
    """The train command, in a process that has its imports already: a life of it begins in moments."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(2, 1)
    sys.argv = ["covidscan.train", *flags]
    runpy.run_module("covidscan.train", run_name="__main__")


def _newest_step(workdir):
    return max((int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit()), default=0)


def _kill_at_random(process, workdir, chance):
    """Kill a life of a run at a random moment: while it starts, or a few steps after that; tell whether it was alive.

    Steps, not seconds, measure most lives, so that neither a slow machine nor a fast one changes what is tried.
    """
    if chance.random() < 0.2:
        process.join(chance.uniform(0, 4))
    else:
        enough = _newest_step(workdir) + chance.randint(1, 4)
        deadline = time.monotonic() + 600  # of a busy machine
        while process.is_alive() and _newest_step(workdir) < enough:
            assert time.monotonic() < deadline, "no step came"
            time.sleep(0.002)
        process.join(chance.uniform(0, 0.2))  # into the save that was just seen, or the steps after it
    alive = process.is_alive()
    process.kill()
    process.join()
    return alive


def test_kills_at_random_moments_change_nothing(data_dir, tmp_path):
    # The forkserver has this process's four devices, so all others have as many.
    # Checkpoints at almost every step: many kills fall into a save.
    kills = len(share.sample("kills", range(KILLS)))
    epochs = f"--epochs={10 + 2 * kills}"  # more steps than the kills leave time for
    flags = [*runs.SMALL, epochs, "--eval_every=6", "--checkpoint_every=2", f"--data_dir={data_dir}"]
    runs.run("train", *flags, f"--workdir={tmp_path / 'undisturbed'}", devices=4)
    (last,) = {line["step"] for line in runs.log_lines(tmp_path / "undisturbed", "train")[-1:]}
    chance = share.generator("moments of kills")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["covidscan.training.loop", "covidscan.distributed.processes"])
    workdir = tmp_path / "killed"
    progress = set()
    for killed in range(kills):
        process = context.Process(target=_train, args=([*flags, f"--workdir={workdir}"],))
        process.start()
        assert _kill_at_random(process, workdir, chance), f"the run of {last} steps was over after {killed} kills"
        progress.add(_newest_step(workdir))
    assert len(progress) > kills / 10
    runs.run("train", *flags, f"--workdir={workdir}", devices=4)
    runs.assert_equal_states(runs.saved_state(workdir, last), runs.saved_state(tmp_path / "undisturbed", last))
    for split in ("train", "validation"):
        mine, theirs = runs.log_lines(workdir, split), runs.log_lines(tmp_path / "undisturbed", split)
        assert [(line["step"], line["loss"]) for line in mine] == [(line["step"], line["loss"]) for line in theirs]


# Rates this high make validation AUROC rise and fall, so that the best checkpoint is seldom among the newest.
UNSTABLE = ("--epochs=12", "--learning_rate=0.1", "--warmup=1", "--ema_decay=0", "--keep=1", "--checkpoint_every=1")


@pytest.fixture(scope="module")
def undisturbed(data_dir, tmp_path_factory):
    """A run of those rates to its end, and what it printed."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    return workdir, runs.run("train", *runs.FAST, *UNSTABLE, f"--data_dir={data_dir}", f"--workdir={workdir}").stdout


@pytest.mark.sampled
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_the_best_checkpoint_survives_a_restart(sent, undisturbed, data_dir, tmp_path):
    flags = [*runs.FAST, *UNSTABLE, f"--data_dir={data_dir}"]
    (whole, said), stopped = undisturbed, tmp_path / "stopped"
    best = _best_step(whole)
    with runs.job("train", *flags, f"--workdir={stopped}", processes=1) as started:
        runs.wait_for_step(stopped, min(best + 1, 38))
        started[0].send_signal(sent)
        assert started.wait(60)[0].returncode == (75 if sent == signal.SIGTERM else -signal.SIGKILL)
    assert _newest_step(stopped) < 42
    resumed = runs.run("train", *flags, f"--workdir={stopped}").stdout
    assert f"at step {best}." in said
    assert f"at step {best}." in resumed
    assert _steps(stopped) == _steps(whole) == sorted({best, 42})
    assert (stopped / "choices.json").read_text() == (whole / "choices.json").read_text()
    for split in ("train", "validation"):
        mine, theirs = runs.log_lines(stopped, split), runs.log_lines(whole, split)
        assert [(line["step"], line["loss"]) for line in mine] == [(line["step"], line["loss"]) for line in theirs]
    shutil.rmtree(stopped / "checkpoints" / str(best))
    gone = runs.run("evaluate", f"--workdir={stopped}", check=False)
    if best != 42:
        assert gone.returncode == 1
        assert f"the best checkpoint, step {best}, is no longer in" in gone.stderr.splitlines()[-1]


def _steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def _best_step(workdir):
    return max((line["auroc"], line["step"]) for line in runs.log_lines(workdir, "validation"))[1]


def _cut(path):
    os.truncate(path, path.stat().st_size // 2)


def _flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


DAMAGES = {
    "data cut": lambda step: _cut(_largest(step / "state")),
    "a flipped bit": lambda step: _flip_a_bit(_largest(step / "state")),
    "a file gone": lambda step: (step / "state" / "manifest.ocdbt").unlink(),
    "history cut": lambda step: _cut(step / "history" / "metadata"),
}


@pytest.mark.sampled
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_told_of_and_the_one_before_is_used(damage, trained, data_dir, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    DAMAGES[damage](workdir / "checkpoints" / "14")
    judged = runs.run("evaluate", f"--workdir={workdir}", "--checkpoint=14", check=False)
    assert judged.returncode == 1
    assert "checkpoints/14 is damaged" in judged.stderr.splitlines()[-1]
    resumed = runs.run("train", *runs.SMALL, f"--workdir={workdir}", f"--data_dir={data_dir}")
    assert "checkpoints/14 is damaged" in resumed.stderr
    assert "Trained to step 14" in resumed.stdout
    assert [path.name.partition("-")[0] for path in (workdir / "damaged").iterdir()] == ["14"]
    runs.assert_equal_states(runs.saved_state(workdir, 14), runs.saved_state(trained, 14))


@runs.may_mount
def test_a_full_disk_leaves_the_last_checkpoint_whole_and_the_run_goes_on_after_room_is_made(
    trained, data_dir, tmp_path
):
    disk = tmp_path / "disk"
    disk.mkdir()
    with runs.small_disk(disk, "12m"):
        workdir = disk / "run"
        flags = [*runs.SMALL, "--epochs=12", "--eval_every=20", f"--workdir={workdir}", f"--data_dir={data_dir}"]
        with runs.job("train", *flags, processes=1) as started:
            runs.wait_for_step(workdir, 6)
            (workdir / "stop").touch()
            assert started.wait(60)[0].returncode == 130
        step = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
        before = runs.saved_state(workdir, step)
        filler = disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - 100_000))  # room for a log, not for a checkpoint
        full = runs.run("train", *flags, "--keep=5", check=False)
        assert full.returncode == 1
        assert "Traceback" not in full.stderr
        assert full.stderr.strip().splitlines()[-1].startswith(f"error: {workdir}")
        runs.assert_equal_states(runs.saved_state(workdir, step), before)
        filler.unlink()
        assert "Trained to step 42" in runs.run("train", *flags, "--keep=1").stdout


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_and_studies(data_dir, tmp_path):
    flags = [*runs.FAST, "--learning_rate=1e30", "--clip_norm=0", "--warmup=0.5", "--checkpoint_every=1"]
    flags = [*flags, f"--workdir={tmp_path}", f"--data_dir={data_dir}"]
    done = runs.run("train", *flags, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    mark = json.loads((tmp_path / "not_finite.json").read_text())
    assert last.startswith(f"error: step {mark['step']}: the loss or its gradient is not a finite number (studies ")
    assert mark["studies"]
    assert all(study in last for study in mark["studies"])
    assert mark["last_good_checkpoint"] == mark["step"] - 1
    assert max(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == mark["last_good_checkpoint"]
    went_on = runs.run("train", *flags, "--skip_nonfinite")
    assert "Trained to step 14" in went_on.stdout
    lines = runs.log_lines(tmp_path, "train")
    assert lines[-1]["skipped_updates"] >= 1
    assert all(line["loss"] is None or abs(line["loss"]) < 1e38 for line in lines)


@pytest.mark.alone
def test_a_checkpoint_every_50_steps_costs_at_most_a_twentieth(data_dir, tmp_path):
    flags = [*runs.SMALL, "--epochs=150", "--eval_every=1000", "--checkpoint_every=50", "--log_every=5"]
    runs.run("train", *flags, f"--workdir={tmp_path}", f"--data_dir={data_dir}")
    seconds = {line["step"]: 5 * 4 / line["volumes_per_second"] for line in runs.log_lines(tmp_path, "train")}
    # A save is over within 15 steps: those after it are held against the other 35 before the next, and no further away,
    # as a shared machine's speed drifts by more than a save costs.
    overheads = []
    for saved in range(50, max(seconds) - 49, 50):
        stretches = [seconds[step] for step in range(saved + 5, saved + 51, 5)]
        plain = statistics.median(stretches[3:])
        overheads.append((sum(stretches[:3]) - 3 * plain) / (10 * plain))
    assert len(overheads) >= 9
    overhead = statistics.median(overheads)
    print(f"overhead {overhead:.1%} of {[f'{each:.1%}' for each in overheads]}")
    assert overhead <= 0.05
