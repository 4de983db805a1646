"""Evaluations with everything in them that a report can show, one of each task, written by hand.

Metrics are those of the predictions; intervals, subgroups and the like are made up, plausibly.
"""

from typing import Any, NamedTuple

import numpy as np

from covidscan.metrics import interval_methods, thresholds
from covidscan.metrics.predictions import Predictions
from covidscan.report.montage import ShownStudy
from covidscan.report.write import shown_studies
from tests.support.evaluations import context, evaluation_json, history, noisy_chest
from tests.support.loaded import load


class Evaluation(NamedTuple):
    """An evaluation as metrics.json holds it, with what else the report takes."""

    result: dict[str, Any]
    context: dict[str, Any]
    predictions: Predictions
    volumes: dict[str, ShownStudy]
    history: list[dict[str, Any]]


def _calibration(yes, score, num_bins=10):
    place = np.searchsorted(np.quantile(score, np.arange(1, num_bins) / num_bins), score)
    bins = []
    for k in range(num_bins):
        inside = place == k
        if not inside.any():
            continue
        bins.append(
            {
                "low": float(score[inside].min()),
                "high": float(score[inside].max()),
                "mean_probability": float(score[inside].mean()),
                "observed": float(yes[inside].mean()),
                "count": int(inside.sum()),
                "interval": list(interval_methods.wilson(int(yes[inside].sum()), int(inside.sum()))),
            }
        )
    ece = sum(b["count"] * abs(b["observed"] - b["mean_probability"]) for b in bins) / len(yes)
    brier = float(np.mean((score - yes) ** 2))
    values = {
        "brier": (brier, 0.8 * brier, 1.2 * brier),
        "ece": (ece, 0.6 * ece, 1.5 * ece),
        "slope": (0.93, 0.74, 1.15),
        "intercept": (-0.08, -0.41, 0.27),
    }
    figures = {
        name: {"value": value, "interval": [low, high], "method": "bootstrap"}
        for name, (value, low, high) in values.items()
    }
    return {"figures": figures, "bins": bins}


def _decision_curve(yes, score):
    threshold = np.linspace(0.01, 0.99, 99)
    odds = threshold / (1 - threshold)
    called = score[None] >= threshold[:, None]
    model = (called & yes).mean(1) - (called & ~yes).mean(1) * odds
    treat_all = yes.mean() - (1 - yes.mean()) * odds
    return {
        "threshold": threshold.tolist(),
        "model": model.tolist(),
        "treat_all": treat_all.tolist(),
        "prevalence": float(yes.mean()),
    }


def _intervals(figures):
    methods = {"auroc": "DeLong", "accuracy": "Wilson", "sensitivity": "Wilson", "specificity": "Wilson"}
    for name, figure in figures.items():
        figure["method"] = methods.get(name, "bootstrap")
        if figure["interval"] is None and figure["value"] is not None:
            figure["interval"] = [max(0.0, figure["value"] - 0.04), min(1.0, figure["value"] + 0.035)]


def _failures(predictions, threshold, most=6):
    chosen = thresholds.decide(predictions.task, predictions.probability, threshold)
    sure = predictions.probability[np.arange(len(chosen)), predictions.label]
    names, found = predictions.label_names, []
    for i in map(int, np.argsort(sure)):
        if chosen[i] != predictions.label[i]:
            kind = (
                ("False positive", "False negative")[predictions.label[i]] if predictions.task == "binary" else "Wrong"
            )
            shown = 1 if predictions.task == "binary" else chosen[i]
            found.append(
                {
                    "study_id": predictions.study_id[i],
                    "kind": kind,
                    "reference": names[predictions.label[i]],
                    "prediction": names[chosen[i]],
                    "probability": float(predictions.probability[i, shown]),
                    "category": predictions.category[i],
                }
            )
    kinds = {failure["kind"] for failure in found}
    return [f for kind in sorted(kinds) for f in [f for f in found if f["kind"] == kind][:most]]


