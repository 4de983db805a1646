"""Provenance of an evaluation, as metrics.json holds it."""

from dataclasses import dataclass, field
from typing import Any

from tfds_mosmed.building.cohort import CohortSummary


@dataclass(frozen=True)
class TestAccess:
    """One evaluation on test studies, as WORKDIR/test_openings.jsonl logs it.

    Attributes:
      date: ISO 8601.
      dataset: NAME/CONFIG of the studies.
      checkpoint: step of the network that predicted them.
      command: what was typed.
      verify: whether it computed a known evaluation again, and so showed nothing new.
      fold: the fold of a cross-validation whose test part it was; None of other runs, or where it is not known.
      network: checksum of the parameters that predicted; None in older logs.
      choices: the threshold and the temperature; None where none were used, or in older logs.
    """

    __test__ = False  # no test case, whatever pytest thinks of its name

    date: str
    dataset: str
    checkpoint: int
    command: str
    verify: bool = False
    fold: int | None = None
    network: str | None = None
    choices: str | None = None


@dataclass(frozen=True)
class StudyFlow:
    """Studies from the source to the parts.

    Attributes:
      found: in the source.
      skipped: left out of the records.
      parts: part -> studies.
      protocol: by which they were split.
    """

    found: int
    skipped: int
    parts: dict[str, int]
    protocol: str


@dataclass(frozen=True)
class DataWarning:
    """Warning about studies in the records of a data set.

    Attributes:
      dataset: the data set, NAME/CONFIG.
      text: of the first study.
      studies: the first few of them.
      counts: part -> number of them.
    """

    dataset: str
    text: str
    studies: list[str]
    counts: dict[str, int]


@dataclass(frozen=True)
class UsedNetwork:
    """Network that predicted.

    Attributes:
      workdir: its run.
      model: its architecture, the flag --model.
      num_parameters: of it.
      checkpoint: step.
    """

    workdir: str
    model: str
    num_parameters: int
    checkpoint: int


@dataclass(frozen=True)
class EvaluationOptions:
    """Optional parts of an evaluation.

    Attributes:
      metadata: CSV file with a column study_id; its other columns make subgroups.
      compare: workdir of another run, tested against this one on the same studies.
      repeats: workdirs of runs of the same experiment with other seeds, summarized together with this one.
      prevalence: to which probabilities and threshold are adapted; None: to none.
      tta: the set of views over which logits are averaged, see `models.views`; "": none.
    """

    metadata: str | None = None
    compare: str | None = None
    repeats: list[str] = field(default_factory=list)
    prevalence: float | None = None
    tta: str = ""


@dataclass(frozen=True)
class Provenance:
    """Data, networks and software of an evaluation.

    Attributes:
      config: the run's resolved flags; "dataset" is the one it was trained on.
      workdir: the run.
      dataset: the evaluated data set, NAME/CONFIG.
      fingerprint: of its records.
      split_hash: of its parts.
      part: "train", "validation" or "test"; "out_of_fold": all studies, each predicted by the network of its fold.
      external: whether the studies come from another data set than the one trained on.
      is_phantom: whether studies that trained or are evaluated are synthetic.
      counts: part -> label -> studies, of the evaluated data set.
      skipped: (study, reason) of studies left out of the records.
      flow: the same in numbers.
      leak_check: what was compared with what.
      test_accesses: every evaluation on the test part, this one included.
      checkpoint: step of the checkpoint.
      checkpoint_choice: how it was chosen: "best", "latest" or the step.
      num_parameters: of the first network.
      num_members: networks, 1 of "single".
      arrangement: of the networks: "single" is one; "ensemble" are several whose probabilities are averaged;
        "out_of_fold" are those of a cross-validation, each study predicted by the one that never saw it.
      trained_split_hash: of the parts of the data set trained on.
      options: what was asked for besides.
      computed_on: "device" and "platform".
      versions: package -> version, the code's own among them.
      seconds: what took time -> how long.
      date: ISO 8601.
      commands: that reproduce the evaluation.
      data_warnings: about the studies evaluated, and about those trained on.
      left_out: number of files that were not read although they may hold studies of the evaluated data set, by suffix.
      cohort: summary of the evaluated data set, all parts; None of earlier versions.
      networks: that predicted; empty in earlier versions.
    """

    config: dict[str, Any]
    workdir: str
    dataset: str
    fingerprint: str
    split_hash: str
    part: str
    external: bool
    is_phantom: bool
    counts: dict[str, dict[str, int]]
    skipped: list[tuple[str, str]]
    flow: StudyFlow
    leak_check: str
    test_accesses: list[TestAccess]
    checkpoint: int
    checkpoint_choice: str
    num_parameters: int
    num_members: int
    arrangement: str
    trained_split_hash: str
    options: EvaluationOptions
    computed_on: dict[str, str]
    versions: dict[str, str]
    seconds: dict[str, float]
    date: str
    commands: list[str]
    data_warnings: list[DataWarning] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    cohort: CohortSummary | None = None
    networks: list[UsedNetwork] = field(default_factory=list)
