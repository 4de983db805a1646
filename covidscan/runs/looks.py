"""How often test studies were looked at: what counts, what is of another data set, and what showed nothing new."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Lines = Sequence[Mapping[str, Any]]


class Looks(NamedTuple):
    """The openings that a report knows of.

    Attributes:
      counted: of the data set judged, oldest first.
      others: of other data sets.
      recomputed: of either, by --verify: these show nothing that was not seen before.
      mean: how often a study was opened, as a mean over the folds where each fold has test studies of its own.
      most: how often at most, of any fold; None where the openings do not tell their folds.
    """

    counted: Lines
    others: Lines
    recomputed: Lines
    mean: float
    most: int | None

    @property
    def is_repeated(self) -> bool:
        """Whether a study was opened more than once."""
        return (self.mean if self.most is None else self.most) > 1


def count(context: Mapping[str, Any]) -> Looks:
    """Sort and count the openings.

    Args:
      context: `report.Context`.
    """
    openings = context.get("test_openings", ())
    recomputed = [line for line in openings if line.get("verify")]
    new = [line for line in openings if not line.get("verify")]
    counted = [line for line in new if line["dataset"] == context["dataset"]]
    others = [line for line in new if line["dataset"] != context["dataset"]]
    if context["arrangement"] != "out_of_fold":
        return Looks(counted, others, recomputed, float(len(counted)), len(counted))
    folds = [line.get("fold") for line in counted]
    most = None if None in folds else max(Counter(folds).values(), default=0)
    return Looks(counted, others, recomputed, len(counted) / context["num_members"], most)


def describe(context: Mapping[str, Any]) -> list[str]:
    """Say how often test studies were opened, in sentences, the one on the studies judged first.

    Args:
      context: `report.Context`.
    """
    looks = count(context)
    if context["arrangement"] == "out_of_fold":
        how = _times(looks.mean)
        if looks.most is None:
            how += " on average"
        elif looks.mean != looks.most:
            how += f" on average and {_times(looks.most)} at most"
        said = [f"Each fold's own test studies were opened {how}."]
    else:
        said = [f"The test studies of {context['dataset']} were opened {_times(looks.mean)}."]
    if looks.others:
        said.append(f"Beside these, not counted: {_openings(looks.others)} of other data sets.")
    if looks.recomputed:
        said.append(f"Not counted: {_openings(looks.recomputed)} by --verify, which shows nothing new.")
    return said


def dates(context: Mapping[str, Any]) -> str:
    """List when the openings that count were made."""
    return ", ".join(line["date"] for line in count(context).counted)


def _times(number: float) -> str:
    return "once" if number == 1 else f"{number:.3g} times"


def _openings(lines: Lines) -> str:
    return f"{len(lines)} {'opening' if len(lines) == 1 else 'openings'}"
