"""A real Slurm of two nodes on this machine, from Debian's packages slurm-wlm and munge; needs root."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# The nodes' names must resolve: JAX takes the coordinator's address from the list of nodes.
HOSTS = Path("/etc/hosts")
NAMES = "127.0.0.1 covidscan-n1 covidscan-n2\n"
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
ReturnToService=2
MpiDefault=none
JobRequeue=1
KillWait=60
SlurmctldTimeout=300
SlurmdTimeout=300
NodeName=covidscan-n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=covidscan-n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=test Nodes=covidscan-n[1-2] Default=YES MaxTime=INFINITE State=UP
"""


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def missing() -> str | None:
    """Return why Slurm cannot be started on this machine, or None."""
    if os.geteuid() != 0:
        return "Slurm needs root"
    absent = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    return f"{' and '.join(absent)} not installed (Debian: slurm-wlm munge)" if absent else None


@contextlib.contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """Run a cluster during the context; yields the environment in which sbatch and the other commands find it."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:  # short: the path of a socket has at most 108 bytes
        yield from _run(Path(folder))


def _run(folder: Path) -> Iterator[dict[str, str]]:
    folder.chmod(0o755)  # munged requires that all users can reach its socket
    (folder / "state").mkdir()
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(folder=folder, host=socket.gethostname(), ports=_free_ports(3)))
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    environ = os.environ | {"SLURM_CONF": str(config)}
    munged = [
        "munged",
        "--foreground",
        "--force",
        f"--key-file={folder}/munge.key",
        f"--socket={folder}/munge.socket",
        f"--pid-file={folder}/munged.pid",
        f"--log-file={folder}/munged.log",
        f"--seed-file={folder}/munged.seed",
    ]
    daemons = [["slurmctld", "-D"], ["slurmd", "-D", "-N", "covidscan-n1"], ["slurmd", "-D", "-N", "covidscan-n2"]]
    before = HOSTS.read_text()
    HOSTS.write_text(f"{before.rstrip()}\n{NAMES}")
    started = [subprocess.Popen(munged, env=environ, stderr=subprocess.DEVNULL)]
    try:
        _wait_until(lambda: (folder / "munge.socket").exists(), "munged")
        started += [
            subprocess.Popen(daemon, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for daemon in daemons
        ]
        _wait_until(lambda: query(environ, "sinfo", "--noheader", "--format=%t %D") == "idle 2", "two idle nodes")
        yield environ
    finally:
        query(environ, "scancel", "--signal=KILL", "--user=root")
        for daemon in reversed(started):
            daemon.terminate()
            daemon.wait(30)
        HOSTS.write_text(before)


def query(environ: dict[str, str], *command: str) -> str:
    """Run a Slurm command and return its output."""
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60).stdout.strip()


def _wait_until(condition, what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"no {what} after {timeout} s"
        time.sleep(0.2)
