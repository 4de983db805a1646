"""What is reached without a network on the same studies: constant answers, a few plain features, a probe for shortcuts.

A network may tell studies apart by how they were scanned, or by what lies outside of the lungs, and look able (DeGrave
et al., Nature Machine Intelligence 2021; Maguolo & Nanni, Information Fusion 2021, who blacked out the lungs). Where a
linear model can, the data offer that shortcut, whether or not the network took it.
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

from covidscan.data.image_features import StudyFeatures
from covidscan.metrics import thresholds
from covidscan.metrics.figures import Metrics, auroc_figure, judged_figures

# Age, sex and build go with the disease a little and show outside of the lungs: a fair data set may well give 0.6. Two
# pairs of three ranked right is more than that. It must also lie further above 0.55 than luck reaches above 0.5, with a
# reserve as several are looked at; luck's reach is known exactly, DeLong's interval of few studies is not.
SHORTCUT_AUROC = 0.65
SHORTCUT_LOWEST = 0.55
FOLDS = 5  # of the training studies, by which the probe is chosen
FARTHEST = 5.0  # standard deviations from the mean: one odd study must not decide
KNOWN_SHARE = 0.25  # of the training studies that must have a feature: most have none where the thorax is
NUM_CHOSEN = (5, 50)  # features, or all: a planted mark is one among many, a patient's build is in most of them
STRENGTHS = (1e-3, 1e-1)  # C of logistic regression; the smaller, the more regularised


class _Auroc(NamedTuple):
    """AUROC of a question with its 95 % DeLong interval, None where not defined."""

    value: float | None
    interval: list[float] | None
    counts: tuple[int, int]  # of studies by answer

    def __str__(self) -> str:
        assert self.interval is not None
        return f"{self.value:.2f} (95 % interval {self.interval[0]:.2f} to {self.interval[1]:.2f})"

    @property
    def luck(self) -> float:
        """How far from 0.5 an AUROC without skill strays, 95 % of the time (Mann & Whitney 1947)."""
        yes, no = self.counts
        return 1.96 * math.sqrt((yes + no + 1) / (12 * yes * no))

    @property
    def is_shortcut(self) -> bool:
        """Whether it is high, and not by luck."""
        return self.value is not None and self.value >= max(SHORTCUT_AUROC, SHORTCUT_LOWEST + self.luck)

    @property
    def is_no_shortcut(self) -> bool:
        """Whether it is low, and not by luck: with 29 studies of each answer or more."""
        low = self.interval is not None and self.interval[1] < SHORTCUT_AUROC
        return low and 0.5 + self.luck < SHORTCUT_AUROC


class _Plain(NamedTuple):
    """A baseline on features; where `looks_at` says what they look at, doing well is a shortcut."""

    name: str
    what: str
    field: str
    looks_at: str = ""


_PLAIN = (
    _Plain(
        "Slices and spacing",
        "Logistic regression on the number of slices and the spacing of the source.",
        "acquisition",
        "the number of slices and the spacing",
    ),
    _Plain("Mean lung density", "Logistic regression on the mean HU of the lungs.", "mean_lung_hu"),
    _Plain("Dense share", "Logistic regression on the share of the lungs' voxels above -700 HU.", "dense_share"),
    _Plain(
        "Lungs masked out",
        "A probe: regularised logistic regression on volumes of which lungs and rib cage are masked out.",
        "outside",
        "what lies outside of lungs and rib cage",
    ),
)


def compare_with_baselines(
    task: str,
    label_names: Sequence[str],
    train_features: StudyFeatures,
    train_label: np.ndarray,
    features: StudyFeatures,
    label: np.ndarray,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Fit baselines on a run's training studies, and judge them on the studies on which its network is judged.

    Each learns to answer yes or no: positive; graver than the first grade, for severity; each class against the rest.
    Its threshold is 0.5 of its own probability, labels weighted alike: the network's says nothing of it.

    Args:
      task: "binary", "severity" or "classes".
      label_names: a name for each label.
      train_features: of the training studies.
      train_label: (training study,).
      features: of the judged studies.
      label: (study,).

    Returns:
      The baselines, {"name", "what", "kind": "constant", "features" or "probe", "figures": name -> {"value",
      "interval"}}; "auroc" of classes is the mean over the classes. And a sentence for each shortcut that is suspected:
      slices and spacing, or the volumes without lungs, reach an AUROC of at least 0.65, and one beyond luck.
      Where they do not, "what" says whether that is a finding or the studies are too few to tell.
    """
    train_label, label = np.asarray(train_label), np.asarray(label)
    baselines, shortcuts = _constants(task, label_names, train_label, label), []
    train_answers, answers = (_answers(task, values, len(label_names)) for values in (train_label, label))
    asked = {"binary": ["positive studies"], "severity": [f"studies graver than {label_names[0]}"]}.get(
        task, [f"studies of {name}" for name in label_names]
    )
    for plain in _PLAIN:
        trained_on = getattr(train_features, plain.field).reshape(len(train_label), -1)
        judged_on = getattr(features, plain.field).reshape(len(label), -1)
        scores = [_scores(plain.field, trained_on, yes, judged_on) for yes in train_answers]
        aurocs = [_auroc(yes, score) for yes, score in zip(answers, scores, strict=True)]
        baselines.append(
            {
                "name": plain.name,
                "what": f"{plain.what} {_verdict(aurocs)}" if plain.looks_at else plain.what,
                "kind": "probe" if plain.field == "outside" else "features",
                "figures": _figures(task, label, scores, aurocs),
            }
        )
        if plain.looks_at:
            shortcuts += [
                f"{plain.name}: {plain.looks_at} alone tell {question} from the others with an AUROC of {auroc}; the "
                "network may have learned this in place of the disease."
                for question, auroc in zip(asked, aurocs, strict=True)
                if auroc.is_shortcut
            ]
    return baselines, shortcuts


