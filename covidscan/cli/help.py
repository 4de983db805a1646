"""Text of --help: the flags of a command in groups, each in a line or two with its default."""

import textwrap
from collections.abc import Iterable

from absl import flags

HELP_FLAGS = {"--help", "-help", "-h", "-?", "--helpshort", "--helpfull"}

# Every flag is in one of the groups.
GROUPS = {
    "Data": (
        "dataset data_dir manual_dir table on_bad_study grid protocol num_folds fold split_seed on_leak task "
        "negative_categories beam_options update"
    ),
    "Network": "model size init_from expect_sha256 checkpoint width dropout windows dtype",
    "Training": (
        "epochs batch_size seed optimizer learning_rate weight_decay schedule warmup clip_norm ema_decay "
        "label_smoothing lesion_loss class_balance early_stopping shuffle_labels skip_nonfinite"
    ),
    "Augmentation": (
        "augmentation lesion_crops flip scale shift rotation crop blur sharpen slice_drop intensity gamma noise "
        "mixup cutmix"
    ),
    "Evaluation": (
        "split operating_point target_sensitivity cost_ratio prevalence metadata compare repeats verify "
        "shuffled_workdir tta diameters densities kinds places"
    ),
    "Output": "output hub_card output_dir format explain save_maps dicom embeddings",
    "Run": (
        "workdir cache eval_every checkpoint_every keep log_every "
        "topology tracker coordinator_address num_processes process_id peer_timeout"
    ),
}
FOOTER = (
    "[…] is the default. --flagfile=FILE reads flags from a file, one in a line; -v=1 shows where an error came from."
)


def text(usage: str, names: Iterable[str], required: str, columns: int) -> str:
    """Return the help of a command.

    Args:
      usage: what it does, and examples.
      names: its flags.
      required: what must be given; may be "".
      columns: of the terminal.
    """
    defined = set(names)
    blocks = [_filled(paragraph, columns) for paragraph in usage.strip().split("\n\n")]
    blocks += [f"Required: {required}"] if required else []
    for title, group in GROUPS.items():
        lines = [_flag_text(flags.FLAGS[name], columns) for name in group.split() if name in defined]
        if lines:
            blocks.append("\n".join([f"{title}:", *lines]))
    return "\n\n".join([*blocks, textwrap.fill(FOOTER, columns)])


def _filled(paragraph: str, columns: int) -> str:
    """Fill a paragraph, but for lines that are to be copied, which are indented."""
    if paragraph.lstrip().startswith("python "):
        return textwrap.indent(textwrap.dedent(paragraph), "  ")
    return textwrap.fill(paragraph, columns, break_on_hyphens=False)


def _flag_text(flag: flags.Flag, columns: int) -> str:
    name, about, default = f"--{flag.name}", flag.help or "", flag.default
    if isinstance(flag, flags.EnumFlag):  # whose help begins with "<first|second>: "
        choices, _, about = about.partition(": ")
        name = f"{name}={choices}"
    shown = ",".join(map(str, default)) if isinstance(default, list) else str(default)
    end = f" [{shown}]" if shown and default is not None and default is not False else ""
    line = f"{name}  {about}{end}"
    return textwrap.fill(
        line, columns, initial_indent="  ", subsequent_indent="      ", break_long_words=False, break_on_hyphens=False
    )
