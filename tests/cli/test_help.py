"""Command lines as a new user types them: --help, nothing at all, a typo, a wrong value."""

import re
import statistics
import subprocess
import sys
import time

import pytest

from covidscan.__main__ import COMMANDS
from tests.support import runs


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_flag_in_a_group_in_two_lines_without_importing_jax(command):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['covidscan.{command}', '--help']\n"
        f"try: runpy.run_module('covidscan.{command}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'jax' not in sys.modules and 'tensorflow_datasets' not in sys.modules, 'imported'\n"
        "from absl import flags\n"
        "defined = flags.FLAGS.flags_by_module_dict()['covidscan.cli.flags']\n"
        "print('defined', *sorted(flag.name for flag in defined))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=runs.ROOT,
        env=runs.environment() | {"COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    shown, _, defined = done.stdout.rpartition("defined ")
    assert sorted(re.findall(r"^  --(\w+)", shown, re.MULTILINE)) == defined.split()
    assert re.search(r"^(Data|Network|Output|Run):$", shown, re.MULTILINE)
    assert f"\n  python -m covidscan.{command}" in shown
    for line in shown.splitlines():
        assert len(line) <= 80 or "python -m" in line
    assert not re.search(r"\n  --.*\n      .*\n      ", shown)  # a third line


@pytest.mark.alone
@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_within_a_second(command):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert "--flagfile" in runs.run(command, "--help").stdout
        seconds.append(time.perf_counter() - start)
    assert statistics.median(seconds) <= 1


def test_help_names_defaults_and_choices():
    shown = " ".join(runs.run("train", "--help").stdout.split())
    assert "--batch_size Global batch size: studies per step, over all devices of all hosts. [8]" in shown
    assert "--on_bad_study=<stop|skip> Action for a study that cannot be used" in shown
    assert "--mixup Alpha of the Beta distribution of mixup; 0: no mixup. [0.0]" in shown
    assert "Required: --workdir Data:" in shown


def test_help_may_be_cut_off_by_its_reader():
    line = f"{sys.executable} -m covidscan.train --help | (read -r first; echo $first); echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=runs.ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["Training of a network: records -> batches -> steps -> checkpoints.", "0"]
    assert done.stderr == ""


NOTHING = {
    "train": "give --workdir, as in: python -m covidscan.train --flagfile=full.flags --workdir=runs/full",
    "evaluate": "give --workdir, as in: python -m covidscan.evaluate --workdir=runs/full",
    "predict": "give --workdir or --model and PATH …, as in: python -m covidscan.predict --workdir=runs",
    "localise": "give --workdir, as in: python -m covidscan.localise --workdir=runs/full",
    "detectability": "give --workdir and SCAN …, as in: python -m covidscan.detectability --workdir=",
    "compare": "give RUN RUN …, as in: python -m covidscan.compare runs/first runs/second",
    "build": "give --dataset, as in: python -m covidscan.build --dataset=mosmed/128x128x32 --manual_dir=MosMedData",
    "inspect": "give FOLDER|TABLE, as in: python -m covidscan.inspect --output_dir=inspection STUDIES",
    "export": "give --workdir and --output, as in: python -m covidscan.export --workdir=runs/full --output=models/full",
}
WRONG = {
    "--wrkdir=a": "--wrkdir: there is no such flag. Did you mean --workdir?",
    "--batch_size=0": "--batch_size=0: 0 is not a positive integer",
    "--epochs=two": "--epochs=two: it is not a whole number",
    "--flagfile=absent": "--flagfile=absent: No such file or directory",
    "--dataset=ct_phantom/128x128": "--dataset=ct_phantom/128x128: ct_phantom has no configuration '128x128'. Did you "
    "mean ct_phantom/128x128x32",
    "runs/full": "'runs/full' is not a flag: flags begin with --",
    "--epochs": "--epochs: give a value, as in --epochs=VALUE",
    "--size=smal": "--size=smal: give one of patches, tiny, small, base, large. Did you mean small?",
    "--model=lungresnet": "--model=lungresnet: give lung_resnet, covidscan_cnn, resnet3d18, densenet3d121, keras_cnn, "
    "or your own network as package.module:factory. Did you mean lung_resnet or",
    "--flagfile=ful.flags": "--flagfile=ful.flags: No such file or directory: give a file, or a preset: ",
}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        *(([command], message) for command, message in NOTHING.items()),
        *((["train", "--workdir=a", flag], message) for flag, message in WRONG.items()),
        (["compare", "a"], "give RUN RUN …, as in: python -m covidscan.compare runs/first runs/second"),
        (["inspect", "a", "b"], "'b' is one too many: give one FOLDER|TABLE at a time"),
        (["benchmark", "--grid=64x64"], "--grid=64x64: write ROWSxCOLUMNSxSLICES"),
    ],
    ids=[*NOTHING, *WRONG, "one run", "two folders", "a grid"],
)
def test_a_mistake_ends_in_one_line_before_jax_is_imported(line, message, tmp_path):
    code = "raise ImportError('JAX is imported')"
    (tmp_path / "jax.py").write_text(code)
    command, *flags = line
    done = subprocess.run(
        [sys.executable, "-m", f"covidscan.{command}", *flags],
        cwd=runs.ROOT,
        env=runs.environment() | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (error,) = done.stderr.splitlines()
    assert error.startswith(f"error: {message}")