def _subgroups(positive):
    def group(name, studies, positives, *figures):
        return {"name": name, "num_studies": studies, "num_positive": positives, "figures": dict(figures)}

    def figure(name, value, low, high):
        return name, {"value": value, "interval": [low, high]}

    first, second = ("sensitivity", "specificity") if positive else ("accuracy", "accuracy")
    return [
        {
            "by": "category",
            "groups": [
                group("CT-0", 76, 0, figure(second, 0.842, 0.744, 0.907)),
                group("CT-1", 205, 205, figure(first, 0.868, 0.815, 0.908)),
                group("CT-2", 37, 37, figure(first, 0.973, 0.862, 0.995)),
                group("CT-3", 13, 13, figure(first, 1.0, 0.772, 1.0)),
            ],
        },
        {
            "by": "slices",
            "groups": [
                group("31 to 39", 118, 88, figure("auroc", 0.93, 0.88, 0.97), figure("accuracy", 0.881, 0.811, 0.928)),
                group("45 to 72", 91, 72, figure("auroc", 0.90, 0.82, 0.96), figure("accuracy", 0.857, 0.771, 0.914)),
            ],
        },
    ]


SKIPPED = [
    *((f"studies/CT-1/study_{number:04d}.nii.gz", "truncated: 3,145,728 of 12,582,912 bytes") for number in (311, 690)),
    ("studies/CT-0/study_0077.nii.gz", "no lung in sight: 2 slices"),
]


def _context(predictions, **changes):
    names = predictions.label_names
    counts = {
        part: {name: total + 100 * (k == 1) for k, name in enumerate(names)}
        for part, total in (("train", 159), ("validation", 19))
    }
    counts["test"] = {name: int(np.sum(predictions.label == k)) for k, name in enumerate(names)}
    parts = {part: sum(of.values()) for part, of in counts.items()}
    command = "python -m covidscan.evaluate --workdir=runs/first --checkpoint=best --split=test"
    opening = {"dataset": "mosmed/128x128x32", "checkpoint": 1200, "command": command}
    config = {
        **context()["config"],
        "dataset": "mosmed/128x128x32",
        "protocol": "covidnet3d",
        "task": predictions.task,
        "batch_size": 16,
        "negative_categories": ["CT-0"],
    }
    return context(
        config=config,
        dataset="mosmed/128x128x32",
        counts=counts,
        skipped=SKIPPED,
        test_openings=[
            {"date": "2026-01-30T18:02:11+00:00", **opening},
            {"date": "2026-01-31T09:15:40+00:00", **opening},
        ],
        leak_check="331 test studies were compared with 779 others by id and by the look of their voxels: none is on "
        "both sides.",
        flow={"found": sum(parts.values()) + len(SKIPPED), "skipped": 3, "parts": parts, "protocol": "covidnet3d"},
        num_members=1,
        commands=[command, f"{command} --verify"],
        **changes,
    )


def _baselines(name):
    def row(title, what, kind, area, low, high, accuracy):
        figures = {name: {"value": area, "interval": [low, high]}, "accuracy": {"value": accuracy, "interval": None}}
        return {"name": title, "what": what, "kind": kind, "figures": figures}

    return [
        row("Always positive", "Never looks at a scan.", "constant", 0.5, 0.5, 0.5, 0.770),
        row("Prevalence", "The share of positives among the training studies.", "constant", 0.5, 0.5, 0.5, 0.770),
        row(
            "Slices and spacing", "Logistic regression on slice count and spacing.", "features", 0.58, 0.51, 0.65, 0.767
        ),
        row("Mean lung HU", "Logistic regression on the mean HU inside the lungs.", "features", 0.74, 0.68, 0.80, 0.80),
        row("Lungs masked out", "The same network on volumes without lungs.", "probe", 0.71, 0.64, 0.77, 0.779),
    ]


