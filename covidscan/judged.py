"""What an evaluation is about: studies, and what networks said of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath

from covidscan.data import Studies
from covidscan.metrics import Threshold
from covidscan.predictions import Predictions
from covidscan.trained import Trained

OUT_OF_FOLD = "out_of_fold"  # the part of a cross-validation: each study by the network that never saw it


class Judged(NamedTuple):
    """The studies that are judged, and where the evaluation is written.

    Attributes:
      workdir: the run, or the cross-validation.
      studies: the data set.
      part: the part of it.
      external: whether it is another data set than the one trained on.
      checkpoint: as the user chose it.
      leak_check: what was compared to find studies that also trained or chose the network.
    """

    workdir: epath.Path
    studies: Studies
    part: str
    external: bool
    checkpoint: str
    leak_check: str

    @property
    def folder(self) -> epath.Path:
        """Where the evaluation is written."""
        return self.workdir / "evaluations" / folder_name(self.studies.dataset, self.part, self.checkpoint)


def folder_name(dataset: str, part: str, checkpoint: str) -> str:
    """Name an evaluation's folder."""
    return f"{dataset}-{part}-{checkpoint}".replace("/", "_")


class Answers(NamedTuple):
    """What one or several networks said of the studies.

    Attributes:
      predictions: after temperature scaling.
      threshold: of the decision, frozen before.
      operating_point: how it was chosen, see `judge.judge`.
      members: the networks; more than one of an ensemble or a cross-validation.
      seconds: that predicting took.
    """

    predictions: Predictions
    threshold: Threshold
    operating_point: dict[str, Any]
    members: Sequence[Trained]
    seconds: float
