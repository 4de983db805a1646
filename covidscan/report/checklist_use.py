"""What a run can say of operating point, calibration, limits and openness: more fillers of the checklists.

Fillers are as in `checklist_methods`.
"""

from covidscan.report import wording
from covidscan.report.checklist_methods import Facts, about_sources, class_imbalance, ensembling, selection
from covidscan.report.checklist_results import calibration


def output(result: Facts, context: Facts) -> str:
    """Probabilities, and how the threshold came about."""
    return (
        f"The probability of {', '.join(result['label_names'])}; the answer: {wording.decision(result)}. "
        f"{result['operating_point']['described']}"
    )


def recalibration(result: Facts, context: Facts) -> str | None:
    """Temperature scaling, which is all that changes a probability after training; a temperature of 1 changes none."""
    point = result["operating_point"]
    if result["calibration"] is None or point["temperature"] == 1:
        return None
    chosen = f"chosen on {point['num_studies']} validation studies"
    if context["arrangement"] != "single":
        chosen = "each network's own chosen on the validation studies of its fold"
    scaled = f"Temperature scaling ({_temperature(result, context)})"
    return f"{scaled}, {chosen} before the test; nothing was updated after it."


def _temperature(result: Facts, context: Facts) -> str:
    which = "temperature" if context["arrangement"] == "single" else "mean temperature"
    return f"{which} {result['operating_point']['temperature']:.3f}"


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
        f"{selection(result, context)} {ensembling(result, context)} With "
        f"{_temperature(result, context)}; answered {wording.decision(result)}. {commands}"
    )


def limitations(result: Facts, context: Facts) -> str:
    """Limits that follow from the run itself."""
    limits = [
        wording.phantom_banner(context),
        wording.origin(context),
        f"{result['num_studies']} studies were judged.",
        *(f"Shortcut: {shortcut}" for shortcut in result["shortcuts"]),
        "Calibration was not examined." if result["calibration"] is None else None,
        None if result["subgroups"] else "Subgroups were not examined.",
    ]
    accesses = wording.count_accesses(context)
    if accesses.is_repeated:
        limits.append(f"{accesses.describe()[0]} Choices may have followed what was seen.")
    limits.append("No prospective study, no comparison with readers.")
    return " ".join(limit for limit in limits if limit)


def details(result: Facts, context: Facts) -> str:
    """Where every setting is."""
    settings = "config.json" if context["arrangement"] == "single" else "cross_validation.json"
    which = " of the first fold" if context["arrangement"] == "out_of_fold" else ""
    return (
        f"Technical details: {context['workdir']}/{settings} has all settings, metrics.json beside this file all "
        f"figures; records {context['fingerprint']}, split{which} {context['split_hash']}."
    )


def data_availability(result: Facts, context: Facts) -> str | None:
    """Where the data are and under which licence."""
    return about_sources(context, "availability")


def code_availability(result: Facts, context: Facts) -> str:
    """Which code made the figures."""
    return f"CovidScan {context['versions']['covidscan']}, Apache-2.0."


def model_access(result: Facts, context: Facts) -> str:
    """Where the network is."""
    workdir = context["workdir"]
    where = f"step {context['checkpoint']:,} in {workdir}/checkpoints"
    if context["arrangement"] != "single":
        where = f"the checkpoints of {context['num_members']} networks, each in a folder of {workdir}"
    return (
        f"Code: covidscan/models/{context['config']['model']}.py. Parameters: {where}; this run published them nowhere."
    )


def availability(result: Facts, context: Facts) -> str:
    """Code, network and data."""
    texts = [
        code_availability(result, context),
        model_access(result, context),
        data_availability(result, context) or "Data: NOT REPORTED.",
    ]
    return " ".join(texts)
