"""Flags of all commands, defined and read in `main` only. Those of an experiment are the fields of Config."""

import dataclasses
import math
import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl import flags

from covidscan.config import (
    AUGMENTATION_LEVELS,
    WITH_FOLDS,
    Config,
    DataPaths,
    ProcessGroup,
    check_folds,
    check_model,
    parse_crops,
)
from tfds_mosmed.dataset_names import check_name
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.grid import Grid

if TYPE_CHECKING:
    from tfds_mosmed.insertion.lesion import Lesion

FLAGS = flags.FLAGS
OF_LABELS = ("class_balance", "label_smoothing", "operating_point", "target_sensitivity", "cost_ratio")


def _parse_windows(pairs: list[str]) -> tuple[tuple[float, float], ...]:
    """Parse LEVEL:WIDTH pairs.

    Raises:
      flags.IllegalFlagValueError: a pair is not two numbers, or a width is not positive.
    """
    try:
        windows = tuple((float(level), float(width)) for level, width in (pair.split(":") for pair in pairs))
    except ValueError:
        windows = ()
    if not windows or not all(math.isfinite(level) and 0 < width < math.inf for level, width in windows):
        raise flags.IllegalFlagValueError(f"--windows={','.join(pairs)} must be LEVEL:WIDTH[,LEVEL:WIDTH…] in HU")
    return windows


def all_folds() -> bool:
    """Return whether --fold=all is given, for a run of each fold; Config then has the first."""
    return FLAGS.fold == "all"


def _parse_fold(fold: str) -> int:
    """Parse a number from 0; "all" becomes 0."""
    if fold != "all" and not fold.isdecimal():
        raise flags.IllegalFlagValueError(f"--fold={fold} must be a number from 0, or all")
    return 0 if fold == "all" else int(fold)


def _check(name: str, check: Callable[[str], Any]) -> None:
    """Refuse a value of a flag for which `check` raises UserError, before anything is imported that is slow."""

    def is_valid(value: str | None) -> bool:
        if value is not None:
            try:
                check(value)
            except UserError as error:
                reason = str(error).removeprefix(f"--{name}={value}: ").removeprefix(f"{name} {value!r}: ")
                raise flags.ValidationError(reason) from error
        return True

    flags.register_validator(name, is_valid)


def _check_finite(name: str) -> None:
    """Refuse nan, which passes all bounds, and inf."""
    message = "must be a finite number"
    flags.register_validator(name, lambda value: value is None or math.isfinite(value), message)


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
        if not integer:
            _check_finite(name)


def define_config() -> None:
    """Define a flag for each field of Config."""
    for field in dataclasses.fields(Config):
        _define_field(field)
    _check("dataset", check_name)
    _check("model", check_model)


def _size() -> str:
    """Return --size; of other networks than lung_resnet its default, as presets name a size and these have none."""
    if FLAGS["size"].present and FLAGS.model != "lung_resnet":
        print(f"--size={FLAGS.size} is left out: --model={FLAGS.model} has no sizes", file=sys.stderr)
        return Config.size
    return FLAGS.size


def _check_operating_point() -> None:
    """Raise flags.IllegalFlagValueError where flags of the threshold would have no effect."""
    needs = {"target_sensitivity": "sensitivity", "cost_ratio": "cost"}
    for name, value in ((name, FLAGS[name].value) for name in ("operating_point", *needs)):
        if not FLAGS[name].present or value == FLAGS[name].default:
            continue
        if FLAGS.task == "classes":
            raise flags.IllegalFlagValueError(
                f"--{name}={value} is of a threshold, and --task=classes predicts the likeliest label: leave it out"
            )
        if name in needs and FLAGS.operating_point != needs[name]:
            raise flags.IllegalFlagValueError(
                f"--{name}={value} needs --operating_point={needs[name]}, not {FLAGS.operating_point}"
            )


