"""Evaluations and their provenance, loaded from what metrics.json holds."""

from covidscan.metrics import metrics_json


def load(result, context):
    """Load (evaluation, provenance)."""
    return metrics_json.from_json({**result, "context": context})
