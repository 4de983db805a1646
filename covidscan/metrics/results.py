"""Result of an evaluation, as metrics.json holds it."""

from dataclasses import dataclass, field

from covidscan.metrics.interval_methods import Interval


@dataclass(frozen=True)
class Metric:
    """A metric with its 95 % confidence interval.

    Attributes:
      value: None where it is not defined on these studies.
      interval: (low, high); None where there is none.
      method: of the interval: "Wilson", "DeLong", "bootstrap", "jackknife", "delta method", or, where these would have
        no width, as that of the AUROC at perfect separation, `interval_methods.WILSON_OF_RAREST`.
      baseline: the same metric of the constant prediction, see `Evaluation.baseline`.
    """

    value: float | None
    interval: Interval | None = None
    method: str | None = None
    baseline: float | None = None


Metrics = dict[str, Metric]  # by name, see `classification.TITLES`


@dataclass(frozen=True)
class OperatingPoint:
    """The decision threshold and the recalibration of a checkpoint, chosen on its validation studies.

    Attributes:
      criterion: "youden", "sensitivity" or "cost"; "default" where no threshold could be chosen.
      description: the criterion in a sentence.
      threshold: a study with at least this probability, after recalibration, is called positive (binary) or graver
        (severity); None for the task "classes", which takes the likeliest label, and where each fold of a
        cross-validation has its own.
      temperature: divides the log-odds, see `recalibration.recalibrate`.
      num_studies: validation studies on which these were chosen, of all folds where each has its own.
      step: the checkpoint.
      fewest_studies: the least validation studies of which a recalibration is applied; 0 in older files, which knew no
        minimum and applied a temperature at the bound of its search.
      num_in_smallest_fold: `num_studies` of the fold with the fewest; None where one network has chosen.
      offsets: added to the log-odds, one a label, or a question of the task "severity"; 0 where none are applied, none
        in older files, which knew a temperature only.
      grade_thresholds: of the task "severity", one for each question "graver than k"; the first is `threshold`. None
        in older files, where `threshold` is that of every question. Of the task "multilabel", one for each label.
      prevalence: share of positives among the validation studies, which the probabilities are calibrated to; None where
        they are not recalibrated, in older files, and of the other tasks.
      adapted_to: the prevalence to which probabilities and threshold were adapted; None: to none.
      tta: the set of views over which logits were averaged, see `models.views`; "": none.
      smooths_targets: whether a fit that would run away is made with smoothed targets; older files refused it.
    """

    criterion: str
    description: str
    threshold: float | None
    temperature: float
    num_studies: int
    step: int
    fewest_studies: int = 0
    num_in_smallest_fold: int | None = None
    offsets: list[float] = field(default_factory=list)
    grade_thresholds: list[float] = field(default_factory=list)
    prevalence: float | None = None
    adapted_to: float | None = None
    tta: str = ""
    smooths_targets: bool = False

    @property
    def is_recalibrated(self) -> bool:
        """Return whether probabilities are changed."""
        return self.temperature != 1 or any(self.offsets)


@dataclass(frozen=True)
class ReliabilityBin:
    """The studies of one bin of a reliability diagram.

    Attributes:
      low: the lowest predicted probability.
      high: the highest.
      mean_probability: the mean predicted probability.
      observed: the share of positives.
      count: studies.
      interval: 95 % Wilson interval of `observed`.
    """

    low: float
    high: float
    mean_probability: float
    observed: float
    count: int
    interval: Interval


@dataclass(frozen=True)
class Reliability:
    """The calibration of one set of probabilities.

    Attributes:
      metrics: "brier", "ece", "slope" and "intercept".
      bins: of the reliability diagram, rising.
    """

    metrics: Metrics
    bins: list[ReliabilityBin]


