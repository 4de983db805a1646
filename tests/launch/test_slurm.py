"""launch/slurm.sbatch on a real Slurm: two nodes, one requeue, every step trained exactly once."""

import os
import subprocess
import sys
import time

import pytest

from tests.support import runs, slurm

SCRIPT = runs.ROOT / "launch" / "slurm.sbatch"


@pytest.fixture
def cluster():
    missing = slurm.missing()
    if missing and not os.environ.get("CI"):
        pytest.skip(missing)
    with slurm.cluster() as environ:
        yield environ


def _text(log) -> str:
    return log.read_text(errors="replace")  # two nodes write concurrently, and may split a character


def test_a_requeued_job_of_two_nodes_trains_to_the_end(cluster, data_dir, tmp_path):
    workdir, log = tmp_path / "run", tmp_path / "job.log"
    flags = [*runs.FAST, "--epochs=40", "--eval_every=10", "--checkpoint_every=1000"]
    flags += [f"--workdir={workdir}", f"--data_dir={data_dir}"]
    environ = cluster | runs.environment() | {"SLURM_CONF": cluster["SLURM_CONF"], "PYTHON": sys.executable}
    submitted = subprocess.run(
        ["sbatch", "--parsable", f"--output={log}", str(SCRIPT), *flags],
        cwd=runs.ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    job = submitted.stdout.strip()
    runs.wait_for_step(workdir, 10, timeout=240)
    slurm.query(environ, "scontrol", "requeue", job)
    slurm.query(environ, "scontrol", "update", f"JobId={job}", "StartTime=now")
    deadline = time.monotonic() + 300
    while "Trained to step 140" not in _text(log):
        assert time.monotonic() < deadline, _text(log)[-3000:]
        # Slurm delays a requeued job by two minutes.
        slurm.query(environ, "scontrol", "update", f"JobId={job}", "StartTime=now")
        time.sleep(0.5)
    text = _text(log)
    assert "stopped at step" in text
    assert "1: " in text  # the second node's task
    steps = [line["step"] for line in runs.log_lines(workdir, "train")]
    assert steps == list(range(1, 141))


def test_the_dry_run_prints_the_step_and_runs_nothing():
    done = subprocess.run(
        ["bash", SCRIPT, "--dry_run", "--flagfile=full.flags", "--workdir=/shared/run"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (
        "srun --label .venv/bin/python -m covidscan.train --flagfile=full.flags --workdir=/shared/run\n"
    )


@pytest.mark.parametrize(("status", "requeued"), [(75, True), (130, False), (76, False), (1, False)])
def test_a_job_that_a_person_stopped_is_not_requeued(status, requeued, tmp_path):
    for name, content in {"srun": f"exit {status}", "scontrol": f'echo "$@" >> {tmp_path}/calls'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{content}\n")
        (tmp_path / name).chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash", SCRIPT, "--workdir=run"], env=environ, capture_output=True, check=False)
    assert done.returncode == status
    calls = tmp_path / "calls"
    assert (calls.read_text() if calls.exists() else "") == ("requeue 7\n" if requeued else "")
