"""Several processes as one job: the same run as one process, stopped together, and never left hanging."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from covidscan.distributed import processes as job_processes
from covidscan.explanation import scale
from covidscan.trained_models import restore
from tests.support import clock, network, runs
from tfds_mosmed.errors import UserError

# Gloo's message, JAX's, or a missing heartbeat: what comes first.
LOST = "lost another process of the job|another task died|sent no heartbeat|coordinator, did not answer"
ENDLESS = ("--epochs=5000", "--eval_every=1000", "--checkpoint_every=5")


@pytest.fixture(scope="module")
def two_hosts(data_dir, tmp_path_factory):
    """A finished run of 2 processes with 2 devices each."""
    workdir = tmp_path_factory.mktemp("two_hosts") / "run"
    done = runs.run_job("train", *runs.SMALL, f"--workdir={workdir}", f"--data_dir={data_dir}", processes=2, devices=2)
    return workdir, done


def _output(process) -> str:
    """A process's output without that of Gloo, whose threads print into each other's lines."""
    return "".join(line for line in process.stdout.splitlines() if not re.search(r"Gloo|peer ranks|^[\W\d]*$", line))


def test_two_processes_train_as_one_does(two_hosts, trained):
    workdir, done = two_hosts
    for split in ("train", "validation"):
        mine, theirs = runs.log_lines(workdir, split), runs.log_lines(trained, split)
        assert [line["step"] for line in mine] == [line["step"] for line in theirs]
        for metric in ("loss", "auroc"):
            got, want = ([line[metric] or np.nan for line in lines] for lines in (mine, theirs))
            np.testing.assert_allclose(got, want, atol=1e-4)
    assert "Trained to step 14" in done[0].stdout
    assert _output(done[1]) == ""
    assert len(list(workdir.glob("events.out.tfevents*"))) == 1


@pytest.mark.sampled
def test_a_checkpoint_of_two_hosts_goes_on_on_one_device_and_the_other_way_round(
    two_hosts, trained, data_dir, tmp_path
):
    for name, (workdir, processes, devices) in {
        "one": (two_hosts[0], 1, 1),
        "two": (trained, 2, 2),
    }.items():
        copy = tmp_path / name
        shutil.copytree(workdir, copy)
        for step in (12, 14):
            shutil.rmtree(copy / "checkpoints" / str(step))
        flags = [*runs.SMALL, f"--workdir={copy}", f"--data_dir={data_dir}"]
        runs.run_job("train", *flags, processes=processes, devices=devices)
        mine, theirs = runs.log_lines(copy, "train"), runs.log_lines(trained, "train")
        np.testing.assert_allclose([line["loss"] for line in mine], [line["loss"] for line in theirs], atol=1e-4)
        state, want = runs.saved_state(copy, 14), runs.saved_state(trained, 14)
        assert int(state["step"]) == int(want["step"]) == 14


SEES_OLD_LIST = """
import os, runpy, sys
sys.path.insert(0, os.getcwd())
import orbax.checkpoint as ocp
from covidscan.training import initialise, loop
from tfds_mosmed.errors import UserError

def apply(*_):
    raise UserError("begins with another network")

