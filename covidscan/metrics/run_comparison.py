"""Comparison of several evaluated runs, as compare.json holds it."""

from dataclasses import dataclass
from typing import Any

from covidscan.metrics.results import Difference, Metrics


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs, with its evaluation.

    Attributes:
      name: unique among the runs.
      workdir: as the user named it.
      dataset: the evaluated data set, NAME/CONFIG.
      part: of it, see `Provenance.part`.
      external: whether it is another data set than the one trained on.
      arrangement: of the networks, see `Provenance.arrangement`.
      num_studies: evaluated studies.
      counts: label -> evaluated studies.
      metrics: name -> metric, with the constant prediction's.
      calibration: "brier", "ece", "slope" and "intercept" after temperature scaling; empty where it was not examined.
      threshold: see `Evaluation.threshold`.
      checkpoint: step.
      num_steps: of the last line of the run's log; None where there is no log.
      num_parameters: of one network.
      training_rate: median volumes per second over the lines of the log but the first, which holds the compilation.
      inference_rate: volumes per second of the evaluation, compilation included.
      fingerprint: of the evaluated records.
      split_hash: of the parts of the evaluated data set.
      trained_split_hash: of the parts of the data set trained on.
      device: on which the evaluation was computed.
      code_version: of CovidScan, which trained it.
      date: of the evaluation, ISO 8601.
      warnings: baselines that it does not beat, suspected shortcuts, results that rest on too few studies.
    """

    name: str
    workdir: str
    dataset: str
    part: str
    external: bool
    arrangement: str
    num_studies: int
    counts: dict[str, int]
    metrics: Metrics
    calibration: Metrics
    threshold: float | None
    checkpoint: int
    num_steps: int | None
    num_parameters: int
    training_rate: float | None
    inference_rate: float | None
    fingerprint: str
    split_hash: str
    trained_split_hash: str
    device: str
    code_version: str
    date: str
    warnings: list[str]


@dataclass(frozen=True)
class Pair:
    """Two of the runs.

    Attributes:
      first: name of the run.
      second: of the run that is subtracted.
      num_shared: studies that both were evaluated on.
      num_alone: studies that only the first, and only the second was evaluated on.
      alone: ids of the first few of them; none of data sets whose ids are names of a user's files.
      differences: metric -> difference, see `comparison.compare`; empty unless both were evaluated on the same studies.
      corrected: the p-values of these after Holm's correction over all pairs, and over the labels of multilabel.
      description: what was compared, in a sentence or two.
    """

    first: str
    second: str
    num_shared: int
    num_alone: tuple[int, int]
    alone: tuple[list[str], list[str]]
    differences: dict[str, Difference]
    corrected: dict[str, float]
    description: str


@dataclass(frozen=True)
class RunComparison:
    """Several runs of one task.

    Attributes:
      task: of all of them.
      label_names: of the task.
      baseline: name of the constant prediction; None where the runs' differ.
      runs: in the order in which the user named them.
      pairs: each two of them.
      flags: flag -> value of each run, of the flags that differ.
      versions: package -> version of each run, of those that differ.
    """

    task: str
    label_names: list[str]
    baseline: str | None
    runs: list[ComparedRun]
    pairs: list[Pair]
    flags: dict[str, list[Any]]
    versions: dict[str, list[Any]]
