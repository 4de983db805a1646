"""What a run can say of its evaluation: the fillers of the checklists' items on measures, results and openness.

Fillers are as in `checklist_methods`.
"""

import re
from collections.abc import Sequence

from covidscan.metrics import classification
from covidscan.report import wording
from covidscan.report.checklist_methods import Facts

_PEOPLE = ("age", "sex", "gender", "ethnicity", "race")
_CLUSTERS = ("site", "hospital", "centre", "center", "clinic", "scanner", "manufacturer", "country")
_WORST_SHOWN = 5


def _figures(figures: Facts, names: Sequence[str] | None = None) -> str:
    """List figures with their intervals: those of `names`, or all."""
    return ", ".join(f"{classification.TITLES[name]} {_value(figures[name])}" for name in names or figures)


def _value(figure: Facts) -> str:
    if figure["interval"] is None:
        return wording.number(figure["value"])
    low, high = figure["interval"]
    return f"{wording.number(figure['value'])} ({low:.3f} to {high:.3f})"


def _subgroups(result: Facts, words: Sequence[str] | None = None) -> str:
    """List the figures of subgroups: of those whose name holds one of `words`, or of all."""
    shown = []
    for subgroup in result["subgroups"]:
        if words is None or set(re.split(r"[^a-z]+", subgroup["by"].lower())) & set(words):
            groups = [
                f"{group['name']} ({group['num_studies']} studies): {_figures(group['figures'])}"
                for group in subgroup["groups"]
            ]
            shown.append(f"By {subgroup['by']}: {'; '.join(groups)}.")
    return " ".join(shown)


def calibration(result: Facts, side: str) -> str:
    """List the figures of calibration "before" or "after" temperature scaling; empty where it is not defined."""
    if result["calibration"] is None:
        return ""
    return f"Calibration {side} temperature scaling: {_figures(result['calibration'][side]['figures'])}."


def measures(result: Facts, context: Facts) -> str:
    """The measures that were computed."""
    names = ", ".join(classification.TITLES[name] for name in result["figures"])
    baselines = ", ".join([result["baseline"], *(baseline["name"] for baseline in result["baselines"])])
    sentences = [f"{names}.", f"Baselines on the same studies: {baselines}."]
    if result["calibration"] is not None:
        sentences.append("Reliability diagram, Brier score, ECE, calibration slope and intercept.")
    if result["decision_curve"] is not None:
        sentences.append("Decision curve (net benefit).")
    if result["comparison"] is not None:
        sentences.append(f"Compared with the run {result['comparison']['other']}.")
    return " ".join(sentences)


def uncertainty(result: Facts, context: Facts) -> str | None:
    """The methods of intervals and tests."""
    by_method: dict[str, list[str]] = {}
    for name, figure in result["figures"].items():
        if figure["interval"]:
            by_method.setdefault(figure["method"], []).append(classification.TITLES[name])
    sentences = []
    if by_method:
        methods = "; ".join(f"{method}: {', '.join(names)}" for method, names in by_method.items())
        sentences.append(f"95 % intervals. {methods}.")
    if result["comparison"] is not None:
        tests = ", ".join(
            f"{f['method']} for {classification.TITLES[n]}" for n, f in result["comparison"]["figures"].items()
        )
        sentences.append(f"Two-sided tests between two runs: {tests}; not adjusted for their number.")
    if result["repeats"] is not None:
        sentences.append(
            f"Mean and standard deviation over {len(result['repeats']['members'])} {result['repeats']['kind']}."
        )
    return " ".join(sentences) or None


def sample_size(result: Facts, context: Facts) -> str | None:
    """What this many studies can show."""
    smallest = result["smallest_difference"]
    if smallest is None:
        return None
    return f"No size was planned: the split gives {result['num_studies']} studies. {smallest['described']}"


def robustness(result: Facts, context: Facts) -> str | None:
    """How figures vary with subgroups, folds and runs."""
    spread, repeats = "", result["repeats"]
    if repeats is not None:
        texts = [
            f"{classification.TITLES[name]} {figure['mean']:.3f} ({figure['lowest']:.3f} to {figure['highest']:.3f})"
            for name, figure in repeats["figures"].items()
        ]
        spread = f"Mean, lowest and highest over {len(repeats['members'])} {repeats['kind']}: {', '.join(texts)}."
    return f"{_subgroups(result)} {spread}".strip() or None


def clusters(result: Facts, context: Facts) -> str | None:
    """Figures by hospital or scanner, where the metadata have such a column."""
    return _subgroups(result, _CLUSTERS) or None


def demographics(result: Facts, context: Facts) -> str | None:
    """Who the judged studies' patients are, where the metadata say so."""
    found = _subgroups(result, _PEOPLE)
    return f"Of the judged studies alone. {found}" if found else None


