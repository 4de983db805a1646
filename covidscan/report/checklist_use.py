"""What a run can say of operating point, calibration, limits and openness: more fillers of the checklists.

Fillers are as in `checklist_methods`.
"""

from covidscan.report import report
from covidscan.report.checklist_methods import Facts, about_sources, class_imbalance, ensembling, selection
from covidscan.report.checklist_results import calibration


def output(result: Facts, context: Facts) -> str:
    """Probabilities, and how the threshold came about."""
    return (
        f"The probability of {', '.join(result['label_names'])}; the answer: {_threshold(result)} "
        f"{result['operating_point']['described']}"
    )


def _threshold(result: Facts) -> str:
    return "the likeliest label." if result["threshold"] is None else f"by the threshold {result['threshold']}."


def recalibration(result: Facts, context: Facts) -> str | None:
    """Temperature scaling, which is all that changes a probability after training; a temperature of 1 changes none."""
    point = result["operating_point"]
    if result["calibration"] is None or point["temperature"] == 1:
        return None
    return (
        f"Temperature scaling (temperature {point['temperature']:.3f}), chosen on {point['num_studies']} validation "
        "studies before the test; nothing was updated after it."
    )


def recalibration_results(result: Facts, context: Facts) -> str | None:
    """Calibration before and after temperature scaling."""
    if recalibration(result, context) is None:
        return None
    sides = " ".join(calibration(result, side) for side in ("before", "after"))
    return f"Of the question: {result['calibration']['question']}. {sides}"


def imbalance(result: Facts, context: Facts) -> str:
    """What was done against rare labels, and to the probabilities afterwards."""
    return f"{class_imbalance(result, context)} {recalibration(result, context) or 'No recalibration.'}"


def calculation(result: Facts, context: Facts) -> str:
    """How a prediction comes about."""
    commands = ", ".join(f"`{command}`" for command in context["commands"])
    return (
        f"{selection(result, context)} {ensembling(result, context)} Temperature "
        f"{result['operating_point']['temperature']:.3f}; answered {_threshold(result)} {commands}"
    )


def limitations(result: Facts, context: Facts) -> str:
    """Limits that follow from the run itself."""
    limits = [
        report.phantom_banner(context),
        report.origin(context),
        f"{result['num_studies']} studies were judged.",
        *(f"Shortcut: {shortcut}" for shortcut in result["shortcuts"]),
        "Calibration was not examined." if result["calibration"] is None else None,
        None if result["subgroups"] else "Subgroups were not examined.",
    ]
    openings = len(context["test_openings"])
    if openings > 1:
        limits.append(f"The test studies were opened {openings} times: choices may have followed what was seen.")
    limits.append("No prospective study, no comparison with readers.")
    return " ".join(limit for limit in limits if limit)


def details(result: Facts, context: Facts) -> str:
    """Where every setting is."""
    return (
        f"Technical details: {context['workdir']}/config.json has all settings, metrics.json beside this file all "
        f"figures; records {context['fingerprint']}, split {context['split_hash']}."
    )


def data_availability(result: Facts, context: Facts) -> str | None:
    """Where the data are and under which licence."""
    return about_sources(context, "availability")


def code_availability(result: Facts, context: Facts) -> str:
    """Which code made the figures."""
    return f"CovidScan {context['versions']['covidscan']}, Apache-2.0."


def model_access(result: Facts, context: Facts) -> str:
    """Where the network is."""
    return (
        f"Code: covidscan/models/{context['config']['model']}.py. Parameters: step {context['checkpoint']:,} in "
        f"{context['workdir']}/checkpoints; this run published them nowhere."
    )


def availability(result: Facts, context: Facts) -> str:
    """Code, network and data."""
    texts = [
        code_availability(result, context),
        model_access(result, context),
        data_availability(result, context) or "Data: NOT REPORTED.",
    ]
    return " ".join(texts)