ocp.CheckpointManager.all_steps = lambda *_: [12]
ocp.CheckpointManager.latest_step = lambda *_: 12
loop.has_checkpoints, initialise.apply = lambda _: True, apply
runpy.run_module("covidscan.{command}", run_name="__main__")
"""


def _sees_old_list(folder, command):
    """A script of a process that lists a shared folder as it was at step 12."""
    script = folder / f"{command}.py"
    script.write_text(SEES_OLD_LIST.format(command=command))
    return script


def test_a_process_that_lists_other_checkpoints_does_not_go_on_from_one(trained, data_dir, tmp_path):
    flags = [*runs.SMALL, f"--workdir={shutil.copytree(trained, tmp_path / 'run')}", f"--data_dir={data_dir}"]
    script = _sees_old_list(tmp_path, "train")
    with runs.job("train", *flags, processes=2, last_script=script) as started:
        done = started.wait(120)
    for process in done:
        assert process.returncode == 1
        assert re.search(
            r"process 1 sees another checkpoint in \S+ than process 0 \(step 12, not step 14\): run the same command",
            process.stderr.splitlines()[-1],
        )


def test_a_process_that_lists_checkpoints_of_a_new_run_begins_with_the_earlier_network_too(trained, data_dir, tmp_path):
    flags = [*runs.SMALL, f"--workdir={tmp_path / 'run'}", f"--data_dir={data_dir}", f"--init_from={trained}"]
    script = _sees_old_list(tmp_path, "train")
    script.write_text(re.sub("ocp.CheckpointManager.*", "", script.read_text()))
    with runs.job("train", *flags, processes=2, last_script=script) as started:
        last = started[-1].communicate(timeout=120)
    assert last[1].endswith("begins with another network\n")


@pytest.mark.parametrize(
    ("file", "ask"),
    [
        ("choices.json", lambda member: member.operating_point(None)),
        ("explanation.json", lambda member: scale.freeze(member, None, None)),
    ],
)
def test_a_choice_that_process_0_cannot_read_ends_every_process(file, ask, monkeypatch, tmp_path):
    (tmp_path / file).write_text("[]")
    member: Any = restore.RestoredModel(tmp_path, {}, None, {}, 14)  # type: ignore[arg-type]
    sent = []
    monkeypatch.setattr(job_processes, "broadcast_from_process_0", lambda value: sent.append(value) or value)
    with pytest.raises(UserError, match=f"{file} is not as .* wrote it"):
        ask(member)
    (message,) = sent  # for which the others wait
    monkeypatch.setattr(job_processes, "is_process_0", lambda: False)
    monkeypatch.setattr(job_processes, "broadcast_from_process_0", lambda _: message)
    with pytest.raises(UserError, match=f"{file} is not as .* wrote it"):
        ask(member)


@pytest.mark.sampled
def test_several_processes_predict_as_one_does(trained, tmp_path):
    script = _sees_old_list(tmp_path, "evaluate")
    tables = []
    for processes in (1, 2, 3):
        workdir = tmp_path / str(processes)
        shutil.copytree(trained, workdir)
        # 7 test studies: 3 processes take 3, 2 and 2 of them
        flags = [f"--workdir={workdir}", "--checkpoint=latest"]
        with runs.job("evaluate", *flags, processes=processes, last_script=script if processes > 1 else None) as job:
            done = job.wait(300)
        assert [process.returncode for process in done] == [0] * processes, done[0].stderr
        assert all(_output(process) == "" for process in done[1:])
        tables.append(runs.predictions(workdir / "evaluations" / "ct_phantom_tiny-test-latest"))
    for table in tables[1:]:
        assert table.keys() == tables[0].keys()
        for study, row in tables[0].items():
            want = float(row["probability_positive"])
            assert float(table[study]["probability_positive"]) == pytest.approx(want, abs=1e-5)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("how", "processes"),
    # What is not saved within 2.5 s of Ctrl-C is lost, which takes longer beside other tests.
    [("SIGTERM", 1), ("SIGTERM", 2), ("stop file", 2), pytest.param("Ctrl-C", 2, marks=pytest.mark.alone)],
)
def test_a_run_that_is_stopped_saves_on_all_hosts_at_one_step(how, processes, data_dir, tmp_path):
    workdir = tmp_path / "run"
    flags = [*runs.FAST, *ENDLESS, "--checkpoint_every=1000", f"--workdir={workdir}", f"--data_dir={data_dir}"]
    with runs.job("train", *flags, processes=processes) as started:
        runs.wait_for_step(workdir, 6)
        if how == "stop file":
            (workdir / "stop").touch()
        elif how == "Ctrl-C":
            started[-1].send_signal(signal.SIGINT)
        else:
            started[-1].send_signal(signal.SIGTERM)
        done = started.wait(60)
    assert [process.returncode for process in done] == [75 if how == "SIGTERM" else 130] * processes
    (step,) = {int(re.search(r"stopped at step (\d+)", process.stderr).group(1)) for process in done}
    assert (workdir / "checkpoints" / str(step)).is_dir()
    assert not (workdir / "stop").exists()


@pytest.mark.sampled
@pytest.mark.parametrize("checkpoint_every", [1, 1000])  # while it saves, and while it does not
def test_a_process_that_dies_is_noticed_within_a_minute(checkpoint_every, data_dir, tmp_path):
    flags = [*runs.FAST, *ENDLESS, f"--workdir={tmp_path / 'run'}", f"--data_dir={data_dir}"]
    flags.append(f"--checkpoint_every={checkpoint_every}")
    with runs.job("train", *flags, processes=2) as started:
        runs.wait_for_step(tmp_path / "run", 6)
        started[1].kill()
        killed = time.monotonic()
        survivor = started.wait(60)[0]
    assert time.monotonic() - killed <= 60
    assert survivor.returncode in (76, -signal.SIGABRT)
    assert re.search(LOST, survivor.stderr)


@pytest.mark.sampled
def test_a_process_that_hangs_is_noticed_within_a_minute(data_dir, tmp_path):
    flags = [*runs.FAST, *ENDLESS, f"--workdir={tmp_path / 'run'}", f"--data_dir={data_dir}"]
    with runs.job("train", *flags, processes=2) as started:
        runs.wait_for_step(tmp_path / "run", 6)
        started[1].send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        status = started[0].wait(60)
        assert time.monotonic() - stopped <= 60
        started[1].kill()
        survivor = started.wait(10)[0]
    assert status == 76
    assert re.fullmatch(
        r"process 0: process 1 on .+ sent no heartbeat for 40 s; run the same command again on every host",
        survivor.stderr.splitlines()[-1],
    )


@pytest.mark.sampled
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_clock_that_is_set_forward_by_an_hour_does_not_end_the_job(data_dir, tmp_path):
    flags = [*runs.FAST, *ENDLESS, f"--workdir={tmp_path / 'run'}", f"--data_dir={data_dir}"]
    of_coordinator = clock.environment(tmp_path, tmp_path / "is_set")
    with runs.job("train", *flags, processes=2, first_environment=of_coordinator) as started:
        runs.wait_for_step(tmp_path / "run", 6)
        (tmp_path / "is_set").touch()
        time.sleep(8)  # where JAX's heartbeats counted, the job would end after 3 s
        assert [process.poll() for process in started] == [None, None]
        runs.wait_for_step(tmp_path / "run", len(runs.log_lines(tmp_path / "run", "train")) + 2)


def _start_on_host(hosts, host, *flags):
    place = [f"--coordinator_address={hosts.addresses[0]}:4711", "--num_processes=2", f"--process_id={host}"]
    command = hosts.command(host, sys.executable, "-m", "covidscan.train", *flags, *place)
    return subprocess.Popen(command, cwd=runs.ROOT, env=runs.environment(), stderr=subprocess.PIPE, text=True)


@pytest.mark.sampled
@pytest.mark.skipif(network.missing() is not None, reason=str(network.missing()))
def test_hosts_that_lose_their_connection_end_within_a_minute_and_one_alone_resumes(data_dir, tmp_path):
    workdir = tmp_path / "run"
    flags = [*runs.FAST, "--epochs=5000", "--eval_every=1000", "--checkpoint_every=5"]
    flags += [f"--workdir={workdir}", f"--data_dir={data_dir}"]
    with network.two_hosts() as hosts:
        started = runs.Job(_start_on_host(hosts, host, *flags) for host in range(2))
        try:
            runs.wait_for_step(workdir, 6)
            hosts.pull_the_cable()
            cut = time.monotonic()
            done = started.wait(60)
            assert time.monotonic() - cut <= 60
        finally:
            for process in started:
                process.kill()
    for process in done:
        assert process.returncode in (76, -signal.SIGABRT)
        assert re.search(LOST, process.stderr)
    last = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    with runs.job("train", *flags, processes=1) as alone:
        runs.wait_for_step(workdir, last + 2)
        (workdir / "stop").touch()
        assert alone.wait(60)[0].returncode == 130
    steps = [line["step"] for line in runs.log_lines(workdir, "train")]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= last + 2


HANGS_AT_STEP_8 = """
import os, runpy, sys, time
sys.path.insert(0, os.getcwd())
from covidscan.training.experiment import Experiment
from covidscan.training.step_metrics import StepMetrics

