"""Table of the transfer benchmark, in Markdown."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from covidscan.metrics.results import Metric
from covidscan.report.detectability import name_of
from tests.transfer.results import Comparison, Insertions, RealStudies, SeedResult

SHOWN_LESIONS = ((-550.0, 10.0), (-700.0, 20.0))  # (HU, mm)


def table(results: Sequence[SeedResult], of_mean: Comparison | None) -> str:
    """Format the results of one recipe: a column a seed, then their median and range.

    Args:
      results: of the seeds.
      of_mean: comparison of the seeds' mean probability with the other recipe's, if there is one.
    """
    first = results[0]
    head = ["", *(f"seed {result.seed}" for result in results), "median (range)"]
    rows = [*_phantoms(results), *_comparison(results, of_mean)]
    rows += _real(results) if first.real else []
    rows += _insertions(results) if first.insertions else []
    rows.append(
        _row("minutes of training steps", [f"{r.minutes:.0f}" for r in results], [r.minutes for r in results], 0)
    )
    lines = [head, ["---"] * len(head), *rows]
    notes = [_refused(first.real)] if first.real else ["COVIDSCAN_REAL_CT was not set: no real studies."]
    notes += [_not_used(first.insertions)] if first.insertions else []
    return "\n\n".join(
        [
            f"**{first.recipe}**: {first.num_train} training studies of `{first.dataset}`; "
            f"`{' '.join(first.training.flags)}`.",
            "\n".join(f"| {' | '.join(cells)} |" for cells in lines),
            *filter(None, notes),
            _circumstances(results),
        ]
    )


def _phantoms(results: Sequence[SeedResult]) -> list[list[str]]:
    hard, hospital = results[0].hard, results[0].hospital
    rows = [
        _metrics(
            f"hard phantoms ({hard.num_positive} positive, {hard.num_negative} negative): AUROC",
            [result.hard.auroc for result in results],
        )
    ]
    for number, band in enumerate(hard.bands):
        title = f"largest lesion {band.name} ({band.num_positive}): AUROC"
        rows.append(_metrics(title, [result.hard.bands[number].auroc for result in results]))
    title = f"sensitivity at 95 % specificity on the {hard.num_diseased} negative with other diseases"
    rows.append(_metrics(title, [result.hard.sensitivity for result in results]))
    title = f"second hospital ({hospital.num_positive} positive, {hospital.num_negative} negative): AUROC"
    rows.append(_metrics(title, [result.hospital.auroc for result in results]))
    return rows


def _comparison(results: Sequence[SeedResult], of_mean: Comparison | None) -> list[list[str]]:
    if of_mean is None:
        return []
    compared = [result.comparison for result in results]
    title = f"AUROC less that of {of_mean.other}, same {of_mean.num_studies} hard phantoms (DeLong)"
    cells = [_difference(each) if each else "" for each in compared]
    row = _row(title, cells, [each.auroc.difference if each else None for each in compared], 3, sign="+")
    return [row, ["the same of the seeds' mean probability", *[""] * len(results), _difference(of_mean)]]


def _real(results: Sequence[SeedResult]) -> list[list[str]]:
    found = [result.real for result in results if result.real]
    total = sum(study.probability is not None for study in found[0].studies)
    rows = [
        _metrics("real CT, COVID-19 against the rest: AUROC", [each.auroc for each in found]),
        [
            f"ranks of the COVID-19 studies among {total}",
            *(", ".join(map(str, each.ranks)) or "none" for each in found),
            "",
        ],
    ]
    for number, study in enumerate(found[0].studies):
        values = [each.studies[number].probability for each in found]
        cells = ["refused" if value is None else f"{value:.3f}" for value in values]
        rows.append(_row(f"probability of {study.name}", cells, values))
    return rows


def _refused(real: RealStudies) -> str:
    return "; ".join(f"{study.name} was refused: {study.error}" for study in real.studies if study.error)


def _insertions(results: Sequence[SeedResult]) -> list[list[str]]:
    """Return rows with the share detected of `SHOWN_LESIONS`, and the scans in which none can be."""
    found = [result.insertions for result in results if result.insertions]
    positive = [each.num_positive for each in found]
    title = f"real CT without COVID-19 ({found[0].num_scans}): positive at the threshold of 95 % specificity"
    rows = [_row(title, list(map(str, positive)), positive, 0)]
    for density, diameter in SHOWN_LESIONS:
        same = [
            next(one for one in each.detections if (one.density_hu, one.diameter_mm) == (density, diameter))
            for each in found
        ]
        title = (
            f"{name_of(same[0].kind, density)}, {diameter:g} mm, inserted into the others: detected at this threshold"
        )
        cells = [
            f"{_metric(Metric(one.share, one.share_interval))}, {one.counted} insertions into {one.scans} scans"
            for one in same
        ]
        rows.append(_row(title, cells, [one.share for one in same]))
    return rows


def _not_used(insertions: Insertions) -> str:
    return "; ".join(f"no lesions in {Path(scan).name}: {reason}" for scan, reason in insertions.refused)


def _metrics(title: str, metrics: Sequence[Metric]) -> list[str]:
    return _row(title, [_metric(metric) for metric in metrics], [metric.value for metric in metrics])


def _row(
    title: str, cells: Sequence[str], values: Sequence[float | None], digits: int = 3, sign: str = ""
) -> list[str]:
    """Return a row with the median and range of its values, of those that are defined."""
    defined = [value for value in values if value is not None]
    spread = "not defined"
    if defined:
        middle, low, high = (
            f"{value:{sign}.{digits}f}" for value in (statistics.median(defined), min(defined), max(defined))
        )
        spread = f"**{middle}** ({low} to {high})"
    return [title, *cells, spread]


def _metric(metric: Metric) -> str:
    if metric.value is None or metric.interval is None:
        return "not defined"
    return f"{metric.value:.3f} ({metric.interval[0]:.3f} to {metric.interval[1]:.3f})"


def _difference(compared: Comparison) -> str:
    (low, high), difference = compared.auroc.interval, compared.auroc
    return f"{difference.difference:+.3f} ({low:+.3f} to {high:+.3f}), p = {difference.p_value:.2g}"


def _circumstances(results: Sequence[SeedResult]) -> str:
    """Return seeds, dates, machine and versions; of networks that were trained elsewhere, all of these."""
    seeds = ", ".join(str(result.seed) for result in results)
    dates = sorted({result.training.date[:10] for result in results})
    machines = " and ".join(dict.fromkeys(result.training.machine for result in results))
    versions = " and ".join(
        dict.fromkeys(", ".join(f"{name} {number}" for name, number in result.versions.items()) for result in results)
    )
    return (
        f"Seeds {seeds}, trained on {' to '.join(dict.fromkeys((dates[0], dates[-1])))}, {machines}; {versions}. "
        "In parentheses: 95 % intervals of a seed, range over the seeds."
    )
