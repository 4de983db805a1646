"""Log of every evaluation on the test split: a line of WORKDIR/test_openings.jsonl each.

Every evaluation on test studies invites a change of the method to suit them, so reports count them.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence

from etils import epath

from covidscan.metrics.provenance import TestAccess
from tfds_mosmed import storage
from tfds_mosmed.errors import NOT_AS_WRITTEN, UserError

FILE = "test_openings.jsonl"


def record(workdir: epath.PathLike, access: TestAccess) -> None:
    """Append a line, before a test study is predicted; only process 0 calls it."""
    path = epath.Path(workdir) / FILE
    with storage.exclusive(path):
        before = path.read_bytes() if path.exists() else b""
        storage.write_whole(path, before + json.dumps(dataclasses.asdict(access)).encode() + b"\n")


def read(workdir: epath.PathLike) -> list[TestAccess]:
    """Read all test accesses so far, oldest first.

    Raises:
      UserError: the file is not as it was written.
    """
    path = epath.Path(workdir) / FILE
    accesses = []
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], 1):
        try:
            accesses.append(_access(line))
        except NOT_AS_WRITTEN as error:
            raise UserError(
                f"{path}: line {number} is not as evaluation wrote it ({error}): put it right from a copy, or remove "
                "that line, and the report will count one access less"
            ) from error
    return accesses


def _access(line: bytes) -> TestAccess:
    access = TestAccess(**json.loads(line))
    kinds = (access.date, str), (access.dataset, str), (access.checkpoint, int), (access.command, str)
    added = (access.fold, int | None), (access.network, str | None), (access.choices, str | None)
    for value, kind in (*kinds, (access.verify, bool), *added):
        if not isinstance(value, kind):
            raise TypeError(f"{value!r} there")
    return access


@dataclasses.dataclass(frozen=True)
class TestAccessCount:
    """Number of times that the studies of an evaluation were evaluated.

    Attributes:
      dataset: the evaluated data set, NAME/CONFIG.
      counted: test accesses to this data set, oldest first, without repetitions.
      repetitions: those to this data set by a network and choices that had already predicted it: they show nothing new.
      other_datasets: test accesses to other data sets.
      verifications: of either, by --verify: they show nothing new.
      num_folds: of a cross-validation, where each fold has its own test studies; None otherwise.
    """

    __test__ = False  # not a test case, despite its name

    dataset: str
    counted: Sequence[TestAccess]
    repetitions: Sequence[TestAccess]
    other_datasets: Sequence[TestAccess]
    verifications: Sequence[TestAccess]
    num_folds: int | None

    @property
    def mean(self) -> float:
        """Mean number over the folds."""
        return len(self.counted) / (self.num_folds or 1)

    @property
    def maximum(self) -> int | None:
        """Highest number of any fold; None where the folds are not known."""
        if self.num_folds is None:
            return len(self.counted)
        folds = [access.fold for access in self.counted]
        return None if None in folds else max(Counter(folds).values(), default=0)

    @property
    def is_repeated(self) -> bool:
        """True if a study was evaluated more than once, by several networks or choices."""
        return (self.mean if self.maximum is None else self.maximum) > 1

    @property
    def dates(self) -> str:
        """Dates of the counted test accesses, separated by commas."""
        return ", ".join(access.date for access in self.counted)

    def describe(self) -> list[str]:
        """Return sentences for a report; the first is about the evaluated data set."""
        if self.num_folds is None:
            sentences = [f"The test studies of {self.dataset} were evaluated {_times(self.mean)}."]
        else:
            times = _times(self.mean)
            if self.maximum is None:
                times += " on average"
            elif self.mean != self.maximum:
                times += f" on average and {_times(self.maximum)} at most"
            sentences = [f"Each fold's own test studies were evaluated {times}."]
        if self.repetitions:
            sentences.append(
                f"Not counted: {_evaluations(self.repetitions)} that repeated one with the same network, threshold and "
                "temperature."
            )
        if self.other_datasets:
            sentences.append(f"Not counted: {_evaluations(self.other_datasets)} of other data sets.")
        if self.verifications:
            sentences.append(f"Not counted: {_evaluations(self.verifications)} by --verify, which shows nothing new.")
        return sentences


def count(accesses: Sequence[TestAccess], dataset: str, num_folds: int | None = None) -> TestAccessCount:
    """Count test accesses.

    Args:
      accesses: all that are known.
      dataset: the evaluated data set, NAME/CONFIG.
      num_folds: where the evaluation is the out-of-fold one of a cross-validation, its number of folds.
    """
    new = [access for access in accesses if not access.verify]
    counted: list[TestAccess] = []
    repetitions = []
    for access in new:
        if access.dataset == dataset:
            (repetitions if any(_repeats(access, before) for before in counted) else counted).append(access)
    return TestAccessCount(
        dataset=dataset,
        counted=counted,
        repetitions=repetitions,
        other_datasets=[access for access in new if access.dataset != dataset],
        verifications=[access for access in accesses if access.verify],
        num_folds=num_folds,
    )


def _repeats(access: TestAccess, before: TestAccess) -> bool:
    """True if an access predicted with the network and choices of an earlier one; of older logs it is not known."""
    same = access.network is not None and access.network == before.network and access.fold == before.fold
    return same and (access.choices in (None, before.choices) or before.choices is None)


def _times(number: float) -> str:
    return "once" if number == 1 else f"{number:.3g} times"


def _evaluations(accesses: Sequence[TestAccess]) -> str:
    return f"{len(accesses)} {'evaluation' if len(accesses) == 1 else 'evaluations'}"
