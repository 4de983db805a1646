"""Presets: all their flags exist, and they are the recipes that they name."""

import subprocess
import sys

import pytest

from tests.support import runs

PRESETS = [
    "full.flags",
    *sorted(
        str(path.relative_to(runs.ROOT))
        for folder in ("covidscan/presets", "tests/transfer/recipes")
        for path in runs.ROOT.glob(f"{folder}/*.flags")
    ),
]
SHOW = (
    "import sys; from absl import flags as absl_flags; from covidscan.cli import flagfiles, flags\n"
    "flags.define_config(); flags.define_workdir(); flags.define_data()\n"
    "absl_flags.FLAGS(sys.argv[:1] + flagfiles.expand(sys.argv[1:]))\n"
    "print(flags.config(), flags.data_paths())\n"
)


def _resolved(*flags: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SHOW, *flags], cwd=runs.ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_parses_and_the_last_value_wins(preset):
    assert "seed=7" in _resolved(f"--flagfile={preset}", "--workdir=w", "--seed=7")


@pytest.mark.parametrize(
    ("preset", "dataset", "epochs"),
    [("covidscan_sample", "mosmed/sample_64x64x32_full", 10), ("covidscan_full", "mosmed/64x64x32_full", 30)],
)
def test_covidscan_presets_are_the_recipe_of_the_original_covidscan(preset, dataset, epochs):
    config = _resolved(f"--flagfile={preset}.flags")
    for part in (
        f"dataset='{dataset}'",
        f"epochs={epochs}",
        "model='covidscan_cnn'",
        "optimizer='adam'",
        "learning_rate=0.0001",
        "schedule='constant'",
        "batch_size=2",
        "windows=((-300.0, 1400.0),)",
        "protocol='holdout'",
    ):
        assert part in config


def test_full_flags_trains_on_all_of_mosmed():
    config = _resolved("--flagfile=full.flags")
    assert "dataset='mosmed/128x128x32'" in config
    assert "manual_dir='MosMedData'" in config
