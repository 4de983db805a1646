"""Every flag, once: its name, default, help and bounds. Read in `main` only; below it one frozen Config travels."""

import dataclasses
import json
from typing import Any, NamedTuple

from absl import flags

from tfds_mosmed.errors import UserError

FLAGS = flags.FLAGS


def _option(default: Any, help_text: str, *, least: float | None = None, most: float | None = None, choices=()) -> Any:
    """Declare a field of Config together with its flag's help, bounds or choices."""
    return dataclasses.field(
        default=default, metadata={"help": help_text, "least": least, "most": most, "choices": choices}
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """The flags that make an experiment what it is: two runs of equal Config and data set are the same run.

    Attributes are told of by `--help`; windows are pairs (level, width) in HU.
    """

    dataset: str = _option("ct_phantom/demo", "TFDS data set and config, NAME/CONFIG.")
    protocol: str = _option(
        "holdout",
        "How studies are split: 80/20 stratified, k folds, or the public 779/331 split of CovidNet3D (mosmed only).",
        choices=("holdout", "kfold", "covidnet3d"),
    )
    num_folds: int = _option(5, "Number of folds of --protocol=kfold.", least=3, most=100)
    fold: int = _option(
        0, "The fold tested by --protocol=kfold, the next one choosing the checkpoint; or all, one after the other."
    )
    split_seed: int = _option(0, "Seed of the split. Runs to be compared share it.", least=0)
    task: str = _option(
        "binary",
        "What is predicted: disease or not, ordered severity (CT-0, CT-1, CT-2, CT-3+4), or the folder's names.",
        choices=("binary", "severity", "classes"),
    )
    negative_categories: tuple[str, ...] = _option(
        ("CT-0", "normal"), "Categories that mean no disease in --task=binary; every other one is positive."
    )

    model: str = _option("lung_resnet", "Network.", choices=("lung_resnet", "covidscan_cnn"))
    width: int | None = _option(None, "Channels of the first stage; unset: the network's own (32, or 64).", least=1)
    dropout: float | None = _option(None, "Dropout rate; unset: the network's own (0.2, or 0.5).", least=0, most=0.95)
    windows: tuple[tuple[float, float], ...] = _option(
        ((-600.0, 1500.0), (40.0, 400.0), (-700.0, 500.0)),
        "HU windows, LEVEL:WIDTH each, one input channel a window. Default: lung, soft tissue, ground glass.",
    )
    dtype: str = _option(
        "auto",
        "Dtype of the computation; parameters are float32. auto: bfloat16 on accelerators, float32 on CPU.",
        choices=("auto", "float32", "bfloat16"),
    )

    seed: int = _option(0, "Seed of the parameters, the order of the data and the augmentation.", least=0)
    batch_size: int = _option(8, "Global batch: studies a step over all devices of all hosts together.", least=1)
    epochs: int = _option(30, "Passes over the training studies.", least=1)
    optimizer: str = _option("adamw", "Optimiser.", choices=("adamw", "adam"))
    learning_rate: float = _option(2e-3, "Highest learning rate.", least=0)
    weight_decay: float = _option(0.05, "AdamW's decoupled weight decay.", least=0)
    schedule: str = _option("cosine", "Learning rate after the warm-up.", choices=("cosine", "constant"))
    warmup: float = _option(0.1, "Share of all steps in which the learning rate rises linearly.", least=0, most=1)
    clip_norm: float = _option(1.0, "Global norm to which gradients are clipped; 0: not clipped.", least=0)
    label_smoothing: float = _option(0.05, "Share of a target spread over all labels.", least=0, most=0.9)
    ema_decay: float = _option(
        0.99,
        "Decay a step of the running mean of the parameters, which judges; 0: none is kept.",
        least=0,
        most=0.99999,
    )
    lesion_loss: float = _option(
        5.0,
        "Weight of what the network learns from lesion masks, in the studies that have one; 0: masks are not read. "
        "Networks without a map of lesions do not use it.",
        least=0,
        most=100,
    )
    class_balance: str = _option(
        "sampling",
        "Against rare labels: draw each label equally often, weigh the loss by inverse frequency, or do nothing.",
        choices=("sampling", "loss", "none"),
    )
    operating_point: str = _option(
        "youden",
        "What the threshold is chosen for, on the validation studies: the highest sensitivity + specificity, a stated "
        "sensitivity (--target_sensitivity), or the lowest cost (--cost_ratio).",
        choices=("youden", "sensitivity", "cost"),
    )
    target_sensitivity: float = _option(
        0.95, "Sensitivity that --operating_point=sensitivity asks for on the validation studies.", least=0.01, most=1
    )
    cost_ratio: float = _option(
        1.0,
        "What a false negative costs for --operating_point=cost, when a false positive costs 1.",
        least=0.001,
        most=1000,
    )
    early_stopping: int = _option(
        0, "Stop after this many evaluations without a better validation AUROC; 0: never.", least=0
    )

    flip: float = _option(0.5, "Probability of a left-right mirror image.", least=0, most=1)
    scale: float = _option(0.1, "Greatest relative change of size, each axis on its own.", least=0, most=0.5)
    shift: float = _option(0.05, "Greatest shift, as a share of each axis.", least=0, most=0.5)
    rotation: float = _option(8.0, "Greatest in-plane rotation, degrees.", least=0, most=45)
    blur: float = _option(0.7, "Greatest widening of the interpolation kernel, pixels.", least=0, most=4)
    intensity: float = _option(40.0, "Greatest shift of HU; contrast changes by a thousandth of it.", least=0, most=500)
    noise: float = _option(25.0, "Greatest standard deviation of added noise, HU.", least=0, most=500)
    mixup: float = _option(0.0, "Alpha of mixup's Beta distribution; 0: no mixup.", least=0, most=10)

    skip_nonfinite: bool = _option(
        False,
        "Leave out updates whose loss or gradient is not a number, and count them; unset: such a step stops the run.",
    )

    eval_every: int = _option(1, "Epochs between two evaluations on the validation studies.", least=1)
    checkpoint_every: int = _option(
        200, "Steps between two checkpoints, besides one at each evaluation. At most these are lost.", least=1
    )
    keep: int = _option(2, "Newest checkpoints that are kept, besides the best.", least=1)
    log_every: int = _option(10, "Steps between two lines of metrics.jsonl.", least=1)

    def to_json(self) -> dict[str, Any]:
        """Give the fields as JSON can hold them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Config":
        """Read what `to_json` gave.

        Raises:
          UserError: a field is missing or unknown: another version wrote it.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        if fields != set(values):
            differing = ", ".join(sorted(fields ^ set(values)))
            raise UserError(f"config.json was written by another version (differs in: {differing}): train again")
        frozen: dict[str, Any] = {name: _frozen(value) for name, value in values.items()}
        return cls(**frozen)


def _frozen(value: Any) -> Any:
    """Turn JSON's lists back into tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


# What a run may change when it resumes without becoming another experiment.
FREE_TO_CHANGE = ("checkpoint_every", "keep", "log_every", "skip_nonfinite")


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


def define_config() -> None:
    """Define a flag for each field of Config."""
    for field in dataclasses.fields(Config):
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


def config() -> Config:
    """Read Config from the parsed flags."""
    values: dict[str, Any] = {field.name: FLAGS[field.name].value for field in dataclasses.fields(Config)}
    values["windows"] = _parse_windows(values["windows"])
    values["fold"] = _parse_fold(values["fold"])
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


@dataclasses.dataclass(frozen=True)
class DataPaths:
    """Where the records are, and how they are made where they are not."""

    data_dir: str
    manual_dir: str | None = None
    on_bad_study: str = "stop"


def data_paths() -> DataPaths:
    """Read DataPaths from the parsed flags."""
    return DataPaths(FLAGS.data_dir, FLAGS.manual_dir, FLAGS.on_bad_study)


def define_hosts() -> None:
    """Define how the processes of a job find each other."""
    launchers = "Slurm, Open MPI, Kubernetes and TPU VMs announce this themselves"
    flags.DEFINE_string("coordinator_address", None, f"HOST:PORT of process 0 of a job of several; {launchers}.")
    flags.DEFINE_integer("num_processes", None, f"Processes of the job; {launchers}.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, f"Which process this is, from 0; {launchers}.", lower_bound=0)


class Coordinates(NamedTuple):
    """What a user says of a job whose launcher does not announce itself; None throughout otherwise.

    Attributes:
      coordinator_address: HOST:PORT of process 0.
      num_processes: how many processes there are.
      process_id: which of them this is, from 0.
    """

    coordinator_address: str | None
    num_processes: int | None
    process_id: int | None


def coordinates() -> Coordinates:
    """Read Coordinates from the parsed flags.

    Raises:
      flags.IllegalFlagValueError: some are given and others are not, or they contradict each other.
    """
    given = Coordinates(FLAGS.coordinator_address, FLAGS.num_processes, FLAGS.process_id)
    missing = [f"--{name}" for name, value in given._asdict().items() if value is None]
    if 0 < len(missing) < len(given):
        raise flags.IllegalFlagValueError(f"{' and '.join(missing)}: give all three of the coordinates, or none")
    if FLAGS.process_id is not None and FLAGS.process_id >= FLAGS.num_processes:
        raise flags.IllegalFlagValueError(
            f"--process_id={FLAGS.process_id} must be from 0 to {FLAGS.num_processes - 1} with "
            f"--num_processes={FLAGS.num_processes}"
        )
    return given


def define_judged() -> None:
    """Define what is judged: which checkpoint, on which studies."""
    flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Part of the run's own data set to judge on.")
    flags.DEFINE_string("checkpoint", "best", "best (by validation AUROC), latest, or a step.")
    flags.DEFINE_string(
        "dataset", None, "Another data set of the same grid, NAME/CONFIG: an external test on all of its studies."
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
        "verify", False, "Write nothing; compute predictions and figures again, and fail where the stored ones differ."
    )


def define_build() -> None:
    """Define what is built, and on what."""
    flags.DEFINE_string("dataset", Config.dataset, "TFDS data set and config, NAME/CONFIG.")
    flags.DEFINE_list(
        "beam_options",
        [],
        "Options of an Apache Beam pipeline, as in runner=DirectRunner; unset: all cores of this host build.",
    )
