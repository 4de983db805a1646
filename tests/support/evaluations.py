"""Predictions, volumes and a provenance that the tests of evaluation share."""

import numpy as np

from covidscan.config import Config
from covidscan.evaluation.summary import summarize
from covidscan.metrics import metrics_json
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.provenance import Provenance
from covidscan.metrics.results import OperatingPoint
from covidscan.report.montage import ShownStudy

FILES = {
    "metrics.json",
    "predictions.csv",
    "report.html",
    "model_card.md",
    "checklist.md",
    "reliability.png",
    "decision_curve.png",
    "roc.png",
    "precision_recall.png",
    "confusion_matrix.png",
    "montage.png",
    *(
        f"figures/{name}.svg"
        for name in (
            "roc",
            "precision_recall",
            "confusion_matrix",
            "montage",
            "reliability",
            "decision_curve",
            "scores",
        )
    ),
}


def files_in(folder):
    """Names of the files in an evaluation's folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def binary(positive, negative):
    """Predictions from the scores of the positive and of the negative studies, in that order."""
    score = np.asarray([*positive, *negative], np.float64)
    label = np.repeat([1, 0], [len(positive), len(negative)])
    ids = [f"study_{number:04d}" for number in range(1, len(score) + 1)]
    names = ("negative", "positive")
    return Predictions(
        ids, [("CT-0", "CT-1")[k] for k in label], label, np.stack([1 - score, score], 1), names, "binary"
    )


def evaluated(predictions, threshold=0.5):
    """The evaluation at a threshold that was frozen before."""
    threshold = None if predictions.task == "classes" else threshold
    description = "The threshold with the highest sensitivity + specificity on the validation studies."
    return summarize(predictions, threshold, OperatingPoint("youden", description, threshold, 1.2, 97, 1200))


def evaluation_json(predictions, threshold=0.5):
    """The same as metrics.json holds it."""
    return metrics_json.evaluation_to_json(evaluated(predictions, threshold))


THIRTEEN = binary((0.95, 0.90, 0.80, 0.70, 0.60, 0.55, 0.40, 0.20), (0.85, 0.62, 0.30, 0.22, 0.10))
SEVERITY = Predictions(
    [f"study_{number:04d}" for number in range(5)],
    ["CT-0", "CT-1", "CT-2", "CT-3", "CT-4"],
    np.asarray([0, 1, 2, 3, 3]),
    np.asarray([[0.7, 0.1, 0.1, 0.1], [0.2, 0.5, 0.2, 0.1], [0.0, 0.8, 0.1, 0.1], [0, 0, 0, 1], [0.6, 0.2, 0.1, 0.1]]),
    ("CT-0", "CT-1", "CT-2", "CT-3+4"),
    "severity",
)


def chest(dense_slices=()):
    """Two lungs in a body in air; a dense patch in some slices."""
    volume = np.full((24, 48, 48), -1000, np.int16)
    volume[:, 6:42, 4:44] = 40
    for columns in (slice(8, 21), slice(27, 40)):
        volume[3:21, 12:36, columns] = -850
    for number in dense_slices:
        volume[number, 28:34, 10:16] = -450
    return ShownStudy(volume, (8.0, 6.0, 6.0))


def noisy_chest(seed, shape=(32, 128, 128)):
    """A noisy chest with blobs of dense lung, which are marked."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    volume = np.full(shape, -1000.0)
    volume[(y / 0.72) ** 2 + (x / 0.92) ** 2 < 1] = 40
    mask = np.zeros(shape, np.uint8)
    for side in (-0.42, 0.42):
        lung = ((y + 0.02) / 0.5) ** 2 + ((x - side) / 0.33) ** 2 + (z / 1.02) ** 2 < 1
        volume[lung] = -860 + 60 * np.sin(17 * y[lung] + 5 * z[lung]) * np.cos(19 * x[lung])
        for _ in range(3):
            centre = rng.uniform(-0.5, 0.5), rng.uniform(-0.1, 0.35), side + rng.uniform(-0.2, 0.2)
            near = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < rng.uniform(0.004, 0.03)
            volume[lung & near], mask[lung & near] = -450, 1
    volume += rng.normal(0, 30, shape)
    return ShownStudy(volume.astype(np.int16), (9.6, 2.7, 2.7), mask)


def history():
    """Lines of `metrics.jsonl` of a run that learns."""
    rng, lines = np.random.default_rng(3), []
    for step in range(20, 1521, 20):
        lines.append({"step": step, "split": "train", "loss": 0.18 + 0.5 * np.exp(-step / 420) + rng.normal(0, 0.015)})
        if step % 100 == 0:
            auroc, loss = 0.93 - 0.35 * np.exp(-step / 300), 0.33 + 0.3 * np.exp(-step / 400)
            lines.append({"step": step, "split": "validation", "loss": loss, "auroc": auroc + rng.normal(0, 0.006)})
    return lines


def context(**changes):
    """The provenance of an evaluation as metrics.json holds it."""
    return {
        "config": Config(dataset="mosmed/64x64x32").to_json(),
        "workdir": "runs/first",
        "dataset": "mosmed/64x64x32",
        "fingerprint": "f1" * 32,
        "split_hash": "5a" * 32,
        "trained_split_hash": "7b" * 32,
        "part": "test",
        "external": False,
        "is_phantom": False,
        "counts": {"train": {"negative": 30, "positive": 60}, "test": {"negative": 5, "positive": 8}},
        "skipped": [("studies/CT-1/<study>.nii.gz", "truncated")],
        "checkpoint": 1200,
        "checkpoint_choice": "best",
        "num_parameters": 1234567,
        "versions": {"covidscan": "0.1.0"},
        "seconds": {"Inference": 3.25, "Training": 7384.0},
        "date": "2026-01-31",
        "commands": ["python -m covidscan.evaluate --workdir=runs/first"],
        "test_openings": [{"date": "2026-01-31", "dataset": "mosmed/64x64x32", "checkpoint": 12, "command": "python"}],
        "leak_check": "No study is in two parts.",
        "flow": {"found": 104, "skipped": 1, "parts": {"train": 90, "test": 13}, "protocol": "holdout"},
        "wishes": {"metadata": None, "compare": None, "repeats": []},
        "computed_on": {"device": "cpu", "platform": "cpu"},
        "arrangement": "single",
        "num_members": 1,
        **changes,
    }


def provenance(**changes):
    """The same, loaded."""
    return metrics_json.load(Provenance, context(**changes))
