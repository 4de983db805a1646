"""The commands that reproduce an evaluation."""

import dataclasses
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from covidscan.config import AUGMENTATION_LEVELS, Config
from covidscan.evaluation import provenance


@pytest.mark.parametrize("level", AUGMENTATION_LEVELS)
def test_the_command_of_the_training_has_what_differs_from_its_level_of_augmentation(level):
    """A flag that was given the default of medium is not what another level sets."""
    config = dataclasses.replace(Config(augmentation=level), **AUGMENTATION_LEVELS[level])
    usual, own = (dataclasses.replace(config, **changes) for changes in ({}, {"rotation": 8.0, "cutmix": 0.0}))
    for given in (usual, own):
        network = SimpleNamespace(
            experiment=SimpleNamespace(config=given), run={"paths": {"data_dir": "data"}}, workdir=Path("w")
        )
        command = shlex.split(provenance._training(network, Path("w")))  # type: ignore[arg-type]
        flags = dict(part.removeprefix("--").split("=") for part in command[3:])
        augmented = AUGMENTATION_LEVELS[flags.get("augmentation", "medium")]
        resolved = {name: float(flags.get(name, value)) for name, value in augmented.items()}
        assert dataclasses.replace(given, **resolved) == given