def _constants(
    task: str, label_names: Sequence[str], train_label: np.ndarray, label: np.ndarray
) -> list[dict[str, Any]]:
    """Judge the two baselines that look at nothing."""
    share = np.bincount(train_label, minlength=len(label_names)) / len(train_label)
    answer = 1 if task == "binary" else int(share.argmax())
    always = np.eye(len(label_names))[answer]
    told = [
        (f"Always {label_names[answer]}", f"Answers {label_names[answer]} whatever the study.", always),
        ("Prevalence", "Gives every study each label's share of the training studies as its probability.", share),
    ]
    baselines = []
    for name, what, probability in told:
        figures = judged_figures(task, label, np.tile(probability, (len(label), 1)), 0.5)
        figures["auroc"]["interval"] = None  # 0.5 by definition
        baselines.append({"name": name, "what": what, "kind": "constant", "figures": figures})
    return baselines


def _answers(task: str, label: np.ndarray, num_labels: int) -> list[np.ndarray]:
    """Answer a task's questions by the reference standard: (study,) bool each."""
    questions = thresholds.dichotomies(task, label, np.zeros((len(label), num_labels)))
    return [yes for yes, _ in (questions[:1] if task == "severity" else questions)]


def _scores(field: str, trained_on: np.ndarray, yes: np.ndarray, judged_on: np.ndarray) -> np.ndarray | None:
    """Fit on (study, feature), give the probability of yes (study,); None where the training studies do not suffice."""
    fewest = int(min(yes.sum(), (~yes).sum()))
    known = np.isfinite(trained_on).mean(axis=0) >= KNOWN_SHARE
    if fewest < 2 or not known.any():
        return None
    model = _model(field, min(FOLDS, fewest), int(known.sum()))
    with threadpool_limits(1):  # many small products: sharing each among cores costs five times what it does
        return model.fit(trained_on[:, known], yes).predict_proba(judged_on[:, known])[:, 1]


def _auroc(yes: np.ndarray, score: np.ndarray | None) -> _Auroc:
    counts = int(yes.sum()), int((~yes).sum())
    return _Auroc(None, None, counts) if score is None else _Auroc(**auroc_figure(yes, score), counts=counts)


def _model(field: str, folds: int, num_features: int) -> Any:
    regression = LogisticRegression(class_weight="balanced", max_iter=1000)
    if field == "acquisition":  # squares and products, as one label's slice counts may lie on both sides of the other's
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
    """ANOVA's F of each feature; 0 of one that is the same in all studies."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", UserWarning)
        return np.nan_to_num(f_classif(values, yes)[0])


def _figures(task: str, label: np.ndarray, scores: Sequence[np.ndarray | None], aurocs: Sequence[_Auroc]) -> Metrics:
    """Sum up the answers to a task's questions; severity has a baseline for its first question only."""
    fitted = [score for score in scores if score is not None]
    if task == "binary" and fitted:
        return judged_figures(task, label, np.stack([1 - fitted[0], fitted[0]], axis=1), 0.5)
    if task != "classes":
        return {"auroc": {"value": aurocs[0].value, "interval": aurocs[0].interval}}
    values = [auroc.value for auroc in aurocs if auroc.value is not None]
    mean = {"auroc": {"value": float(np.mean(values)) if values else None, "interval": None}}
    return judged_figures(task, label, np.stack(fitted, axis=1), 0.5) if len(fitted) == len(scores) else mean


def _verdict(aurocs: Sequence[_Auroc]) -> str:
    """Say in a sentence what the AUROCs of a task's questions mean."""
    if any(auroc.is_shortcut for auroc in aurocs):
        return "It does too well: a shortcut is suspected."
    if all(auroc.is_no_shortcut for auroc in aurocs):
        return f"It stays below an AUROC of {SHORTCUT_AUROC}, interval included: no sign of a shortcut."
    return "Whether there is a shortcut cannot be told with this few studies."
