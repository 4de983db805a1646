"""What an experiment is: one frozen Config, each field a flag with its default, help and bounds."""

import dataclasses
import json
from typing import Any, NamedTuple

from tfds_mosmed.errors import UserError


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
    shuffle_labels: bool = _option(
        False,
        "Train on labels that are shuffled among the training studies, lesion masks unread: a control that can learn "
        "nothing, see covidscan.localise.",
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

    cache: str = _option(
        "auto",
        "Where training records are kept: in each accelerator's memory, in the host's, or nowhere, read as they are "
        "needed. auto: the first of these of which they fill less than a quarter. The choice changes no result.",
        choices=("auto", "device", "host", "none"),
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
        """Read what `to_json` gave; a field that is missing came later, and its default is what was done before.

        Raises:
          UserError: a field is unknown: a later version wrote it.
        """
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise UserError(
                f"config.json is of a later version (it has {', '.join(sorted(unknown))}): use that, or train again"
            )
        frozen: dict[str, Any] = {name: _frozen(value) for name, value in values.items()}
        return cls(**frozen)


def _frozen(value: Any) -> Any:
    """Turn JSON's lists back into tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


# What a run may change when it resumes without becoming another experiment.
FREE_TO_CHANGE = ("cache", "checkpoint_every", "keep", "log_every", "skip_nonfinite")


@dataclasses.dataclass(frozen=True)
class DataPaths:
    """Where the records are, and how they are made where they are not."""

    data_dir: str
    manual_dir: str | None = None
    on_bad_study: str = "stop"


class ProcessGroup(NamedTuple):
    """What a user says of a job whose launcher does not announce itself; None throughout otherwise.

    Attributes:
      coordinator_address: HOST:PORT of process 0.
      num_processes: how many processes there are.
      process_id: which of them this is, from 0.
    """

    coordinator_address: str | None
    num_processes: int | None
    process_id: int | None
