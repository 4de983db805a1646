"""Text table of a benchmark."""

from collections.abc import Mapping
from typing import Any


def text(results: Mapping[str, Any]) -> str:
    """Format the results of `measure.measure`, one line per topic."""
    step, flop, memory, fed = (results[name] for name in ("step", "flop", "memory", "input"))
    largest, compilation = results["largest_batch"], results["compilation"]
    parts = ", ".join(
        f"{name} {_seconds(step[f'{name}_seconds'])}"
        for name in ("augmentation", "forward", "backward", "optimizer", "rest")
    )
    rows = {
        "step": f"{_seconds(step['step_seconds'])}: {parts} (medians of {step['rounds']})",
        "speed": f"{results['volumes_per_second']:.4g} volumes/s with the batch on the devices",
        "FLOP": f"{flop['step_flop_per_volume'] / 1e9:.4g} GFLOP a volume and step, "
        f"{flop['forward_flop_per_volume'] / 1e9:.4g} forward",
        "share of peak": f"{flop['share_of_peak']:.1%} of {flop['peak_flop_per_second'] / 1e12:.4g} TFLOP/s "
        f"({flop['peak_source']})",
        "peak memory": f"{memory['peak_bytes_per_device'] / 1e9:.3g} GB a device ({memory['peak_source']})",
        "largest batch": "unknown: this device does not report its memory"
        if largest is None
        else f"{largest['batch_size']}, {largest['compiled_step_bytes_per_device'] / 1e9:.3g} of "
        f"{memory['usable_bytes_per_device'] / 1e9:.3g} GB a device (compiled, not run)",
        "input": f"{fed['records_per_second_alone']:.4g} records/s alone, "
        f"{fed['records_per_second_feeding']:.4g} feeding the step, which waits "
        f"{fed['share_of_time_waiting_for_data']:.1%} of the time for data",
        "compilation": f"{compilation['without_cache_seconds']:.1f} s, {compilation['with_cache_seconds']:.1f} s from "
        f"the persistent cache, after {compilation['tracing_seconds']:.1f} s of tracing",
    }
    head = (
        f"{results['model']}, width {results['width']}, {results['dtype']}, grid {results['grid']}, global batch "
        f"{results['batch_size']} on {results['device_count']} x {results['device_kind']}"
    )
    return "\n".join([head, *(f"  {name:14} {value}" for name, value in rows.items())])


def _seconds(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
