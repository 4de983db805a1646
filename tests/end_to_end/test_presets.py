"""Presets: all their flags exist, and they are the recipes that they name."""

import subprocess
import sys

import pytest

from covidscan.data import splits
from tests.support import runs
from tfds_mosmed.mosmed import mosmed_files

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


def test_a_level_of_augmentation_yields_to_flags_that_are_given():
    config = _resolved("--augmentation=strong", "--noise=0", "--mixup=0.2", "--workdir=w")
    for part in ("augmentation='strong'", "crop=0.3", "cutmix=0.5", "noise=0.0", "mixup=0.2", "flip=0.5"):
        assert part in config
    assert "scale=0.1, shift=0.05, rotation=8.0, crop=0.0, blur=0.7" in _resolved("--workdir=w")


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


def test_the_public_split_has_a_preset_that_is_as_costly_as_it_says():
    text = (runs.ROOT / "covidscan/presets/mosmed_public.flags").read_text()
    config = _resolved("--flagfile=mosmed_public.flags")
    for part in ("protocol='covidnet3d'", "operating_point='accuracy'", "batch_size=16", "epochs=60"):
        assert part in config
    listed = mosmed_files.read_list().values()
    ids, categories = [study.study_id for study in listed], [study.category for study in listed]
    published = {study.study_id: study.covidnet3d_split for study in listed}
    parts = splits.assign_parts(ids, categories, "covidnet3d", seed=0, num_folds=5, fold=0, published=published)
    train, validation = (len(parts[name]) for name in ("train", "validation"))
    assert f"{train} training and {validation} validation studies, {60 * train // 16} steps of 16 studies" in text
    positive = sum(categories[row] != "CT-0" for row in parts["test"])
    assert f"{positive} of the {len(parts['test'])} are positive" in text
