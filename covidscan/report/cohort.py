"""Summary of a cohort as text."""

from collections.abc import Iterator

from covidscan.report.console import text_table
from tfds_mosmed.building.cohort import NO_CLASS, NOT_STATED, CohortSummary, TextProperty
from tfds_mosmed.progress import fitted
from tfds_mosmed.scans.folders import describe_left_out


def cohort_text(summary: CohortSummary) -> str:
    """Format a summary for the console, without names of studies: what is in it, in tables, and what is not."""
    return "\n\n".join(block for block in _blocks(summary) if block)


def patients_text(summary: CohortSummary) -> str:
    """Return in a sentence of how many patients and sites the studies are."""
    if summary.num_patients is None:
        return "Patients cannot be told apart: two studies of one may come on both sides of a split."
    sites = "" if summary.num_sites is None else f" and {_counted(summary.num_sites, 'site')}"
    return f"They are of {_counted(summary.num_patients, 'patient')}{sites}."


def compared_text(summary: CohortSummary) -> str:
    """Return in a sentence whether the classes were compared, where they do not differ."""
    if summary.not_compared:
        return f"Whether the acquisition differs between classes was not tested: {summary.not_compared}."
    return "No property of the acquisition tells the classes apart."


def told(summary: CohortSummary) -> list[TextProperty]:
    """Return the properties that the files of some study state."""
    return [each for each in summary.texts if set(each.counts) != {NOT_STATED}]


def not_stated_text(summary: CohortSummary) -> str:
    """Return in a sentence which properties no file states; "" if there are none."""
    names = [each.name for each in summary.texts if set(each.counts) == {NOT_STATED}]
    return f"Not stated in any file: {', '.join(names)}." if names else ""


def plain_number(value: float) -> str:
    """Format a number with three digits or more."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _counted(count: int, name: str) -> str:
    plural = "studies" if name == "study" else f"{name}s"
    return f"{count:,} {name if count == 1 else plural}"


def _blocks(summary: CohortSummary) -> Iterator[str]:
    classes = [f"{count} {name}" for name, count in summary.classes.items() if name != NO_CLASS]
    head = _counted(summary.num_studies, "study") + " can be used" + (f": {', '.join(classes)}" if classes else "")
    yield fitted(f"{head}. {patients_text(summary)}")
    names = list(summary.classes)
    columns = names if len(names) > 1 else ["studies"]
    counts = [
        (f"{each.name} {value}", *(str(counts.get(name, 0)) for name in names))
        for each in told(summary)
        for value, counts in each.counts.items()
    ]
    yield text_table([("", *columns), *counts]) if counts else ""
    ranges = [
        (each.name, *(", ".join(map(plain_number, each.ranges[name])) for name in names)) for each in summary.numbers
    ]
    yield text_table([("lowest, median, highest", *columns), *ranges]) if summary.num_studies else ""
    yield fitted(not_stated_text(summary))
    shortcuts = [f"Warning, likely shortcut: {shortcut}" for shortcut in summary.shortcuts]
    yield fitted("\n".join(shortcuts or [compared_text(summary)]))
    unusable = sum(each.count for each in summary.unusable)
    lines = [f"{_counted(unusable, 'study')} cannot be used:"] if unusable else []
    lines += [f"  {each.count} x {each.text}" for each in summary.unusable]
    if summary.left_out:
        lines.append(f"Left out {describe_left_out(summary.left_out)}, which are not read.")
    if summary.warnings:
        lines += ["Warnings about studies:", *(f"  {each.count} x {each.text}" for each in summary.warnings)]
    yield fitted("\n".join(lines))
