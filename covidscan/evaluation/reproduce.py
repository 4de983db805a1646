"""The commands that give an evaluation again, as the report shows them."""

import dataclasses
import shlex
from typing import Any

from covidscan.config import Config, DataPaths
from covidscan.evaluation.evaluation_set import EvaluationOptions, EvaluationSet
from covidscan.runs.workdir import OUT_OF_FOLD
from covidscan.trained_models.restore import RestoredModel


def which(judged: EvaluationSet) -> str:
    """Write the flags that say which studies are judged."""
    if judged.part == OUT_OF_FOLD:
        return ""
    if not judged.external:
        return f" --split={judged.part}"
    return f" --dataset={judged.studies.dataset.partition('@')[0]}"


def commands(judged: EvaluationSet, network: RestoredModel, wishes: EvaluationOptions) -> list[str]:
    """Write the commands that give these figures again: training, evaluation, and the check of what stands."""
    config, paths = network.experiment.config, network.run["paths"]
    usual = Config().to_json()
    flags = {name: value for name, value in config.to_json().items() if value != usual[name]}
    if "windows" in flags:
        flags["windows"] = [f"{level:g}:{width:g}" for level, width in flags["windows"]]
    if judged.workdir != network.workdir:
        flags["fold"] = "all"
    train = flags | {"workdir": str(judged.workdir)} | _given(paths, DataPaths(data_dir="data"))
    judge = {
        "workdir": str(judged.workdir),
        **({} if judged.part == OUT_OF_FOLD else {"checkpoint": judged.checkpoint}),
    }
    elsewhere = dataclasses.asdict(judged.paths) if judged.paths else paths
    judge |= {} if elsewhere == paths else _given(elsewhere, DataPaths(data_dir=""))
    asked = {name: value for name, value in wishes._asdict().items() if value and name != "verify"}
    evaluate = _command("evaluate", judge | asked) + which(judged)
    return [_command("train", train), evaluate, f"{evaluate} --verify"]


def _given(paths: dict[str, Any], usual: DataPaths) -> dict[str, Any]:
    return {name: value for name, value in paths.items() if value != getattr(usual, name)}


def _command(name: str, flags: dict[str, Any]) -> str:
    texts = {
        flag: ",".join(map(str, value)) if isinstance(value, list | tuple) else value for flag, value in flags.items()
    }
    return shlex.join(["python", "-m", f"covidscan.{name}", *(f"--{flag}={text}" for flag, text in texts.items())])