add, train_step = StepMetrics.add, Experiment.train_step

def compile_slowly(self):
    step, new = train_step(self), [True]
    def call(*arguments):
        if new:
            new.clear()
            time.sleep(9)
        return step(*arguments)
    return call

def hang(self, step, dispatch):
    if step == 8:
        time.sleep(600)
    add(self, step, dispatch)

Experiment.train_step, StepMetrics.add = compile_slowly, hang
runpy.run_module("covidscan.train", run_name="__main__")
"""


def test_a_process_whose_main_thread_hangs_is_noticed_in_the_given_time(data_dir, tmp_path):
    (tmp_path / "train.py").write_text(HANGS_AT_STEP_8)
    # Less than the heartbeat's 40 s, and than one of the hosts compiles.
    flags = [*runs.FAST, *ENDLESS, "--peer_timeout=8", f"--workdir={tmp_path / 'run'}", f"--data_dir={data_dir}"]
    with runs.job("train", *flags, processes=2, last_script=tmp_path / "train.py") as started:
        runs.wait_for_step(tmp_path / "run", 6)
        reached = time.monotonic()
        done = started.wait(30)
    assert time.monotonic() - reached < 25
    assert {process.returncode for process in done} <= {76, -signal.SIGABRT}
    line = (
        r"process (\d): nothing of the training ended after step (\d+) within 8 s: a process of the job hangs; run .*"
    )
    found = [re.search(line, process.stderr) for process in done]
    assert any(found)
    assert all(int(one.group(1)) == number and 7 <= int(one.group(2)) <= 10 for number, one in enumerate(found) if one)


HANGS_WHILE_READING = """
import os, runpy, sys, time
sys.path.insert(0, os.getcwd())
from covidscan.data import records

