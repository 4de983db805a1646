"""Baselines without a network on the same studies: constant predictions, a few simple features, a probe for shortcuts.

A network may separate studies by how they were scanned, or by what lies outside of the lungs, and appear to work
(DeGrave et al., Nature Machine Intelligence 2021; Maguolo & Nanni, Information Fusion 2021, who blacked out the lungs).
Where a linear model can do so, the data offer that shortcut, whether or not the network took it.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler
from threadpoolctl import threadpool_limits

from covidscan.data.dataset import Dataset
from covidscan.data.image_features import StudyFeatures, features_of
from covidscan.evaluation import regression
from covidscan.evaluation.evaluation_set import EvaluationSet, ScoredStudies
from covidscan.metrics import classification, thresholds
from covidscan.metrics.interval_methods import Interval
from covidscan.metrics.intervals import key_metrics
from covidscan.metrics.results import Baseline, Metric, Metrics
from covidscan.metrics.roc import delong

# The sentences below are part of metrics.json, which --verify compares: changing one fails older evaluations.

# Age, sex and build correlate a little with the disease and show outside of the lungs: an unbiased data set may well
# give 0.6. Two pairs of three ranked right is more than that. It must also lie further above 0.55 than chance reaches
# above 0.5, with a margin as several baselines are tested; the reach of chance is known exactly, DeLong's interval of
# few studies is not.
SHORTCUT_AUROC = 0.65
SHORTCUT_LOWEST = 0.55
FOLDS = 5  # of the training studies, by which the probe is chosen
FARTHEST = 5.0  # standard deviations from the mean: one outlier must not decide
KNOWN_SHARE = 0.25  # of the training studies that must have a feature: most have none where the thorax is
NUM_CHOSEN = (5, 50)  # features, or all: a planted mark is one among many, a patient's build is in most of them
STRENGTHS = (1e-3, 1e-1)  # C of logistic regression; the smaller, the more regularised


class _Auroc(NamedTuple):
    """AUROC of a question with its 95 % DeLong interval, None where not defined."""

    value: float | None
    interval: Interval | None
    counts: tuple[int, int]  # studies with yes, and with no

    def __str__(self) -> str:
        assert self.interval is not None
        return f"{self.value:.2f} (95 % interval {self.interval[0]:.2f} to {self.interval[1]:.2f})"

    @property
    def reach_of_chance(self) -> float:
        """The distance from 0.5 that an AUROC without skill keeps 95 % of the time (Mann & Whitney 1947)."""
        yes, no = self.counts
        return 1.96 * math.sqrt((yes + no + 1) / (12 * yes * no))

    @property
    def is_shortcut(self) -> bool:
        """True if it is high, and not by chance."""
        return self.value is not None and self.value >= max(SHORTCUT_AUROC, SHORTCUT_LOWEST + self.reach_of_chance)

    @property
    def is_no_shortcut(self) -> bool:
        """True if it is low, and not by chance, which needs 29 studies or more of yes and of no."""
        low = self.interval is not None and self.interval[1] < SHORTCUT_AUROC
        return low and 0.5 + self.reach_of_chance < SHORTCUT_AUROC


class _Features(NamedTuple):
    """A baseline on features; where `shortcut` names what they describe, doing well is a shortcut."""

    name: str
    explanation: str
    field: str
    shortcut: str = ""


_BASELINES = (
    _Features(
        "Slices and spacing",
        "Logistic regression on the number of slices and the spacing of the source.",
        "acquisition",
        "the number of slices and the spacing",
    ),
    _Features("Mean lung density", "Logistic regression on the mean HU of the lungs.", "mean_lung_hu"),
    _Features("Dense share", "Logistic regression on the share of the lungs' voxels above -700 HU.", "dense_share"),
    _Features(
        "Lungs masked out",
        "A probe: regularised logistic regression on volumes of which lungs and rib cage are masked out.",
        "outside",
        "what lies outside of lungs and rib cage",
    ),
)


class BaselineResults(NamedTuple):
    """The baselines of an evaluation, a sentence for each suspected shortcut, and notes on why there are none."""

    baselines: list[Baseline]
    shortcuts: list[str]
    notes: list[str]


def evaluate_baselines(evaluation_set: EvaluationSet, scored: ScoredStudies, own: Dataset | None) -> BaselineResults:
    """Evaluate the baselines on an evaluation set.

    Args:
      evaluation_set: the studies.
      scored: their predictions by the network.
      own: the data set that trained it; None where its records are not there.
    """
    reason = None
    if own is None:
        reason = f"the training studies' records are not in {scored.members[0].run['paths']['data_dir']}"
    elif evaluation_set.part == "train":
        reason = "they would be judged on the studies that they learn from"
    if own is None or reason:
        return BaselineResults([], [], [f"Baselines and probes were left out: {reason}."])
    train, predictions = own.parts["train"], scored.predictions
    measured = (
        features_of(own.records, train, "Measuring the training studies, for baselines"),
        own.labels.values[train],
        features_of(evaluation_set.dataset.records, evaluation_set.rows, "Measuring the studies, for baselines"),
        predictions.label,
    )
    if predictions.task == "regression":
        return BaselineResults(regression.evaluate_baselines(*measured), [], [])
    names = predictions.label_names
    found, shortcuts = compare_with_baselines(predictions.task, names, *measured, predictions.patient)
    return BaselineResults(found, shortcuts, [])


def compare_with_baselines(
    task: str,
    label_names: Sequence[str],
    train_features: StudyFeatures,
    train_label: np.ndarray,
    features: StudyFeatures,
    label: np.ndarray,
    patient: np.ndarray | None = None,
) -> tuple[list[Baseline], list[str]]:
    """Fit baselines on a run's training studies, and evaluate them on the studies on which its network is evaluated.

    Each learns a yes-or-no question: positive; graver than the first grade, for severity; each class against the rest.
    Its threshold is 0.5 of its own probability, labels weighted alike: the network's does not apply to it.

    Args:
      task: "binary", "severity", "classes" or "multilabel".
      label_names: a name for each label.
      train_features: of the training studies.
      train_label: (training study,); of multilabel (training study, label).
      features: of the evaluated studies.
      label: (study,).
      patient: (study,), see `Predictions`.

    Returns:
      The baselines; "auroc" of classes is the mean over the classes. And a sentence for each suspected shortcut:
      slices and spacing, or the volumes without lungs, reach an AUROC of at least 0.65, and one beyond chance.
      Otherwise the explanation says whether there is no shortcut, or the studies are too few to tell.
    """
    train_label, label = np.asarray(train_label), np.asarray(label)
    baselines, shortcuts = _constants(task, label_names, train_label, label, patient), []
    train_yes, all_yes = (_dichotomies(task, values, len(label_names)) for values in (train_label, label))
    asked = {"binary": ["positive studies"], "severity": [f"studies graver than {label_names[0]}"]}.get(
        task, [f"studies of {name}" for name in label_names]
    )
    for spec in _BASELINES:
        train_values = getattr(train_features, spec.field).reshape(len(train_label), -1)
        values = getattr(features, spec.field).reshape(len(label), -1)
        scores = [_scores(spec.field, train_values, yes, values) for yes in train_yes]
        aurocs = [_auroc(yes, score, patient) for yes, score in zip(all_yes, scores, strict=True)]
        baselines.append(
            Baseline(
                name=spec.name,
                explanation=f"{spec.explanation} {_verdict(aurocs)}" if spec.shortcut else spec.explanation,
                kind="probe" if spec.field == "outside" else "features",
                metrics=_metrics(task, label, scores, aurocs, patient),
            )
        )
        if spec.shortcut:
            shortcuts += [
                f"{spec.name}: {spec.shortcut} alone tell {question} from the others with an AUROC of {auroc}; the "
                "network may have learned this in place of the disease."
                for question, auroc in zip(asked, aurocs, strict=True)
                if auroc.is_shortcut
            ]
    return baselines, shortcuts


def _constants(
    task: str,
    label_names: Sequence[str],
    train_label: np.ndarray,
    label: np.ndarray,
    patient: np.ndarray | None,
) -> list[Baseline]:
    """Evaluate the two baselines that do not look at the study; of multilabel that of prevalence."""
    if task == "multilabel":
        explanation = "Gives every study each label's share of the training studies as its probability."
        return [Baseline("Prevalence", explanation, "constant", {"auroc": Metric(0.5)})]
    share = np.bincount(train_label, minlength=len(label_names)) / len(train_label)
    # The constant of the table of metrics, so that a report has one.
    always = classification.constant_probability(task, label, len(label_names))[1][0]
    constant = label_names[always.argmax()]
    constants = [
        (f"Always {constant}", f"Answers {constant} whatever the study.", always),
        ("Prevalence", "Gives every study each label's share of the training studies as its probability.", share),
    ]
    baselines = []
    for name, explanation, probability in constants:
        metrics = key_metrics(task, label, np.tile(probability, (len(label), 1)), 0.5, patient)
        metrics["auroc"] = Metric(metrics["auroc"].value)  # 0.5 by definition, without an interval
        baselines.append(Baseline(name, explanation, "constant", metrics))
    return baselines


def _dichotomies(task: str, label: np.ndarray, num_labels: int) -> list[np.ndarray]:
    """Return the yes or no of each question of a task by the reference standard, (study,) bool each."""
    questions = thresholds.dichotomies(task, label, np.zeros((len(label), num_labels)))
    return [yes for yes, _ in (questions[:1] if task == "severity" else questions)]


def _scores(field: str, train_values: np.ndarray, yes: np.ndarray, values: np.ndarray) -> np.ndarray | None:
    """Fit on (study, feature), predict the probability of yes (study,); None if the training studies do not suffice."""
    fewest = int(min(yes.sum(), (~yes).sum()))
    known = np.isfinite(train_values).mean(axis=0) >= KNOWN_SHARE
    if fewest < 2 or not known.any():
        return None
    model = _model(field, min(FOLDS, fewest), int(known.sum()))
    with threadpool_limits(1):  # many small products: several threads take five times as long
        return model.fit(train_values[:, known], yes).predict_proba(values[:, known])[:, 1]


def _auroc(yes: np.ndarray, score: np.ndarray | None, patient: np.ndarray | None) -> _Auroc:
    counts = int(yes.sum()), int((~yes).sum())
    if score is None:
        return _Auroc(None, None, counts)
    found = delong(yes, score, patient)
    return _Auroc(found.auroc, found.interval, counts)


def _model(field: str, folds: int, num_features: int) -> Any:
    regression = LogisticRegression(class_weight="balanced", max_iter=1000)
    if field == "acquisition":  # squares, as one label's slice counts may lie on both sides
        return make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False), StandardScaler(), regression)
    filled = (StandardScaler(), SimpleImputer(strategy="constant", fill_value=0.0))  # the mean, after scaling
    if field != "outside":
        return make_pipeline(*filled, regression)
    clipped = FunctionTransformer(np.clip, kw_args={"a_min": -FARTHEST, "a_max": FARTHEST})
    return GridSearchCV(
        make_pipeline(*filled, clipped, SelectKBest(_separation), regression),
        {"selectkbest__k": [*(k for k in NUM_CHOSEN if k < num_features), "all"], "logisticregression__C": STRENGTHS},
        scoring="roc_auc",
        cv=StratifiedKFold(folds, shuffle=True, random_state=0),
    )


def _separation(values: np.ndarray, yes: np.ndarray) -> np.ndarray:
    """Compute ANOVA's F of each feature; 0 of one that is the same in all studies."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", UserWarning)
        return np.nan_to_num(f_classif(values, yes)[0])


