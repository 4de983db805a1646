"""The flags of every command, defined and read in `main` only; those of an experiment are the fields of Config."""

import dataclasses
from typing import Any

from absl import flags

from covidscan.config import Config, DataPaths, ProcessGroup

FLAGS = flags.FLAGS


def _parse_windows(pairs: list[str]) -> tuple[tuple[float, float], ...]:
    """Read LEVEL:WIDTH pairs.

    Raises:
      flags.IllegalFlagValueError: a pair is not two numbers, or a width is not positive.
    """
    try:
        windows = tuple((float(level), float(width)) for level, width in (pair.split(":") for pair in pairs))
    except ValueError:
        windows = ()
    if not windows or any(width <= 0 for _, width in windows):
        raise flags.IllegalFlagValueError(f"--windows={','.join(pairs)}: give LEVEL:WIDTH[,LEVEL:WIDTH…] in HU")
    return windows


def all_folds() -> bool:
    """Tell whether --fold=all asks for a run of each fold; Config then holds the first."""
    return FLAGS.fold == "all"


def _parse_fold(fold: str) -> int:
    """Read a number; 0 for "all"."""
    if fold != "all" and not fold.isdecimal():
        raise flags.IllegalFlagValueError(f"--fold={fold}: give a number from 0, or all")
    return 0 if fold == "all" else int(fold)


def _define_field(field: dataclasses.Field) -> None:
    """Define the flag of a field of Config."""
    name, about = field.name, field.metadata
    default: Any = field.default
    if name == "windows":
        shown = [f"{level:g}:{width:g}" for level, width in Config.windows]
        flags.DEFINE_list(name, shown, about["help"])
    elif name == "fold":
        flags.DEFINE_string(name, str(default), about["help"])
    elif about["choices"]:
        flags.DEFINE_enum(name, default, about["choices"], about["help"])
    elif isinstance(default, tuple):
        flags.DEFINE_list(name, list(default), about["help"])
    elif isinstance(default, str):
        flags.DEFINE_string(name, default, about["help"])
    elif isinstance(default, bool):
        flags.DEFINE_bool(name, default, about["help"])
    else:
        integer = field.type in (int, int | None)
        define = flags.DEFINE_integer if integer else flags.DEFINE_float
        define(name, default, about["help"], lower_bound=about["least"], upper_bound=about["most"])


def define_config() -> None:
    """Define a flag for each field of Config."""
    for field in dataclasses.fields(Config):
        _define_field(field)


def config() -> Config:
    """Read Config from the parsed flags."""
    values: dict[str, Any] = {field.name: FLAGS[field.name].value for field in dataclasses.fields(Config)}
    values["windows"] = _parse_windows(values["windows"])
    values["fold"] = _parse_fold(values["fold"])
    if FLAGS["fold"].present and FLAGS.protocol != "kfold":
        raise flags.IllegalFlagValueError(
            f"--fold={FLAGS.fold} needs folds, --protocol={FLAGS.protocol} has none: use --protocol=kfold"
        )
    values["negative_categories"] = tuple(values["negative_categories"])
    return Config(**values)


def define_workdir() -> None:
    """Define --workdir, the run."""
    flags.DEFINE_string("workdir", None, "Folder of the run: config, checkpoints, logs, evaluations.", required=True)


def define_data() -> None:
    """Define where data are and what happens to bad studies."""
    flags.DEFINE_string("data_dir", "data", "Folder of the built records, as TFDS lays them out.")
    flags.DEFINE_string(
        "manual_dir",
        None,
        "Folder of the raw studies, for data sets that cannot be downloaded: MosMedData, your own.",
    )
    flags.DEFINE_enum(
        "on_bad_study",
        "stop",
        ["stop", "skip"],
        "What a study that cannot be used does to the building of records: stop it, or be listed and left out.",
    )


def data_paths() -> DataPaths:
    """Read DataPaths from the parsed flags."""
    return DataPaths(FLAGS.data_dir, FLAGS.manual_dir, FLAGS.on_bad_study)


