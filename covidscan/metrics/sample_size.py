"""Minimum numbers of studies, below which a result carries a warning or is not used."""

from collections.abc import Mapping

from covidscan.metrics.results import Calibration, OperatingPoint

FEWEST_TO_CHOOSE = 20  # validation studies, for a temperature and a threshold
FEWEST_EVALUATED = 10  # studies, and
FEWEST_OF_LABEL = 3  # of each label, for metrics
WIDEST_SLOPE = 10.0  # interval of a calibration slope, which is about 1 where probabilities mean anything


def is_few(task: str, counts: Mapping[str, int], num_studies: int) -> bool:
    """Return whether the evaluated studies, or those of a label, are too few for a headline."""
    numbers = list(counts.values())
    if task == "multilabel":  # of which a study may have several
        rarest = min(min(number, num_studies - number) for number in numbers)
        return num_studies < FEWEST_EVALUATED or rarest < FEWEST_OF_LABEL
    if task == "severity":
        numbers = [numbers[0], sum(numbers[1:])]
    return sum(numbers) < FEWEST_EVALUATED or min(numbers) < FEWEST_OF_LABEL


def is_vague(calibration: Calibration | None) -> bool:
    """Return whether a calibration slope is too uncertain to be read."""
    slopes = [each.metrics["slope"] for each in (calibration.before, calibration.after)] if calibration else []
    return any(
        slope.value is not None and (not slope.interval or slope.interval[1] - slope.interval[0] > WIDEST_SLOPE)
        for slope in slopes
    )


def set_warnings(num_studies: int, counts: Mapping[str, int], point: OperatingPoint) -> list[str]:
    """Write a sentence for each result of the task "multilabel" that rests on too few studies.

    Args:
      num_studies: evaluated.
      counts: label -> evaluated studies that have it.
      point: the operating point.
    """
    found = []
    few = [name for name, count in counts.items() if min(count, num_studies - count) < FEWEST_OF_LABEL]
    if num_studies < FEWEST_EVALUATED or few:
        which = f", and fewer than {FEWEST_OF_LABEL} have, or have not, {', '.join(few)}" if few else ""
        found.append(f"{num_studies} studies were evaluated{which}: the metrics may be chance.")
    chosen_on = point.num_studies if point.num_in_smallest_fold is None else point.num_in_smallest_fold
    if chosen_on < FEWEST_TO_CHOOSE:
        found.append(
            f"Thresholds were chosen on {chosen_on} validation studies, fewer than {FEWEST_TO_CHOOSE}: sensitivity and "
            "specificity on other studies may differ much."
        )
    return found


def warnings(task: str, counts: Mapping[str, int], point: OperatingPoint, calibration: Calibration | None) -> list[str]:
    """Write a sentence for each result that rests on too few studies.

    Args:
      task: "binary", "severity" or "classes".
      counts: label -> evaluated studies.
      point: the operating point.
      calibration: of the evaluated studies.
    """
    found = []
    total = sum(counts.values())
    if is_few(task, counts, total):
        were = "study was" if total == 1 else "studies were"
        if task == "regression":
            return [f"Only {total} {were} evaluated, fewer than {FEWEST_EVALUATED}: the metrics may be chance."]
        listed = ", ".join(f"{count} {label}" for label, count in counts.items())
        found.append(
            f"Only {total} {were} evaluated ({listed}), fewer than {FEWEST_EVALUATED} or than "
            f"{FEWEST_OF_LABEL} of a label: the metrics may be chance."
        )
    smallest = point.num_in_smallest_fold
    which, chosen_on = ("The", point.num_studies) if smallest is None else ("A fold's", smallest)
    if task not in ("classes", "regression") and chosen_on < FEWEST_TO_CHOOSE:
        found.append(
            f"{which} threshold was chosen on {chosen_on} validation studies, fewer than {FEWEST_TO_CHOOSE}: "
            "sensitivity and specificity on other studies may differ much."
        )
    if is_vague(calibration):
        found.append("The calibration slope is too uncertain to be read: its interval is wider than 10.")
    return found
