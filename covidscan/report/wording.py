"""Numbers and sentences as the page, the model card, the checklists and the console word them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from covidscan.config import MEDIUM
from covidscan.metrics import classification
from covidscan.metrics.provenance import Provenance
from covidscan.metrics.results import Evaluation, Metric, Metrics, Regression, Subgroups
from covidscan.runs import test_log
from tfds_mosmed.errors import one_line

MOST_REASONS = 4
_MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|^[#>+=-]")
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")


def number(value: float | None) -> str:
    """Format a value with three decimals, or "not defined"."""
    return "not defined" if value is None else f"{value:z.3f}".replace("-", "−")


def signed(value: float | None, decimals: int = 3) -> str:
    """Format a difference with its sign, none for 0, or "not defined"."""
    if value is None:
        return "not defined"
    text = f"{value:+z.{decimals}f}".replace("-", "−")
    return text if float(f"{value:.{decimals}f}") else text.removeprefix("+")


def brief(value: float) -> str:
    """Format a threshold or a temperature with four digits."""
    return f"{value:.4g}"


def p_value(value: float) -> str:
    """Format a p-value."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def utc(date: str) -> str:
    """Format a date in ISO 8601, of UTC, to the minute; one without a time stays as it is."""
    return f"{date[:16].replace('T', ' ')} UTC" if "T" in date else date


def architecture(provenance: Provenance) -> str:
    """Return the architecture of the network, or those of an ensemble's networks."""
    return " and ".join(dict.fromkeys(each.model for each in provenance.networks)) or provenance.config["model"]


def parameters(provenance: Provenance) -> str:
    """Format the number of parameters of the network, or those of an ensemble's networks where they differ."""
    counts = dict.fromkeys(each.num_parameters for each in provenance.networks) or [provenance.num_parameters]
    return " and ".join(f"{count:,}" for count in counts)


def markdown(text: str) -> str:
    """Escape what Markdown, or HTML in it, would take for a command, in one line; an underscore in a word is none."""
    escaped = _NUMBERED.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\g<0>", one_line(text)))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").encode(errors="replace").decode()


def title_of(name: str) -> str:
    """Return a metric's title; "METRIC:LABEL" is a metric of one label."""
    metric, label = without_label(name), name.partition(":")[2]
    title = classification.TITLES.get(metric, metric.replace("_", " ").capitalize())
    return f"{title} of {label}" if label else title


def without_label(name: str) -> str:
    """Return the name of a metric without the label that it is of."""
    return name.partition(":")[0]


def key_metrics(evaluation: Evaluation) -> Metrics:
    """Return the model's own metrics by the names that baselines and subgroups have for them.

    Their "auroc" is, of severity, that of the first grade against the others, and of classes the macro average.
    """
    metrics = evaluation.metrics
    if evaluation.disease:
        return metrics | {name: evaluation.disease.metrics[name] for name in ("auroc", "sensitivity", "specificity")}
    return {"auroc": metrics["macro_auroc"], **metrics} if "macro_auroc" in metrics else metrics


def key_title(evaluation: Evaluation, name: str) -> str:
    """Return the title of a metric by which baselines and subgroups are compared."""
    is_mean = name == "auroc" and evaluation.task in ("classes", "multilabel")
    return title_of("macro_auroc" if is_mean else name)


def subgroup_metrics(evaluation: Evaluation) -> list[str]:
    """List the names of the metrics that any subgroup has, in the order of the table of metrics."""
    present = {name for each in evaluation.subgroups for group in each.groups for name in group.metrics}
    return [name for name in classification.TITLES if name in present]


def key_metric(evaluation: Evaluation) -> str:
    """Return the name of the metric by which baselines are compared."""
    return "mae" if evaluation.regression else "auroc"


def output(evaluation: Evaluation) -> str:
    """Return what a network computes."""
    if evaluation.regression:
        return "a number, in the unit of the labels"
    return f"the probability of {', '.join(evaluation.label_names)}"


class NotBeaten(NamedTuple):
    """Baselines that a model does not beat.

    Attributes:
      title: of the warning.
      text: the numbers, in a sentence.
      is_certain: whether a baseline is as good or better; False where the studies are too few to tell.
    """

    title: str
    text: str
    is_certain: bool