def define_hosts() -> None:
    """Define how the processes of a job find each other."""
    launchers = "Slurm, Open MPI, Kubernetes and TPU VMs announce this themselves"
    flags.DEFINE_string("coordinator_address", None, f"HOST:PORT of process 0 of a job of several; {launchers}.")
    flags.DEFINE_integer("num_processes", None, f"Processes of the job; {launchers}.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, f"Which process this is, from 0; {launchers}.", lower_bound=0)


def coordinates() -> ProcessGroup:
    """Read Coordinates from the parsed flags.

    Raises:
      flags.IllegalFlagValueError: some are given and others are not, or they contradict each other.
    """
    given = ProcessGroup(FLAGS.coordinator_address, FLAGS.num_processes, FLAGS.process_id)
    missing = [f"--{name}" for name, value in given._asdict().items() if value is None]
    if 0 < len(missing) < len(given):
        raise flags.IllegalFlagValueError(f"{' and '.join(missing)}: give all three of the coordinates, or none")
    if FLAGS.process_id is not None and FLAGS.process_id >= FLAGS.num_processes:
        raise flags.IllegalFlagValueError(
            f"--process_id={FLAGS.process_id} must be from 0 to {FLAGS.num_processes - 1} with "
            f"--num_processes={FLAGS.num_processes}"
        )
    return given


def _define_checkpoint() -> None:
    flags.DEFINE_string("checkpoint", "best", "best (by validation AUROC), latest, or a step.")


def define_judged() -> None:
    """Define what is judged: which checkpoint, on which studies."""
    flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Part of the run's own data set to judge on.")
    _define_checkpoint()
    flags.DEFINE_string(
        "dataset", None, "Another data set of the same grid, NAME/CONFIG: an external test on all of its studies."
    )


def define_networks(*, required: bool) -> None:
    """Define which trained networks answer."""
    flags.DEFINE_list(
        "workdir",
        None,
        "Workdir of the run whose network answers. Of several, and of a cross-validation, all networks answer "
        "together: probability and threshold are their means.",
        required=required,
    )
    _define_checkpoint()


def define_output() -> None:
    """Define --output, where a model is exported to."""
    flags.DEFINE_string("output", None, "Folder of the exported model; it is made.", required=True)


def define_localise() -> None:
    """Define which networks' maps are held against lesion masks."""
    _define_checkpoint()
    flags.DEFINE_string(
        "shuffled_workdir", None, "Workdir of a run trained with --shuffle_labels on the same studies: a control."
    )


def define_wishes() -> None:
    """Define what an evaluation tells besides the figures."""
    flags.DEFINE_string(
        "metadata", None, "CSV file with a column study_id; figures are given for groups by each other column."
    )
    flags.DEFINE_string(
        "compare", None, "Workdir of another run that was evaluated on the same studies: is one of the two better?"
    )
    flags.DEFINE_list(
        "repeats",
        [],
        "Workdirs of runs with other seeds, evaluated on the same studies: mean and spread with this one.",
    )
    flags.DEFINE_bool(
        "verify",
        False,
        "Write no evaluation; compute choices, predictions and figures again, and fail where the stored ones differ.",
    )


def define_predict() -> None:
    """Define who answers, and how."""
    define_networks(required=False)
    flags.DEFINE_string("model", None, "Folder that python -m covidscan.export made, in the place of --workdir.")
    flags.DEFINE_bool("tta", False, "Test-time augmentation: the mean over each study and its mirror image.")
    flags.DEFINE_string("output_dir", None, "Folder for predictions.csv or .jsonl and explanations; unset: stdout.")
    flags.DEFINE_enum("format", "csv", ["csv", "json"], "A row of CSV or a line of JSON a study.")
    flags.DEFINE_bool(
        "explain",
        False,
        "For each study also maps of what speaks for the disease, as NIfTI over the study, a picture and a page.",
    )


def define_build() -> None:
    """Define what is built, and on what."""
    flags.DEFINE_string("dataset", Config.dataset, "TFDS data set and config, NAME/CONFIG.")
    flags.DEFINE_list(
        "beam_options",
        [],
        "Options of an Apache Beam pipeline, as in runner=DirectRunner; unset: all cores of this host build.",
    )


BENCHMARKED = ("model", "width", "dtype", "batch_size")  # fields of Config


def define_benchmark() -> None:
    """Define what is measured, and where the figures go."""
    for field in dataclasses.fields(Config):
        if field.name in BENCHMARKED:
            _define_field(field)
    flags.DEFINE_string("grid", "128x128x32", "Grid of the studies, ROWSxCOLUMNSxSLICES.")
    flags.DEFINE_string("output", "benchmark.json", "JSON file of the figures; one that is there is replaced.")


def benchmarked() -> Config:
    """Read the Config that is measured: what has no flag is as a training has it by default."""
    values: dict[str, Any] = {name: FLAGS[name].value for name in BENCHMARKED}
    return Config(**values)