def internal_test(result: Facts, context: Facts) -> str | None:
    """The test on studies of the training's source; the other parts are no test."""
    if context["external"] or context["part"] not in ("test", "out_of_fold"):
        return None
    if context["arrangement"] == "out_of_fold":
        return (
            f"{result['num_studies']} studies, each judged by the one of {context['num_members']} networks that "
            f"neither trained nor chose on it. {_openings(context)} {context['leak_check']}"
        )
    return f"{result['num_studies']} studies of the test part. {_openings(context)} {context['leak_check']}"


def external_test(result: Facts, context: Facts) -> str | None:
    """The test on another data set."""
    if not context["external"]:
        return None
    return f"{wording.origin(context)} {result['num_studies']} studies. {_openings(context)}"


def _openings(context: Facts) -> str:
    accesses = wording.count_accesses(context)
    return f"{' '.join(accesses.describe())}{f' Dates: {accesses.dates}.' if accesses.dates else ''}"


def flow(result: Facts, context: Facts) -> str:
    """Studies found, left out with reasons, and in each part."""
    numbers = context["flow"]
    parts = "; ".join(
        f"{part}: {', '.join(f'{number} {label}' for label, number in labels.items())}"
        for part, labels in context["counts"].items()
    )
    reasons = "; ".join(f"{study}: {reason}" for study, reason in context["skipped"])
    left_out = f" ({reasons})" if reasons else ""
    return f"{numbers['found']} studies found, {numbers['skipped']} left out{left_out}. {parts}."


def distributions(result: Facts, context: Facts) -> str | None:
    """The outcome in training and judged studies; of another data set the training's counts are not at hand."""
    if context["external"] or context["part"] == "train":
        return None
    shares = {}
    for part, labels in context["counts"].items():
        if total := sum(labels.values()):
            shares[part] = ", ".join(f"{number / total:.1%} {label}" for label, number in labels.items())
    if context["arrangement"] == "out_of_fold":
        share = shares.get("out_of_fold")
        return (
            share and f"The outcome alone: {share}. Every study is judged once, and trains the networks of other folds."
        )
    if not {"train", context["part"]} <= shares.keys():
        return None
    return f"The outcome alone: {'; '.join(f'{part} {shares[part]}' for part in ('train', context['part']))}."


def data_differences(result: Facts, context: Facts) -> str | None:
    """How the judged studies differ from those that trained, where both come from one data set."""
    if context["external"]:
        return None
    return f"None by design: both were drawn from {context['dataset']} by --protocol={context['flow']['protocol']}."


def analyses(result: Facts, context: Facts) -> str:
    """Studies in each analysis."""
    counts = ", ".join(f"{number} {label}" for label, number in result["counts"].items())
    point, networks = result["operating_point"], context["num_members"]
    chosen = "temperature" if result["task"] == "classes" else "threshold and temperature"
    if context["arrangement"] == "out_of_fold":
        return (
            f"Each of {result['num_studies']} studies ({counts}) is judged by one of {networks} networks, chooses "
            f"{chosen} of another one, and trains the other {networks - 2}."
        )
    known = not context["external"] and "train" in context["counts"]
    trained = f"Training: {sum(context['counts']['train'].values())} studies. " if known else ""
    return (
        f"{trained}Choice of {chosen}: {point['num_studies']} studies. "
        f"Judged: {result['num_studies']} studies ({counts})."
    )


def performance(result: Facts, context: Facts) -> str:
    """Every figure with its interval, beside the baselines, and the subgroups."""
    baselines = "; ".join(f"{each['name']}: {_figures(each['figures'])}" for each in result["baselines"])
    beside = f" Baselines: {baselines}." if baselines else ""
    subgroups = _subgroups(result) or "Subgroups: NOT REPORTED."
    return f"{_figures(result['figures'])}.{beside} {calibration(result, 'after')} {subgroups}"


def diagnostic_performance(result: Facts, context: Facts) -> str:
    """Sensitivity, specificity and predictive values of the yes-or-no question, or each label's sensitivity."""
    calibrated = calibration(result, "after")
    figures = result["disease"]["figures"] if "disease" in result else result["figures"]
    names = [name for name in ("auroc", "sensitivity", "specificity", "ppv", "npv") if name in figures]
    if names:
        return f"{_figures(figures, names)}; answered {wording.decision(result)}. {calibrated}"
    shares = ", ".join(f"{label} {wording.number(value)}" for label, value in result["sensitivities"].items())
    return f"Share found of each label: {shares}. {calibrated}"


def failures(result: Facts, context: Facts) -> str | None:
    """The most confident mistakes."""
    right = sum(row[label] for label, row in enumerate(result["confusion_matrix"]))
    wrong = result["num_studies"] - right
    if not wrong:
        return "No study was answered wrongly."
    if not result["failures"]:
        return None
    worst = "; ".join(
        f"{each['study_id']} ({each['kind'].lower()}, {each['category']}, {each['probability']:.2f})"
        for each in result["failures"][:_WORST_SHOWN]
    )
    return (
        f"{wrong} studies were answered wrongly. The most confident mistakes: {worst}. Their slices are in report.html."
    )