@dataclass(frozen=True)
class Calibration:
    """The calibration before and after recalibration.

    Attributes:
      question: the yes-or-no question whose probability is examined.
      before: of the network's own probabilities.
      after: of those after recalibration.
    """

    question: str
    before: Reliability
    after: Reliability


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit by threshold (Vickers & Elkin, Medical Decision Making 2006).

    Attributes:
      threshold: 0.01 ... 0.99.
      model: net benefit of acting on the model, at each threshold.
      treat_all: net benefit of acting on every study.
      prevalence: the share of positives.
    """

    threshold: list[float]
    model: list[float]
    treat_all: list[float]
    prevalence: float


@dataclass(frozen=True)
class SmallestDifference:
    """The difference that a two-sided test at 5 % finds with a power of 80 %, between two models on the same studies.

    Attributes:
      auroc: difference in AUROC, or None where it has no interval.
      accuracy: difference in accuracy.
      description: one sentence with the assumptions.
    """

    auroc: float | None
    accuracy: float
    description: str


@dataclass(frozen=True)
class Failure:
    """A study whose prediction is wrong.

    Attributes:
      study_id: the study.
      kind: "False negative", "False positive", or "Wrong" for tasks with several labels; "Overestimated" or
        "Underestimated" of regression.
      reference: the label of the reference standard.
      prediction: the predicted label.
      probability: of positive, or of the reference label for tasks with several labels; of regression the error,
        prediction minus reference.
      category: of the study, as the data set has it.
    """

    study_id: str
    kind: str
    reference: str
    prediction: str
    probability: float
    category: str


@dataclass(frozen=True)
class Baseline:
    """A simpler model on the same studies.

    Attributes:
      name: of the baseline.
      explanation: what it predicts from; of a probe also its verdict.
      kind: "constant", "features" or "probe".
      metrics: "auroc" and, where defined, "sensitivity", "specificity" and "accuracy".
    """

    name: str
    explanation: str
    kind: str
    metrics: Metrics


@dataclass(frozen=True)
class Group:
    """A group of studies.

    Attributes:
      name: of the group.
      num_studies: studies in it.
      num_positive: positive ones, or graver than the first grade; None of the task "classes".
      metrics: as of `Baseline`.
    """

    name: str
    num_studies: int
    num_positive: int | None
    metrics: Metrics


@dataclass(frozen=True)
class Subgroups:
    """The studies, grouped by one property.

    Attributes:
      by: the property.
      groups: two or more.
    """

    by: str
    groups: list[Group]


@dataclass(frozen=True)
class Difference:
    """The difference of a metric between two runs on the same studies.

    Attributes:
      difference: the evaluated run minus the other.
      interval: 95 %.
      p_value: two-sided.
      method: the test, "DeLong", "McNemar", "jackknife" or "bootstrap".
    """

    difference: float
    interval: Interval
    p_value: float
    method: str


@dataclass(frozen=True)
class Comparison:
    """The evaluated run against another one.

    Attributes:
      other: the other run, as the user named it.
      num_studies: studies of both.
      metrics: see `comparison.compare`.
      description: what was compared, in a sentence.
    """

    other: str
    num_studies: int
    metrics: dict[str, Difference]
    description: str


@dataclass(frozen=True)
class Spread:
    """A metric over several runs.

    Attributes:
      mean: None of no run, as are `lowest` and `highest`.
      sd: standard deviation of a sample; None of fewer than two runs.
      lowest: the lowest value.
      highest: the highest.
      runs: in which the metric is defined.
    """

    mean: float | None
    sd: float | None
    lowest: float | None
    highest: float | None
    runs: int


@dataclass(frozen=True)
class Member:
    """One of several runs: its name, and the values of its metrics."""

    name: str
    metrics: dict[str, float | None]


@dataclass(frozen=True)
class Repeats:
    """Several runs of one experiment.

    Attributes:
      kind: "folds" or "runs" (of several seeds).
      members: the runs.
      metrics: the spread of each metric.
    """

    kind: str
    members: list[Member]
    metrics: dict[str, Spread]


@dataclass(frozen=True)
class MetricsTable:
    """Metrics, compared with those of the constant prediction.

    Attributes:
      baseline: name of the constant prediction.
      metrics: name -> metric, with the baseline's.
      confusion_matrix: studies; a row a reference label, a column a predicted one.
    """

    baseline: str
    metrics: Metrics
    confusion_matrix: list[list[int]]


@dataclass(frozen=True)
class LabelResult:
    """The evaluation of one label of the task "multilabel": whether a study has it.

    Attributes:
      name: of the label.
      num_positive: studies that have it.
      threshold: of the decision; None where each fold has its own.
      metrics: of the yes-or-no question, with those of always answering yes.
      calibration: of its probability.
    """

    name: str
    num_positive: int
    threshold: float | None
    metrics: Metrics
    calibration: Calibration


@dataclass(frozen=True)
class Regression:
    """The agreement of predicted numbers with the reference standard; differences are prediction minus reference.

    Attributes:
      constant: the mean of the training studies' labels, to which the network is compared.
      gains: "mae" and "rmse" of the constant minus those of the network: above 0 where the network is better.
      bias: the mean difference.
      deviation: standard deviation of the differences; None of fewer than three studies.
      lower: limit of agreement, 1.96 standard deviations below the bias.
      upper: likewise above it.
    """

    constant: float
    gains: Metrics
    bias: Metric
    deviation: float | None
    lower: Metric
    upper: Metric


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of predictions against the reference standard. Intervals are of 95 %.

    Attributes:
      task: "binary", "severity", "classes", "multilabel" or "regression"; the last two have no confusion matrix.
      num_studies: evaluated studies.
      label_names: a name for each label.
      counts: label -> studies; of "multilabel" a study may count for several.
      category_counts: category of the data set -> studies.
      threshold: of the decision; None where each fold has its own, or the task has none.
      operating_point: how threshold and recalibration were chosen.
      baseline: name of the constant prediction that the metrics are compared with.
      metrics: name -> metric, with the baseline's.
      confusion_matrix: studies; a row a reference label, a column a predicted one.
      sensitivities: label -> share of its studies that are predicted right; None of a label that no study has.
      notes: sentences on what is not defined or was left out.
      calibration: of the task's yes-or-no question.
      decision_curve: None of the task "classes", or where only one label is present.
      smallest_difference: that so many studies can show; None of the task "classes".
      failures: the worst, worst first.
      baselines: simpler models on the same studies.
      shortcuts: a sentence for each suspected shortcut.
      subgroups: of the studies.
      comparison: with another run.
      repeats: folds, or runs of other seeds.
      disease: of the task "severity" alone: the first grade against the others.
      warnings: a sentence for each result that rests on too few studies.
      regression: of the task "regression" alone: the agreement with the reference standard.
      labels: of the task "multilabel" alone: each label's results; `calibration` is None there.
    """

    task: str
    num_studies: int
    label_names: list[str]
    counts: dict[str, int]
    category_counts: dict[str, int]
    threshold: float | None
    operating_point: OperatingPoint
    baseline: str
    metrics: Metrics
    confusion_matrix: list[list[int]]
    sensitivities: dict[str, float | None]
    notes: list[str]
    calibration: Calibration | None
    decision_curve: DecisionCurve | None
    smallest_difference: SmallestDifference | None
    failures: list[Failure]
    baselines: list[Baseline]
    shortcuts: list[str]
    subgroups: list[Subgroups]
    comparison: Comparison | None
    repeats: Repeats | None
    disease: MetricsTable | None = None
    warnings: list[str] = field(default_factory=list)
    regression: Regression | None = None
    labels: list[LabelResult] = field(default_factory=list)