def config() -> Config:
    """Return Config from the parsed flags.

    Raises:
      flags.IllegalFlagValueError: flags contradict each other.
      UserError: likewise.
    """
    values: dict[str, Any] = {field.name: FLAGS[field.name].value for field in dataclasses.fields(Config)}
    values["size"] = _size()
    values |= {
        name: value for name, value in AUGMENTATION_LEVELS[FLAGS.augmentation].items() if not FLAGS[name].present
    }
    values["windows"] = _parse_windows(values["windows"])
    values["fold"] = _parse_fold(values["fold"])
    if FLAGS["fold"].present and FLAGS.protocol not in WITH_FOLDS:
        raise flags.IllegalFlagValueError(
            f"--fold={FLAGS.fold} needs --protocol={' or '.join(WITH_FOLDS)}, not --protocol={FLAGS.protocol}"
        )
    check_folds(FLAGS.protocol, FLAGS.num_folds, values["fold"])
    if all_folds() and FLAGS.protocol == "covidnet3d_cv":  # which have one test part, so nothing is out of fold
        raise flags.IllegalFlagValueError(
            "--fold=all needs folds with a test part each: train --fold=0, --fold=1, … in workdirs of their own, and "
            "evaluate --workdir=FOLD0,FOLD1,… as an ensemble"
        )
    if FLAGS.task == "regression":
        for name in OF_LABELS:
            if FLAGS[name].present and FLAGS[name].value != FLAGS[name].default:
                raise flags.IllegalFlagValueError(
                    f"--{name}={FLAGS[name].value} is for classes, and --task=regression predicts numbers: leave it out"
                )
    if FLAGS.lesion_crops:
        parse_crops(FLAGS.lesion_crops)
        if FLAGS.task != "binary":
            raise flags.IllegalFlagValueError(
                f"--lesion_crops={FLAGS.lesion_crops} needs --task=binary, not {FLAGS.task}: a crop shows a part "
                "of the disease"
            )
    _check_operating_point()
    values["negative_categories"] = tuple(values["negative_categories"])
    return Config(**values)


def define_workdir() -> None:
    """Define --workdir."""
    flags.DEFINE_string("workdir", None, "Folder of the run: config, checkpoints, logs, evaluations.")


def define_workdirs() -> None:
    """Define --workdir of a command that takes several runs."""
    flags.DEFINE_list(
        "workdir",
        None,
        "Workdir of the run, or of a cross-validation; of several runs, with commas, for an ensemble: means of "
        "probability and threshold.",
    )


DATA_DIR = "data"


def define_data(*, of_run: bool = False) -> None:
    """Define the folders of the data; `of_run`: those of a run are the default."""
    where = "Folder of the built records, in the layout of TFDS."
    if of_run:
        where += f" Default: the run's; {DATA_DIR} with --manual_dir or --table."
    flags.DEFINE_string("data_dir", None if of_run else DATA_DIR, where)
    flags.DEFINE_string(
        "manual_dir",
        None,
        "Folder of the raw studies, for data sets that are not downloaded: MosMedData, your own.",
    )
    flags.DEFINE_string(
        "table",
        None,
        "CSV file for ct_table, a row a study: path in --manual_dir, label; patient, site, fold, split, mask, weight.",
    )
    flags.DEFINE_enum(
        "on_bad_study",
        "stop",
        ["stop", "skip"],
        "Action for a study that cannot be used when records are built: stop, or skip it and list it.",
    )


def define_tracker() -> None:
    """Define the experiment tracker."""
    flags.DEFINE_enum(
        "tracker", None, ["wandb", "mlflow"], "Experiment tracker that gets configuration, metrics and report too."
    )


def data_paths() -> DataPaths:
    """Return DataPaths from the parsed flags."""
    # Empty flags after a preset take back its paths. Shells do not expand a ~ after --flag=.
    given = (FLAGS[name].value or "" for name in ("data_dir", "manual_dir", "table"))
    data_dir, manual_dir, table = map(os.path.expanduser, given)
    return DataPaths(data_dir or DATA_DIR, manual_dir or None, FLAGS.on_bad_study, table or None)