def hang(*_):
    time.sleep(600)

records.{function} = hang
runpy.run_module("covidscan.{command}", run_name="__main__")
"""


@pytest.mark.sampled
@pytest.mark.parametrize(("command", "function"), [("train", "read_fields"), ("evaluate", "eval_batches")])
def test_a_process_that_hangs_while_it_reads_ends_the_job(command, function, trained, data_dir, tmp_path):
    script = tmp_path / f"{command}.py"
    script.write_text(HANGS_WHILE_READING.format(command=command, function=function))
    workdir = shutil.copytree(trained, tmp_path / "run")
    flags = ["--peer_timeout=15", f"--workdir={workdir}"]
    if command == "train":
        shutil.rmtree(workdir / "checkpoints" / "14")
        flags += [*runs.SMALL, f"--data_dir={data_dir}"]
    with runs.job(command, *flags, processes=2, last_script=script) as started:
        done = started.wait(120)
    assert {process.returncode for process in done} <= {76, -signal.SIGABRT}
    assert done[1].stderr.splitlines()[-1] == (
        "process 1: nothing was read or computed within 15 s: its storage or a process of the job hangs; run the same "
        "command again on every host, or give a longer --peer_timeout"
    )


@pytest.mark.parametrize("process", [0, 1])
def test_a_process_whose_peers_never_come_ends_in_the_given_time(process, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = f"--coordinator_address=127.0.0.1:{probe.getsockname()[1]}"
    flags = [place, "--num_processes=2", f"--process_id={process}", "--peer_timeout=1", f"--workdir={tmp_path}"]
    done = runs.run("train", *flags, check=False)
    assert done.returncode == 76
    assert done.stderr == (
        f"process {process}: the other processes of this job did not come within 1 s: start all of them, with the same "
        "coordinator, or give a longer --peer_timeout\n"
    )


def test_processes_with_other_flags_are_reported(data_dir, tmp_path):
    flags = [*runs.FAST, f"--workdir={tmp_path / 'run'}", f"--data_dir={data_dir}"]
    with runs.job("train", *flags, processes=2, last=["--seed=1"]) as started:
        done = started.wait(120)
    for process in done:
        assert process.returncode == 1
        assert "process 1 was started with other flags" in process.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("environ", "launcher"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_NUM_TASKS": "2"}, "Slurm"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n1", "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, None),  # a batch script outside srun
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "Open MPI"),
    ],
)
def test_launchers_of_several_processes_are_detected(environ, launcher):
    assert job_processes.detect_launcher({"JAX_PLATFORMS": "cpu", **environ}) == launcher


@pytest.mark.parametrize(
    ("environ", "devices"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x4)", "SLURM_GPUS_ON_NODE": "8"}, list(range(8))),
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x4)", "SLURM_GPUS_ON_NODE": "8"}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x4)"}, None),
    ],
)
def test_the_only_task_of_a_slurm_node_has_all_of_its_gpus(environ, devices):
    assert job_processes.slurm_devices(environ) == devices


def test_an_indexed_job_that_jax_cannot_ask_about_does_not_become_single_runs(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="--process_id=\\$JOB_COMPLETION_INDEX"):
        job_processes.detect_launcher({"JOB_COMPLETION_INDEX": "1"})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_processes=2"], "--coordinator_address and --process_id: give all three"),
        (
            ["--coordinator_address=127.0.0.1:1", "--num_processes=2", "--process_id=2"],
            "--process_id=2 must be from 0 to 1",
        ),
    ],
)
def test_impossible_flags_of_a_job_are_reported(flags, message, tmp_path):
    done = runs.run("train", f"--workdir={tmp_path}", *flags, check=False)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
