"""Two hosts that lose their connection while both go on."""

import re
import signal
import subprocess
import sys
import time

import pytest

from tests.support import network, runs

pytestmark = pytest.mark.skipif(network.missing() is not None, reason=str(network.missing()))


def _start(hosts, host, *flags):
    place = [f"--coordinator_address={hosts.addresses[0]}:4711", "--num_processes=2", f"--process_id={host}"]
    command = hosts.command(host, sys.executable, "-m", "covidscan.train", *flags, *place)
    return subprocess.Popen(command, cwd=runs.ROOT, env=runs.environment(), stderr=subprocess.PIPE, text=True)


def test_both_hosts_end_within_a_minute_and_one_alone_resumes(data_dir, tmp_path):
    workdir = tmp_path / "run"
    flags = [*runs.FAST, "--epochs=5000", "--eval_every=1000", "--checkpoint_every=5"]
    flags += [f"--workdir={workdir}", f"--data_dir={data_dir}"]
    with network.two_hosts() as hosts:
        started = runs.Job(_start(hosts, host, *flags) for host in range(2))
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
        assert re.search("lost another process of the job|another task died", process.stderr)
    last = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    with runs.job("train", *flags, processes=1) as alone:
        runs.wait_for_step(workdir, last + 2)
        (workdir / "stop").touch()
        assert alone.wait(60)[0].returncode == 130
    steps = [line["step"] for line in runs.log_lines(workdir, "train")]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= last + 2
