"""Launch scripts run the commands that their dry run prints, argument by argument."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.support import runs

LAUNCH = runs.ROOT / "launch"


def _bash(*line: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", *line], cwd=runs.ROOT, env=os.environ | environ, capture_output=True, text=True, timeout=300
    )


def test_shellcheck_passes():
    if shutil.which("shellcheck") is None and not os.environ.get("CI"):
        pytest.skip("shellcheck is not installed (Debian: shellcheck)")
    scripts = [*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"]
    assert len(scripts) >= 7
    done = subprocess.run(["shellcheck", "--external-sources", *scripts], capture_output=True, text=True, cwd=runs.ROOT)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def gcloud(tmp_path):
    """A gcloud that writes its arguments to a file, one per line; returns PATH and the file."""
    program = tmp_path / "bin" / "gcloud"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {tmp_path}/argv\n')
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}", tmp_path / "argv"


PLACE = ["--zone=us-east5-b", "--project=mine"]
SSH = ["compute", "tpus", "tpu-vm", "ssh", "slice", *PLACE, "--worker=all"]
CALLS = {
    "create": (
        ["create"],
        [
            *["compute", "tpus", "queued-resources", "create", "slice", *PLACE, "--node-id=slice"],
            *["--accelerator-type=v6e-16", "--runtime-version=v2-alpha-tpuv6e", "--spot"],
        ],
    ),
    "run": (
        ["run", "--flagfile=full.flags", "--workdir=gs://bucket/a run"],
        [
            *SSH,
            "--command=cd covidscan && .venv/bin/python -m covidscan.train '--flagfile=full.flags' "
            "'--workdir=gs://bucket/a run'",
        ],
    ),
    "stop": (["stop"], [*SSH, "--command=pkill -TERM -f '[c]ovidscan.train'"]),
    "delete": (
        ["delete"],
        ["compute", "tpus", "queued-resources", "delete", "slice", *PLACE, "--force", "--quiet"],
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_tpu_slice_is_managed_by_these_calls_and_a_dry_run_makes_none(call, gcloud):
    given, expected = CALLS[call]
    path, argv = gcloud
    environ = {"PATH": path, "NAME": "slice", "ZONE": "us-east5-b", "PROJECT": "mine", "TYPE": "v6e-16"}
    dry = _bash("launch/tpu_vm.sh", "--dry_run", *given, **environ)
    assert dry.returncode == 0
    assert not argv.exists()
    assert _bash("launch/tpu_vm.sh", *given, **environ).returncode == 0
    assert argv.read_text().splitlines() == expected
    # The printed commands do the same in a shell.
    argv.unlink()
    subprocess.run(["bash", "-c", dry.stdout], env=os.environ | environ, check=True)
    assert argv.read_text().splitlines() == expected


@pytest.mark.parametrize("script", ["tpu_vm.sh", "local.sh", "beam_dataflow.sh", "compare_networks.sh"])
def test_a_script_with_wrong_arguments_prints_its_usage(script):
    done = _bash(f"launch/{script}")
    assert done.returncode == 2
    assert "Usage:" in done.stderr


def test_the_beam_script_builds_records_on_dataflow(tmp_path):
    environ = {"PROJECT": "p", "REGION": "r", "BUCKET": "gs://b", "IMAGE": "i"}
    line = ["launch/beam_dataflow.sh", "--dry_run", "mosmed/64x64x32", "/mnt/raw", "/mnt/data"]
    assert _bash(*line, **environ).stdout.split() == [
        ".venv/bin/python",
        "-m",
        "covidscan.build",
        "--dataset=mosmed/64x64x32",
        "--manual_dir=/mnt/raw",
        "--data_dir=/mnt/data",
        "--beam_options=runner=DataflowRunner,project=p,region=r,temp_location=gs://b/temp,sdk_container_image=i",
    ]


def test_networks_are_trained_by_the_same_flags_and_compared():
    environ = {"NETWORKS": "keras_cnn mynet:Net", "PYTHON": "python"}
    done = _bash(
        "launch/compare_networks.sh", "--dry_run", "runs/peers", "--epochs=3", "--model=lung_resnet", **environ
    )
    each = [("keras_cnn", "runs/peers/keras_cnn"), ("mynet:Net", "runs/peers/mynet_Net")]
    expected = [
        line
        for network, workdir in each
        for line in (
            f"python -m covidscan.train --epochs=3 --model=lung_resnet --model={network} --workdir={workdir}",
            f"python -m covidscan.evaluate --workdir={workdir}",
        )
    ]
    compared = (
        "python -m covidscan.compare --output_dir=runs/peers/comparison runs/peers/keras_cnn runs/peers/mynet_Net"
    )
    assert done.stdout.splitlines() == [*expected, compared]
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("status", "commands", "ends"),
    [
        (1, ["train a", "evaluate a", "train b", "train c", "evaluate c", "compare peers/a peers/c"], 1),
        (75, ["train a", "evaluate a", "train b"], 75),  # preempted: the same command goes on
    ],
)
def test_networks_are_compared_without_one_that_failed(status, commands, ends, tmp_path):
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/bash
case "$2 $*" in
  covidscan.train*) echo "train ${{3#--model=}}"; [[ $3 != --model=b ]] || exit {status};;
  covidscan.evaluate*) echo "evaluate ${{3##*/}}";;
  covidscan.compare*) echo "compare ${{*:4}}";;
esac
"""
    )
    python.chmod(0o755)
    done = _bash("launch/compare_networks.sh", "peers", NETWORKS="a b c", PYTHON=str(python))
    assert done.stdout.splitlines() == commands
    assert done.returncode == ends
    assert ("failed, and not compared: b" in done.stderr) == (ends == 1)


def test_processes_on_this_machine_train_together_and_a_mistake_ends_them_all(data_dir, tmp_path):
    environ = {"PYTHON": sys.executable, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    flags = [*runs.FAST, f"--workdir={tmp_path / 'run'}", f"--data_dir={data_dir}"]
    dry = _bash("launch/local.sh", "--dry_run", "2", "train", *flags, **environ)
    assert dry.returncode == 0
    assert dry.stderr.count("covidscan.train") == 2
    assert not (tmp_path / "run").exists()
    done = _bash("launch/local.sh", "2", "train", *flags, **environ)
    assert done.returncode == 0, done.stderr
    assert "Trained to step 14" in done.stdout
    assert _bash("launch/local.sh", "2", "train", *flags, "--batch_size=0", **environ).returncode == 2
