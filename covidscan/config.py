"""Configuration of an experiment: a frozen dataclass whose fields are flags with default, help and bounds."""

import dataclasses
import json
import math
import re
from typing import Any, NamedTuple

from tfds_mosmed.errors import UserError, did_you_mean

MOST_SEED = 2**32 - 1
WITH_FOLDS = ("kfold", "leave_one_site_out", "table", "covidnet3d_cv")  # protocols that --fold is of

# Values of the flags of augmentation at each level of --augmentation.
_NONE = {
    "flip": 0.0, "scale": 0.0, "shift": 0.0, "rotation": 0.0, "crop": 0.0, "blur": 0.0, "sharpen": 0.0,
    "slice_drop": 0.0, "intensity": 0.0, "gamma": 0.0, "noise": 0.0, "mixup": 0.0, "cutmix": 0.0,
}  # fmt: skip
_LIGHT = _NONE | {
    "flip": 0.5, "scale": 0.05, "shift": 0.03, "rotation": 4.0, "blur": 0.4, "intensity": 20.0, "noise": 12.0
}  # fmt: skip
MEDIUM = _LIGHT | {"scale": 0.1, "shift": 0.05, "rotation": 8.0, "blur": 0.7, "intensity": 40.0, "noise": 25.0}
_STRONG = MEDIUM | {
    "rotation": 12.0, "crop": 0.3, "blur": 1.0, "sharpen": 0.6, "slice_drop": 0.1, "gamma": 0.25, "noise": 40.0,
    "cutmix": 0.5,
}  # fmt: skip
AUGMENTATION_LEVELS = {"none": _NONE, "light": _LIGHT, "medium": MEDIUM, "strong": _STRONG}
NETWORKS = ("lung_resnet", "covidscan_cnn", "resnet3d18", "densenet3d121", "keras_cnn")


def is_own_network(model: str) -> bool:
    """Return whether a value of --model names a network that the user wrote, package.module:factory."""
    return ":" in model


def check_model(model: str) -> None:
    """Raise UserError where a value of --model can be neither a network of this project nor the user's own."""
    if model not in NETWORKS and not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", model):
        raise UserError(
            f"--model={model}: give {', '.join(NETWORKS)}, or your own network as package.module:factory."
            f"{did_you_mean(model, NETWORKS)}"
        )


def check_folds(protocol: str, num_folds: int, fold: int) -> None:
    """Raise UserError where the flags of folds do not fit each other."""
    if protocol in ("kfold", "covidnet3d_cv"):
        if num_folds < 3:
            raise UserError(
                f"--num_folds={num_folds} must be at least 3: one to test, one to validate, the others to train"
            )
        if not 0 <= fold < num_folds:
            raise UserError(f"--fold={fold} must be from 0 to {num_folds - 1} with --num_folds={num_folds}")