def _evaluation(predictions, threshold, **more):
    result = evaluation_json(predictions, threshold)
    _intervals(result["figures"])
    defined = predictions.task != "classes"
    yes, score = thresholds.dichotomies(predictions.task, predictions.label, predictions.probability)[0]
    if not defined:
        yes = predictions.probability.argmax(1) == predictions.label
        score = predictions.probability.max(1)
    odds = (score / (1 - score)) ** 1.62
    sharper = odds / (1 + odds)
    main = "auroc" if predictions.task == "binary" else "macro_auroc"
    failures = _failures(predictions, threshold)
    result |= {
        "operating_point": {
            "criterion": "youden",
            "described": "The threshold with the largest Youden's J among 78 validation studies.",
            "threshold": threshold if defined else None,
            "temperature": 1.62,
            "num_studies": 78,
            "step": 1200,
        },
        "calibration": {
            "question": f"Is it {predictions.label_names[1]}?" if predictions.task == "binary" else "Is it so?",
            "before": _calibration(yes, sharper),
            "after": _calibration(yes, score),
        },
        "decision_curve": _decision_curve(yes, score) if defined else None,
        "baselines": _baselines(main),
        "shortcuts": [],
        "subgroups": _subgroups(predictions.task == "binary"),
        "failures": failures,
        "smallest_difference": {
            "auroc": 0.047,
            "accuracy": 0.058,
            "described": "With 331 studies, a paired test at the 5 % level finds differences of this size 8 times "
            "of 10.",
        },
        "comparison": None,
        "repeats": None,
        **more,
    }
    shown = shown_studies(predictions, threshold, load(result, _context(predictions))[0])
    volumes = {study_id: noisy_chest(i) for i, study_id in enumerate(shown)}
    return Evaluation(result, _context(predictions), predictions, volumes, history())


COMPARISON = {
    "other": "runs/second",
    "num_studies": 331,
    "figures": {
        "auroc": {"difference": 0.031, "interval": [0.004, 0.058], "p_value": 0.024, "method": "DeLong"},
        "accuracy": {"difference": -0.009, "interval": [-0.041, 0.023], "p_value": 0.58, "method": "McNemar"},
    },
    "described": "Differences are this run minus the other, on the same studies.",
}
REPEATS = {
    "kind": "folds",
    "members": [
        {"name": f"fold {k}", "figures": {"auroc": value, "accuracy": value - 0.06}}
        for k, value in enumerate((0.921, 0.934, 0.902, 0.928, 0.917))
    ],
    "figures": {
        "auroc": {"mean": 0.9204, "sd": 0.0122, "lowest": 0.902, "highest": 0.934, "runs": 5},
        "accuracy": {"mean": 0.8604, "sd": 0.0122, "lowest": 0.842, "highest": 0.874, "runs": 5},
    },
}


def binary():
    """331 studies, 76 of them negative, as in MosMedData's public test part, evaluated at a threshold of 0.6137."""
    rng = np.random.default_rng(5)
    label = np.repeat([0, 1], [76, 255])
    score = 1 / (1 + np.exp(-(rng.normal(np.where(label, 2.4, -1.2), 1.9))))
    category = np.where(label == 0, "CT-0", np.where(rng.random(331) < 0.8, "CT-1", "CT-2"))
    ids = [f"study_{number:04d}" for number in range(1, 332)]
    probability = np.stack([1 - score, score], 1)
    predictions = Predictions(ids, category.tolist(), label, probability, ("negative", "positive"), "binary")
    return _evaluation(
        predictions,
        0.6137,
        comparison=COMPARISON,
        repeats=REPEATS,
        shortcuts=["With the lungs masked out the same network still reaches AUROC 0.71 (0.64 to 0.77)."],
    )


def severity():
    """40 studies of four grades."""
    rng = np.random.default_rng(6)
    label = rng.choice(4, 40, p=[0.3, 0.4, 0.2, 0.1])
    weight = np.exp(-0.9 * np.abs(np.arange(4) - (label + rng.normal(0, 0.7, 40))[:, None]))
    probability = weight / weight.sum(1, keepdims=True)
    names = ("CT-0", "CT-1", "CT-2", "CT-3+4")
    ids = [f"study_{number:04d}" for number in range(40)]
    return _evaluation(Predictions(ids, [names[k] for k in label], label, probability, names, "severity"), 0.5)


def classes():
    """60 studies of three classes."""
    rng = np.random.default_rng(7)
    label = np.arange(60) % 3
    weight = np.exp(1.6 * np.eye(3)[label] + rng.normal(0, 0.9, (60, 3)))
    names = ("cap", "covid", "normal")
    ids = [f"{names[k]}/P{number:03d}" for number, k in enumerate(label)]
    probability = weight / weight.sum(1, keepdims=True)
    return _evaluation(Predictions(ids, [names[k] for k in label], label, probability, names, "classes"), 0.5)
