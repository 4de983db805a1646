"""Tables of the measurements on a GPU, in Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.peers.tables import number, table

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]


def _ms(name: str) -> Callable[[Row], str]:
    return lambda row: f"{number(row[name] * 1e3)} ms"


def _studies(name: str) -> Callable[[Row], str]:
    return lambda row: f"{number(row['batch_size'] / row[name])}/s"


def _times(numerator: str, denominator: str) -> Callable[[Row], str]:
    return lambda row: f"{row[numerator] / row[denominator]:.2f}x"


def _tflop(row: Row) -> str:
    share = row["share_of_peak"]
    return f"{number(row['flop_per_second'] / 1e12)} ({'unknown' if share is None else f'{share:.1%}'})"


def _memory(row: Row) -> str:
    return f"{row['peak_bytes'] / 1e9:.2f} / {row['compiled_step_bytes'] / 1e9:.2f} GB"


def _difference(row: Row) -> str:
    pairs = list(zip(row["bfloat16_losses"], row["float32_losses"], strict=True))
    largest = max(range(len(pairs)), key=lambda index: abs(pairs[index][0] - pairs[index][1]))
    return f"{abs(pairs[largest][0] - pairs[largest][1]):.4f} at step {largest + 1} of {len(pairs)}"


def _first_and_last(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row[name][0]:.4f}, {row[name][-1]:.4f}"


# Each table has the rows that have its key.
TABLES: Sequence[tuple[str, str, Sequence[Column]]] = (
    (
        "step_seconds",
        "**Training step** (augmentation, windows, loss, AdamW, running mean; bfloat16) with the batch on the device. "
        "TFLOP are those that the network needs, with their share of the device's stated peak; memory is the "
        "allocator's peak, compilation included, and what the compiled step needs.",
        (
            ("step", _ms("step_seconds")),
            ("studies", _studies("step_seconds")),
            ("TFLOP/s (share of peak)", _tflop),
            ("memory", _memory),
            ("inference", _studies("inference_seconds")),
            ("compilation", lambda row: f"{row['compile_seconds']:.0f} s"),
        ),
    ),
    (
        "torch_step_seconds",
        "**Against PyTorch**: the same network without augmentation, in turn. CovidScan's step includes the windows, "
        "clipping of the gradients and the running mean of the parameters; PyTorch's gets windows, and has automatic "
        "mixed precision in bfloat16, the channels-last format and the fused AdamW, without torch.compile.",
        (
            ("CovidScan: step", _ms("plain_step_seconds")),
            ("PyTorch: step", _ms("torch_step_seconds")),
            ("PyTorch / CovidScan", _times("torch_step_seconds", "plain_step_seconds")),
            ("CovidScan: inference", _ms("plain_inference_seconds")),
            ("PyTorch: inference", _ms("torch_inference_seconds")),
            ("PyTorch / CovidScan", _times("torch_inference_seconds", "plain_inference_seconds")),
        ),
    ),
    (
        "device_steps_per_second",
        "**Caches**: training steps per second as the trainer feeds them: batches gathered on the host and sent "
        "ahead, or gathered on the device with 16 steps in a dispatch.",
        (
            ("--cache=host", lambda row: f"{number(row['host_steps_per_second'])}/s"),
            ("--cache=device", lambda row: f"{number(row['device_steps_per_second'])}/s"),
            ("gain", _times("device_steps_per_second", "host_steps_per_second")),
        ),
    ),
    (
        "float32_losses",
        "**bfloat16 against float32** (not TF32): losses of the first and the last of some steps on the same batches.",
        (
            ("bfloat16", _first_and_last("bfloat16_losses")),
            ("float32", _first_and_last("float32_losses")),
            ("largest difference", _difference),
        ),
    ),
)


def markdown(results: Mapping[str, Any]) -> str:
    """Format the results of `gpu.measure`, complete or not."""
    parts = ["Tried on a CPU: these are no measurements."] if results["smoke"] else []
    for key, text, columns in TABLES:
        rows = [
            [name, *(cell(row) for _, cell in columns)] for name, row in sorted(results["rows"].items()) if key in row
        ]
        if rows:
            parts += [text, table(["network, volume, batch", *(head for head, _ in columns)], rows)]
    parts += ["Left out:\n\n" + "\n".join(f"* {note}" for note in results["notes"])] if results["notes"] else []
    versions = [f"{name} {version}" for name, version in results["versions"].items()]
    return "\n\n".join([*parts, f"{', '.join([results['date'], results['device'], *versions])}."])