def parse_crops(text: str) -> tuple[int, int, int]:
    """Parse --lesion_crops, ROWSxCOLUMNSxSLICES as in 64x64x16, to (slice, row, column); UserError if it is no size."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise UserError(f"--lesion_crops={text}: write ROWSxCOLUMNSxSLICES, as in 64x64x16")
    rows, columns, slices = map(int, match.groups())
    return slices, rows, columns


def _option(default: Any, help_text: str, *, least: float | None = None, most: float | None = None, choices=()) -> Any:
    """Return a field of Config with the help, bounds or choices of its flag."""
    return dataclasses.field(
        default=default, metadata={"help": help_text, "least": least, "most": most, "choices": choices}
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """The flags that define an experiment: runs with equal Config and equal data set are the same experiment.

    The help of each field describes it; windows are pairs (level, width) in HU.
    """

    dataset: str = _option("ct_phantom/demo", "TFDS data set and config, NAME/CONFIG.")
    protocol: str = _option(
        "holdout",
        "Parts: 70/10/20 % of patients, folds, sites, --table, published.",
        choices=("holdout", "kfold", "leave_one_site_out", "table", "covidnet3d", "covidnet3d_cv"),
    )
    num_folds: int = _option(
        5, "Number of folds of --protocol=kfold; of leave_one_site_out the number of sites.", least=2, most=100
    )
    fold: int = _option(
        0,
        "Test fold, from 0; of kfold and table the next fold is for validation; of covidnet3d_cv for validation. "
        "all: one run for each fold, in turn.",
    )
    on_leak: str = _option(
        "stop",
        "Action for near copies in two parts: stop, or drop them from the part that matters less, and report it.",
        choices=("stop", "drop"),
    )
    split_seed: int = _option(0, "Seed of the split. Runs with the same seed can be compared.", least=0, most=MOST_SEED)
    task: str = _option(
        "binary",
        "Labels: disease or not; grades CT-0 … CT-3+4; classes; sets of names; numbers.",
        choices=("binary", "severity", "classes", "multilabel", "regression"),
    )
    negative_categories: tuple[str, ...] = _option(
        ("CT-0", "normal"),
        "Categories without disease or lesions; in --task=binary all others are positive.",
    )

    model: str = _option(
        "lung_resnet",
        f"Network: {', '.join(NETWORKS)}, or your own as package.module:factory.",
    )
    size: str = _option(
        "patches",
        "Size of lung_resnet. patches: 32 x 32 tokens on any grid; others: tokens of 2 x 2 pixels.",
        choices=("patches", "tiny", "small", "base", "large"),
    )
    width: int | None = _option(
        None, "Channels of the first stage. Default: the size's (patches: 32); 64 of the other networks.", least=1
    )
    dropout: float | None = _option(
        None, "Dropout rate. Default: the network's own, 0.2 of lung_resnet.", least=0, most=0.95
    )
    windows: tuple[tuple[float, float], ...] = _option(
        ((-600.0, 1500.0), (40.0, 400.0), (-700.0, 500.0)),
        "HU windows, LEVEL:WIDTH each, one input channel per window. Default: lung, soft tissue, ground glass.",
    )
    init_from: str = _option(
        "",
        "Workdir or exported model of an earlier network, whose tensors of the same name and shape are the first ones. "
        "Default: none.",
    )
    dtype: str = _option(
        "auto",
        "Of the computation; parameters are float32. auto: bfloat16 on accelerators, float32 on CPUs.",
        choices=("auto", "float32", "bfloat16"),
    )

    seed: int = _option(
        0, "Seed of the initial parameters, the order of the data and the augmentation.", least=0, most=MOST_SEED
    )
    batch_size: int = _option(8, "Global batch size: studies per step, over all devices of all hosts.", least=1)
    epochs: int = _option(30, "Number of passes over the training studies.", least=1)
    optimizer: str = _option("adamw", "Optimiser.", choices=("adamw", "adam"))
    learning_rate: float = _option(2e-3, "Peak learning rate.", least=0)
    weight_decay: float = _option(0.05, "Decoupled weight decay of AdamW.", least=0)
    schedule: str = _option("cosine", "Learning rate schedule after the warm-up.", choices=("cosine", "constant"))
    warmup: float = _option(0.1, "Share of all steps in which the learning rate increases linearly.", least=0, most=1)
    clip_norm: float = _option(1.0, "Maximum global norm of the gradients; 0: no clipping.", least=0)
    label_smoothing: float = _option(
        0.05, "Share of each target spread over all labels; of regression none.", least=0, most=0.9
    )
    ema_decay: float = _option(
        0.99,
        "Decay per step of the running mean of the parameters, which is used to predict; 0: no mean.",
        least=0,
        most=0.99999,
    )
    lesion_loss: float = _option(
        5.0,
        "Weight of the loss against lesion masks; 0: masks are not read. Ignored by networks without a lesion map.",
        least=0,
        most=100,
    )
    shuffle_labels: bool = _option(
        False,
        "Train on labels shuffled among the training studies, without lesion masks: a negative control, see "
        "covidscan.localise.",
    )
    class_balance: str = _option(
        "sampling",
        "Draw labels equally often, weight the loss by inverse frequency, or neither.",
        choices=("sampling", "loss", "none"),
    )
    operating_point: str = _option(
        "youden",
        "Criterion of the threshold, on the validation studies.",
        choices=("youden", "sensitivity", "cost", "accuracy"),
    )
    target_sensitivity: float = _option(
        0.95, "Target of --operating_point=sensitivity on the validation studies.", least=0.01, most=1
    )
    cost_ratio: float = _option(
        1.0,
        "Cost of a false negative for --operating_point=cost, where a false positive costs 1.",
        least=0.001,
        most=1000,
    )
    early_stopping: int = _option(
        0,
        "Stop after this many validations without a better AUROC, or of regression mean absolute error; 0: never.",
        least=0,
    )

    augmentation: str = _option(
        "medium",
        "Level of the following where they are not given; the defaults shown are those of medium.",
        choices=tuple(AUGMENTATION_LEVELS),
    )
    lesion_crops: str = _option(
        "",
        "Train on crops about lesions of the masks, ROWSxCOLUMNSxSLICES. Default: whole volumes.",
    )
    flip: float = _option(MEDIUM["flip"], "Probability of a left-right flip.", least=0, most=1)
    scale: float = _option(MEDIUM["scale"], "Largest relative change of size, drawn for each axis.", least=0, most=0.5)
    shift: float = _option(MEDIUM["shift"], "Largest shift, as a share of each axis.", least=0, most=0.5)
    rotation: float = _option(MEDIUM["rotation"], "Largest in-plane rotation, degrees.", least=0, most=45)
    crop: float = _option(
        MEDIUM["crop"], "Largest share of each axis that a random resized crop takes away.", least=0, most=0.7
    )
    blur: float = _option(MEDIUM["blur"], "Largest widening of the interpolation kernel, pixels.", least=0, most=4)
    sharpen: float = _option(
        MEDIUM["sharpen"], "Largest overshoot of the interpolation kernel at edges.", least=0, most=2
    )
    slice_drop: float = _option(
        MEDIUM["slice_drop"], "Probability of a slice to be replaced by the mean of its neighbours.", least=0, most=0.5
    )
    intensity: float = _option(
        MEDIUM["intensity"], "Largest shift, HU; contrast changes by a thousandth of it.", least=0, most=500
    )
    gamma: float = _option(
        MEDIUM["gamma"], "Largest logarithm of the exponent of the grey scale from air to tissue.", least=0, most=1
    )
    noise: float = _option(MEDIUM["noise"], "Largest standard deviation of added noise, HU.", least=0, most=500)
    mixup: float = _option(MEDIUM["mixup"], "Alpha of the Beta distribution of mixup; 0: no mixup.", least=0, most=10)
    cutmix: float = _option(MEDIUM["cutmix"], "Probability of a box of another study (CutMix).", least=0, most=1)

    skip_nonfinite: bool = _option(
        False,
        "Skip and count updates whose loss or gradient is not finite. Default: such a step stops the run.",
    )

    cache: str = _option(
        "auto",
        "Memory that holds the training records. auto: the first of which they fill less than a quarter.",
        choices=("auto", "device", "host", "none"),
    )
    eval_every: int = _option(1, "Epochs between two validations.", least=1)
    checkpoint_every: int = _option(
        200,
        "Steps between two checkpoints, besides one at each validation: the most steps that an interruption costs.",
        least=1,
    )
    keep: int = _option(2, "Number of newest checkpoints to keep, besides the best.", least=1)
    log_every: int = _option(10, "Steps between two lines of metrics.jsonl.", least=1)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Config":
        """Load what `to_json` returned; missing fields of older versions take their defaults.

        Raises:
          UserError: a field is unknown, as a later version wrote it, or has a value that its flag does not take.
        """
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise UserError(
                f"config.json is of a later version (it has {', '.join(sorted(unknown))}): use that version, or "
                "train again"
            )
        frozen: dict[str, Any] = {name: _frozen(value) for name, value in values.items()}
        for field in dataclasses.fields(cls):
            if field.name in frozen and not _is_allowed(frozen[field.name], field):
                raise UserError(f"{field.name} is {json.dumps(values[field.name])} in it, which is no value of it")
        return cls(**frozen)


def _is_allowed(value: Any, field: dataclasses.Field) -> bool:
    """Return whether a value has the type of a field, and is within its bounds or choices."""
    bounds = field.metadata
    if field.name == "model":
        return _is_model(value)
    if field.name == "windows":
        return bool(value) and all(
            isinstance(pair, tuple) and len(pair) == 2 and all(map(_is_number, pair)) and pair[1] > 0 for pair in value
        )
    if field.name == "negative_categories":
        return isinstance(value, tuple) and all(isinstance(name, str) for name in value)
    if value is None:
        return field.default is None
    if isinstance(field.default, bool | str):
        return type(value) is type(field.default) and (not bounds["choices"] or value in bounds["choices"])
    is_whole = isinstance(field.default, int) or field.type in ("int | None", int | None)
    if not _is_number(value) or (is_whole and not isinstance(value, int)):
        return False
    least, most = bounds["least"], bounds["most"]
    return (least is None or value >= least) and (most is None or value <= most)


def _is_model(value: Any) -> bool:
    try:
        check_model(value)
    except (TypeError, UserError):
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _frozen(value: Any) -> Any:
    """Convert lists of JSON to tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


# Flags that may change when a run resumes: they do not affect the experiment.
FREE_TO_CHANGE = ("cache", "checkpoint_every", "keep", "log_every", "skip_nonfinite")


@dataclasses.dataclass(frozen=True)
class DataPaths:
    """Folders of records and raw studies, and the table of these; see the flags of the same names."""

    data_dir: str
    manual_dir: str | None = None
    on_bad_study: str = "stop"
    table: str | None = None


class ProcessGroup(NamedTuple):
    """Processes of a job whose launcher is not detected; all None otherwise.

    Attributes:
      coordinator_address: HOST:PORT of process 0.
      num_processes: number of processes.
      process_id: of this process, from 0.
    """

    coordinator_address: str | None
    num_processes: int | None
    process_id: int | None