def not_beaten(evaluation: Evaluation) -> list[NotBeaten]:
    """Compare a model with the constant answer, and with the baselines that look at a study without a network.

    The AUROC decides, as it depends on no threshold; its interval must lie above the baseline's value. The accuracy is
    compared with that of the constant answer, which is high where one label is rare.
    """
    if evaluation.regression:
        return _errors_not_beaten(evaluation, evaluation.regression)
    found, model = [], key_metrics(evaluation).get("auroc")
    rivals = {"a constant answer": 0.5}
    for each in evaluation.baselines:
        rival = each.metrics.get("auroc", Metric(None)).value
        if each.kind != "constant" and rival is not None:
            rivals[each.name] = rival
    if model is not None and model.value is not None:
        value, low = model.value, model.value if model.interval is None else model.interval[0]
        title, begins = key_title(evaluation, "auroc"), "the 95 % interval begins at"
        mean = metrics_beside_baselines(evaluation).get("auroc", Metric(None)).value
        if has_means_beside_baselines(evaluation) and mean is not None:
            value, title = mean, f"mean {title} over the folds"
            begins = "the 95 % interval of all folds pooled begins at"
        as_good = {name: rival for name, rival in rivals.items() if rival >= value}
        close = {name: rival for name, rival in rivals.items() if low <= rival < value}
        if as_good:
            text = f"The model's {title}, {number(value)}, is not above that of {_listed(as_good)}."
            found.append(NotBeaten("No better than a baseline", text, True))
        if close:
            text = (
                f"{evaluation.num_studies} studies do not show whether the model is better than {_listed(close)}: its "
                f"{title} is {number(value)}, {begins} {number(low)}."
            )
            found.append(NotBeaten("Perhaps no better than a baseline", text, False))
    accuracy = evaluation.metrics.get("accuracy", Metric(None))
    if accuracy.value is not None and accuracy.baseline is not None and accuracy.value <= accuracy.baseline:
        text = (
            f"The model is right in {number(accuracy.value)} of the studies, the answer “{evaluation.baseline}” in "
            f"{number(accuracy.baseline)}."
        )
        found.append(NotBeaten("No more accurate than a constant answer", text, True))
    return found


def _errors_not_beaten(evaluation: Evaluation, regression: Regression) -> list[NotBeaten]:
    """Compare the errors of predicted numbers with those of the constant, paired, and of the other baselines.

    Both errors must be smaller: the median of the labels, a constant as well, may have a smaller mean absolute error
    than their mean, but never a smaller root mean squared error on the training studies.
    """
    metrics, found = evaluation.metrics, []
    for name, gain in regression.gains.items():
        assert gain.value is not None
        numbers = f"{title_of(name)} {number(metrics[name].value)}, of the constant {number(metrics[name].baseline)}"
        if gain.value <= 0:
            text = f"The model is not nearer to the labels than the mean of the training studies: {numbers}."
            found.append(NotBeaten("No better than a constant", text, True))
        elif gain.interval is None or gain.interval[0] <= 0:
            text = (
                f"{evaluation.num_studies} studies do not show whether the model is better than the mean of the "
                f"training studies: {numbers}."
            )
            found.append(NotBeaten("Perhaps no better than a constant", text, False))
    value = metrics["mae"].value
    rivals = {each.name: each.metrics["mae"].value for each in evaluation.baselines}
    as_good = {
        name: rival for name, rival in rivals.items() if rival is not None and value is not None and rival <= value
    }
    if as_good:
        text = f"The model's {title_of('mae').lower()}, {number(value)}, is not below that of {_listed(as_good)}."
        found.append(NotBeaten("No better than a baseline", text, True))
    return found


def metrics_beside_baselines(evaluation: Evaluation) -> Metrics:
    """Return the model's own metrics by the names of the baselines': of folds the means over these, as theirs are.

    Scores of several folds differ, and pooled they separate less.
    """
    if not has_means_beside_baselines(evaluation):
        return key_metrics(evaluation)
    assert evaluation.repeats is not None
    means = {name: Metric(spread.mean) for name, spread in evaluation.repeats.metrics.items()}
    return means | {"auroc": means["macro_auroc"]} if "macro_auroc" in means else means


def has_means_beside_baselines(evaluation: Evaluation) -> bool:
    """Return whether a model is compared with baselines by means over folds; of severity they are of other metrics."""
    return is_of_folds(evaluation) and evaluation.disease is None


