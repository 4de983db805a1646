"""Numbers and sentences as the page, the model card, the checklists and the console word them."""

from collections.abc import Mapping
from typing import Any

from covidscan.metrics import classification
from covidscan.metrics.results import TestAccess
from covidscan.runs import test_log


def number(value: float | None) -> str:
    """Format a value with three decimals, or "not defined"."""
    return "not defined" if value is None else f"{value:z.3f}".replace("-", "−")


def signed(value: float | None) -> str:
    """Format a difference with its sign and three decimals, or "not defined"."""
    return "not defined" if value is None else f"{value:+z.3f}".replace("-", "−").replace("+0.000", "0.000")


def brief(value: float) -> str:
    """Format a threshold or a temperature with four digits."""
    return f"{value:.4g}"


def title_of(name: str) -> str:
    """Return a metric's title."""
    return classification.TITLES.get(name, name.replace("_", " ").capitalize())


def duration(seconds: float) -> str:
    """Format seconds as 42 s, 3 min 20 s or 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def phantom_banner(context: Mapping[str, Any]) -> str | None:
    """Return the warning that metrics come from synthetic chests, or None where they do not."""
    if not context["is_phantom"]:
        return None
    trained, evaluated = (name.startswith("ct_phantom") for name in (context["config"]["dataset"], context["dataset"]))
    how = "trained and evaluated" if trained and evaluated else "trained" if trained else "evaluated"
    return (
        f"The network was {how} on synthetic chests. These metrics show that the software works; they do not show "
        "how well it finds disease in patients."
    )


def origin(context: Mapping[str, Any]) -> str:
    """Return the relation of the studies to those that trained the network, in a sentence or two."""
    if context["external"]:
        return (
            f"External test: trained on {context['config']['dataset']}, evaluated on {context['dataset']}. "
            "Copies of the training studies were searched for; whether the two share scanners was not checked."
        )
    also = {
        "train": "They trained the network: the metrics show how well it memorised them. ",
        "validation": "They chose the checkpoint: the metrics are better than new studies would give. ",
        "out_of_fold": "Each was predicted by the one network of the cross-validation that never saw it. ",
    }.get(context["part"], "")
    return f"No external test: the studies come from the source of the training studies. {also}".strip()


def decision(result: Mapping[str, Any]) -> str:
    """Return how a probability becomes a label."""
    if result["task"] == "classes":
        return "the likeliest label"
    return "by each fold's own threshold" if result["threshold"] is None else f"by the threshold {result['threshold']}"


def count_accesses(context: Mapping[str, Any]) -> test_log.TestAccessCount:
    """Count the evaluations on these test studies."""
    accesses = [TestAccess(**line) for line in context.get("test_openings", ())]
    pooled = context["arrangement"] == "out_of_fold"
    return test_log.count(accesses, context["dataset"], context["num_members"] if pooled else None)