def _metrics(
    task: str,
    label: np.ndarray,
    scores: Sequence[np.ndarray | None],
    aurocs: Sequence[_Auroc],
    patient: np.ndarray | None,
) -> Metrics:
    """Combine the questions of a task; severity has a baseline for its first question only."""
    fitted = [score for score in scores if score is not None]
    if task == "binary" and fitted:
        return key_metrics(task, label, np.stack([1 - fitted[0], fitted[0]], axis=1), 0.5, patient)
    if task == "severity" or task == "binary":
        return {"auroc": Metric(aurocs[0].value, aurocs[0].interval)}
    values = [auroc.value for auroc in aurocs if auroc.value is not None]
    mean = {"auroc": Metric(float(np.mean(values)) if values else None)}
    if len(fitted) < len(scores):
        return mean
    return key_metrics(task, label, np.stack(fitted, axis=1), 0.5, patient)


def _verdict(aurocs: Sequence[_Auroc]) -> str:
    """Write in a sentence what the AUROCs of a task's questions mean."""
    if any(auroc.is_shortcut for auroc in aurocs):
        return "It does too well: a shortcut is suspected."
    if all(auroc.is_no_shortcut for auroc in aurocs):
        return f"It stays below an AUROC of {SHORTCUT_AUROC}, interval included: no sign of a shortcut."
    return "Whether there is a shortcut cannot be told with this few studies."
