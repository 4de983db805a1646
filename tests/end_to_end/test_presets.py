"""Presets: all their flags exist, and they are the recipes that they name."""

import subprocess
import sys
from pathlib import Path

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


def test_an_empty_flag_takes_back_the_path_of_a_preset():
    assert "manual_dir='MosMedData'" in _resolved("--flagfile=full.flags")
    assert "manual_dir=None" in _resolved("--flagfile=full.flags", "--manual_dir=")


def test_a_path_may_begin_with_the_home_folder():
    assert f"manual_dir='{Path.home()}/studies'" in _resolved("--manual_dir=~/studies", "--workdir=w")


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


ACCELERATOR_RECIPE = (
    "dataset='mosmed/256x256x40'",
    "model='lung_resnet'",
    "size='base'",
    "batch_size=16",
    "epochs=60",
    "manual_dir='MosMedData'",
)
STEP_FLOP = 3.371e12  # a study's of a training step, as `flop_per_volume` counts


def _parts_of_mosmed(protocol: str, fold: int = 0) -> dict[str, list[str]]:
    """Return the categories of the studies of each part."""
    listed = mosmed_files.read_list().values()
    ids, categories = [study.study_id for study in listed], [study.category for study in listed]
    published = {study.study_id: study.covidnet3d_split for study in listed}
    parts = splits.assign_parts(ids, categories, protocol, seed=0, num_folds=5, fold=fold, published=published)
    return {part: [categories[row] for row in rows] for part, rows in parts.items()}


@pytest.mark.parametrize(
    ("preset", "protocol", "operating_point"),
    [("full", "holdout", "youden"), ("mosmed_public", "covidnet3d", "accuracy")],
)
def test_a_preset_of_mosmed_is_as_costly_as_it_says(preset, protocol, operating_point):
    text = (runs.ROOT / f"covidscan/presets/{preset}.flags").read_text()
    config = _resolved(f"--flagfile={preset}.flags")
    for part in (*ACCELERATOR_RECIPE, f"protocol='{protocol}'", f"operating_point='{operating_point}'"):
        assert part in config
    parts = _parts_of_mosmed(protocol)
    train, validation, test = (len(parts[name]) for name in ("train", "validation", "test"))
    cost = f"{train} training and {validation} validation studies, {60 * train // 16} steps of 16 studies"
    assert f"{cost}, {60 * train * STEP_FLOP / 1e18:.2f} EFLOP" in text
    if protocol == "covidnet3d":
        assert f"{test - parts['test'].count('CT-0')} of the {test} are positive" in text


def test_the_preset_of_an_ensemble_is_as_costly_as_it_says():
    text = (runs.ROOT / "covidscan/presets/mosmed_best.flags").read_text().replace("\n# ", " ")
    config = _resolved("--flagfile=mosmed_best.flags", "--fold=4", "--workdir=w")
    for part in (
        *ACCELERATOR_RECIPE,
        "protocol='covidnet3d_cv'",
        "num_folds=5",
        "fold=4",
        "operating_point='accuracy'",
    ):
        assert part in config
    folds = [_parts_of_mosmed("covidnet3d_cv", fold) for fold in range(5)]
    train = [len(parts["train"]) for parts in folds]
    validation = sorted({len(parts["validation"]) for parts in folds}, reverse=True)
    sizes = f"{min(train)} or {max(train)} training and {' or '.join(map(str, validation))} validation studies"
    assert f"{sizes}, {sum(60 * size // 16 for size in train)} steps" in text
    assert f"{60 * sum(train) * STEP_FLOP / 1e18:.2f} EFLOP" in text


def test_a_preset_with_a_size_trains_other_networks_too():
    arguments = ("--flagfile=mosmed_public.flags", "--model=resnet3d18")
    done = subprocess.run([sys.executable, "-c", SHOW, *arguments], cwd=runs.ROOT, capture_output=True, text=True)
    assert "model='resnet3d18', size='patches'" in done.stdout
    assert "--size=base is left out: --model=resnet3d18 has no sizes\n" in done.stderr