def define_process_group() -> None:
    """Define how the processes of a job find each other."""
    detected = "detected on Slurm, Open MPI, Kubernetes and TPU VMs"
    flags.DEFINE_string("coordinator_address", None, f"HOST:PORT of process 0 of a multi-process job; {detected}.")
    flags.DEFINE_integer("num_processes", None, f"Number of processes of the job; {detected}.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, f"Index of this process, from 0; {detected}.", lower_bound=0)
    flags.DEFINE_integer(
        "peer_timeout",
        300,
        "Seconds after which a process of a job ends if the others do not come, or no study, step or batch is done.",
        lower_bound=1,
    )


def process_group() -> ProcessGroup:
    """Return ProcessGroup from the parsed flags.

    Raises:
      flags.IllegalFlagValueError: only some of the flags are given, or they contradict each other.
    """
    given = ProcessGroup(FLAGS.coordinator_address, FLAGS.num_processes, FLAGS.process_id)
    missing = [f"--{name}" for name, value in given._asdict().items() if value is None]
    if 0 < len(missing) < len(given):
        raise flags.IllegalFlagValueError(
            f"{' and '.join(missing)}: give all three of --coordinator_address, --num_processes, --process_id, or none"
        )
    if FLAGS.coordinator_address is not None and not re.fullmatch(r".+:\d+", FLAGS.coordinator_address):
        raise flags.IllegalFlagValueError(f"--coordinator_address={FLAGS.coordinator_address} must be HOST:PORT")
    if FLAGS.process_id is not None and FLAGS.process_id >= FLAGS.num_processes:
        raise flags.IllegalFlagValueError(
            f"--process_id={FLAGS.process_id} must be from 0 to {FLAGS.num_processes - 1} with "
            f"--num_processes={FLAGS.num_processes}"
        )
    return given


def _define_checkpoint() -> None:
    flags.DEFINE_string("checkpoint", "best", "Checkpoint: best (by validation AUROC), latest, or a step.")


def _define_prevalence() -> None:
    flags.DEFINE_float(
        "prevalence",
        None,
        "Share of diseased studies in a clinic, to which predictions of --task=binary are adapted.",
        lower_bound=0.001,
        upper_bound=0.999,
    )
    _check_finite("prevalence")


def _define_tta() -> None:
    flags.DEFINE_enum(
        "tta",
        None,
        ["mirror", "full"],
        "Test-time augmentation, with a threshold of its own: mean logits with the mirror image; full: with shifted "
        "and resized ones too.",
    )


def define_evaluation() -> None:
    """Define checkpoint, studies and options of an evaluation."""
    flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Part of the run's own data set.")
    _define_checkpoint()
    flags.DEFINE_string(
        "dataset", None, "External test on all studies of another data set with the same grid, NAME/CONFIG."
    )
    _check("dataset", check_name)
    flags.DEFINE_string("metadata", None, "CSV file with a column study_id; each other column defines subgroups.")
    flags.DEFINE_string("compare", None, "Workdir of another run, evaluated on the same studies, for a paired test.")
    flags.DEFINE_list(
        "repeats",
        [],
        "Workdirs of runs with other seeds, evaluated on the same studies, for the mean and spread with this run.",
    )
    _define_prevalence()
    _define_tta()
    flags.DEFINE_bool(
        "verify",
        False,
        "Write nothing; compute operating point, predictions and metrics again, and fail where the stored ones differ.",
    )


def define_networks() -> None:
    """Define the trained networks that predict."""
    define_workdirs()
    _define_checkpoint()


def define_output() -> None:
    """Define where and how a model is exported."""
    flags.DEFINE_string("output", None, "Folder of the exported model, which is created.")
    _define_tta()
    flags.DEFINE_bool(
        "hub_card", False, "Write a model card with metadata and safetensors too, for the Hugging Face Hub."
    )


def define_localise() -> None:
    """Define the networks whose saliency maps are compared with lesion masks."""
    _define_checkpoint()
    flags.DEFINE_string(
        "shuffled_workdir",
        None,
        "Workdir of a negative control: trained with --shuffle_labels on the same studies.",
    )


def define_compare() -> None:
    """Define the output of a comparison of runs."""
    flags.DEFINE_string("output_dir", "comparison", "Folder of the page; an earlier comparison in it is replaced.")


DIAMETERS_MM, DENSITIES_HU = (5.0, 40.0), (-800.0, 30.0)


def define_detectability() -> None:
    """Define the lesions that are inserted into scans."""
    _define_checkpoint()
    flags.DEFINE_list("diameters", ["5", "7", "10", "14", "20", "28", "40"], "Diameters of the lesions, mm, 5 to 40.")
    flags.DEFINE_list(
        "densities",
        ["-700", "-550", "-20"],
        "Densities of the lesions, HU, -800 to 30; of reversed halos, that inside the ring.",
    )
    flags.DEFINE_list(
        "kinds",
        [],
        "Kinds of the lesions: ground_glass, consolidation, reversed_halo. Default: by density, ground glass, from "
        "-300 HU on consolidation.",
    )
    flags.DEFINE_integer(
        "places", 4, "Places in each scan, at which every lesion is inserted.", lower_bound=1, upper_bound=20
    )
    flags.DEFINE_string("output_dir", None, "Folder of the results. Default: detectability in the workdir.")


def lesions() -> "list[Lesion]":
    """Return the lesions to be inserted, from the parsed flags.

    Raises:
      flags.IllegalFlagValueError: a value is not a number, out of its range, or no kind.
    """
    from tfds_mosmed.insertion.lesion import CONSOLIDATION_HU, KINDS, Lesion  # imported lazily: SciPy is slow to import

    diameters, densities = _parse_numbers("diameters", *DIAMETERS_MM), _parse_numbers("densities", *DENSITIES_HU)
    kinds = list(dict.fromkeys(FLAGS.kinds or []))
    if not set(kinds) <= set(KINDS):
        raise flags.IllegalFlagValueError(f"--kinds={','.join(kinds)} must be of {', '.join(KINDS)}, with commas")
    if "reversed_halo" in kinds and densities[-1] >= CONSOLIDATION_HU:
        raise flags.IllegalFlagValueError(
            f"--kinds=reversed_halo needs --densities below {CONSOLIDATION_HU:g}, inside the ring"
        )
    return [
        Lesion(diameter, density, stated_kind=kind)
        for density in densities
        for kind in kinds or [None]
        for diameter in diameters
    ]


def _parse_numbers(name: str, least: float, most: float) -> list[float]:
    """Parse the numbers of a flag, each once, rising."""
    given: list[str] = FLAGS[name].value or []
    try:
        numbers = sorted({float(each) for each in given})
    except ValueError:
        numbers = []
    if not numbers or not all(least <= number <= most for number in numbers):
        shown = ",".join(given)
        raise flags.IllegalFlagValueError(f"--{name}={shown} must be numbers from {least:g} to {most:g}, with commas")
    return numbers


def define_predict() -> None:
    """Define model and output of predictions."""
    define_networks()
    flags.DEFINE_string(
        "model",
        None,
        "Folder that covidscan.export wrote, instead of --workdir; a program: use only one whose origin you trust.",
    )
    flags.DEFINE_string("expect_sha256", None, "SHA-256 that --model must have, as its export printed it.")
    _define_prevalence()
    _define_tta()
    flags.DEFINE_string(
        "output_dir",
        None,
        "Folder for predictions.csv or .jsonl and explanations; where an earlier call wrote, only missing studies are "
        "predicted. Default: stdout.",
    )
    flags.DEFINE_enum(
        "format",
        None,
        ["csv", "json"],
        "One row of CSV, or one line of JSON, per study. Default: csv; on a terminal, lines for a reader.",
    )
    flags.DEFINE_bool(
        "explain",
        False,
        "Write saliency maps of each study too: NIfTI on the grid of the study, a picture and a page; index.html lists "
        "them.",
    )
    flags.DEFINE_bool(
        "save_maps",
        False,
        "Write lungs and lesions (evidence, of a network trained without masks) as NIfTI, and the percentage of lung "
        "involved as JSON.",
    )
    flags.DEFINE_bool(
        "embeddings", False, "Write what the last layer of the network sees of each study, to embeddings.npz."
    )
    flags.DEFINE_bool(
        "dicom",
        False,
        "Write a DICOM segmentation and structured report (TID 1500) of each study in DICOM format, with its patient.",
    )


def define_build() -> None:
    """Define data set and Beam options of a build."""
    flags.DEFINE_string("dataset", Config.dataset, "TFDS data set and config, NAME/CONFIG.")
    _check("dataset", check_name)
    flags.DEFINE_list(
        "beam_options",
        [],
        "Options of an Apache Beam pipeline, such as runner=DirectRunner. Default: no Beam, all cores of this host.",
    )
    flags.DEFINE_bool(
        "update",
        False,
        "Replace records of studies that have changed since; only new and changed studies are prepared.",
    )


def define_inspect() -> None:
    """Define the folder of a table's studies, and the output of an inspection."""
    flags.DEFINE_string("manual_dir", None, "Folder that the paths in a table are relative to. Default: the table's.")
    flags.DEFINE_string("output_dir", "inspection", "Folder of the page, the contact sheet and the table of studies.")


BENCHMARKED = ("model", "size", "width", "dtype", "batch_size")  # fields of Config


def define_benchmark() -> None:
    """Define network, grid and output of a benchmark."""
    for field in dataclasses.fields(Config):
        if field.name in BENCHMARKED:
            _define_field(field)
    _check("model", check_model)
    flags.DEFINE_string("grid", "128x128x32", "Grid of the studies, ROWSxCOLUMNSxSLICES.")
    _check("grid", Grid.parse)
    flags.DEFINE_string("output", "benchmark.json", "JSON file of the results; an existing one is overwritten.")
    flags.DEFINE_string(
        "topology",
        None,
        "TPUs or GPUs to compile for, as v5e:4x4 or h100:8: bounds of the speed; --batch_size is 8 a chip by default.",
    )


def benchmark_config() -> Config:
    """Return the Config of a benchmark; fields without a flag have their defaults."""
    values: dict[str, Any] = {name: FLAGS[name].value for name in BENCHMARKED} | {"size": _size()}
    return Config(**values)


def batch_size_is_given() -> bool:
    """Return whether --batch_size is on the command line."""
    return FLAGS["batch_size"].present > 0