def is_of_folds(evaluation: Evaluation) -> bool:
    """Return whether an evaluation is of the folds of a cross-validation, pooled."""
    return evaluation.repeats is not None and evaluation.repeats.kind == "folds"


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} ({number(value)})" for name, value in values.items())


def phantom_banner(provenance: Provenance) -> str | None:
    """Return the warning that metrics come from synthetic chests, or None where they do not."""
    if not provenance.is_phantom:
        return None
    trained, evaluated = (name.startswith("ct_phantom") for name in (provenance.config["dataset"], provenance.dataset))
    how = "trained and evaluated" if trained and evaluated else "trained" if trained else "evaluated"
    return (
        f"The network was {how} on synthetic chests. These metrics show that the software works; they do not show "
        "how well it finds disease in patients."
    )


def origin(provenance: Provenance) -> str:
    """Return the relation of the studies to those that trained the network, in a sentence or two."""
    if provenance.external:
        return (
            f"External test: trained on {provenance.config['dataset']}, evaluated on {provenance.dataset}. "
            "Copies of the training studies were searched for; whether the two share scanners was not checked."
        )
    also = {
        "train": "They trained the network: the metrics show how well it memorised them. ",
        "validation": "They chose the checkpoint: the metrics are better than new studies would give. ",
        "out_of_fold": "Each was predicted by the one network of the cross-validation that never saw it. ",
    }.get(provenance.part, "")
    return f"No external test: the studies come from the source of the training studies. {also}".strip()


def decision(evaluation: Evaluation) -> str:
    """Return how a probability becomes a label."""
    if evaluation.task == "classes":
        return "as the likeliest label"
    if evaluation.regression:
        return "as the number itself"
    grades = evaluation.operating_point.grade_thresholds
    if evaluation.labels and grades:
        named = zip(evaluation.label_names, grades, strict=True)
        return f"for each label by its threshold, {', '.join(f'{name} {each}' for name, each in named)}"
    if evaluation.threshold is None:
        return "by each fold's own threshold"
    return f"by the thresholds {', '.join(map(str, grades))}" if grades else f"by the threshold {evaluation.threshold}"


_BLENDS = ("mixup", "cutmix")


def training_loss(config: Mapping[str, Any]) -> str:
    """Return why a run's validation loss may lie below its training loss.

    Args:
      config: the run's flags.
    """
    balanced = config.get("task") != "regression"
    harder = {
        "augmented scans": any(config.get(name) for name in set(MEDIUM) - set(_BLENDS)),
        "mixup": config.get("mixup"),
        "CutMix": config.get("cutmix"),
        "dropout": config.get("dropout", 0) != 0,  # None is the network's own
        "smoothed labels": balanced and config.get("label_smoothing"),
        "labels balanced by sampling": balanced and config.get("class_balance") == "sampling",
        "losses weighted by label": balanced and config.get("class_balance") == "loss",
    }
    used = [name for name, present in harder.items() if present]
    made = f"with {_joined(used)}, and " if used else ""
    mean = ", and uses the running mean of the parameters (EMA)" if config.get("ema_decay") else ""
    return (
        f"The training loss is computed {made}over the steps since the point before, while the network was still "
        f"changing; the validation loss has none of that{mean}. So it may lie below the training loss."
    )


def _joined(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def skip_reasons(skipped: Sequence[tuple[str, str]]) -> list[tuple[int, str]]:
    """Count the commonest reasons for which studies were left out; the details after a colon are dropped."""
    found = Counter(reason.split(":")[0].strip() for _, reason in skipped).most_common()
    named = [(count, reason) for reason, count in found[:MOST_REASONS]]
    rest = sum(count for _, count in found[MOST_REASONS:])
    return [*named, (rest, "other reasons")] if rest else named


def about(subgroups: Iterable[Subgroups], *words: str) -> list[Subgroups]:
    """Select the subgroups whose property's name contains one of the words."""
    return [each for each in subgroups if set(re.split(r"[^a-z]+", each.by.lower())) & set(words)]


def count_accesses(provenance: Provenance) -> test_log.TestAccessCount:
    """Count the evaluations on these test studies."""
    folds = provenance.num_members if provenance.arrangement == "out_of_fold" else None
    return test_log.count(provenance.test_accesses, provenance.dataset, folds)
