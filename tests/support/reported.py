"""A complete evaluation and its provenance, as metrics.json holds them; the numbers are made up."""

import copy
from typing import Any

from covidscan.config import Config

_RESULT: dict[str, Any] = {
    "task": "binary",
    "num_studies": 331,
    "label_names": ["negative", "positive"],
    "counts": {"negative": 76, "positive": 255},
    "category_counts": {"CT-0": 76, "CT-1": 203, "CT-2": 38, "CT-3": 13, "CT-4": 1},
    "threshold": 0.41,
    "operating_point": {
        "criterion": "sensitivity",
        "described": "The threshold with a sensitivity of at least 0.95 on the 97 validation studies.",
        "threshold": 0.41,
        "temperature": 1.375,
        "num_studies": 97,
        "step": 1200,
    },
    "baseline": "always positive",
    "figures": {
        "auroc": {"value": 0.913, "interval": [0.871, 0.955], "method": "DeLong", "baseline": 0.5},
        "accuracy": {"value": 0.861, "interval": [0.82, 0.894], "method": "Wilson", "baseline": 0.77},
        "sensitivity": {"value": 0.902, "interval": [0.859, 0.933], "method": "Wilson", "baseline": 1.0},
        "specificity": {"value": 0.724, "interval": [0.614, 0.812], "method": "Wilson", "baseline": 0.0},
        "ppv": {"value": 0.916, "interval": [0.876, 0.945], "method": "Wilson", "baseline": 0.77},
        "npv": {"value": 0.688, "interval": [0.579, 0.779], "method": "Wilson", "baseline": None},
        "f1": {"value": 0.909, "interval": [0.882, 0.933], "method": "bootstrap", "baseline": 0.87},
    },
    "confusion_matrix": [[55, 21], [25, 230]],
    "sensitivities": {"negative": 0.724, "positive": 0.902},
    "notes": [],
    "calibration": {
        "question": "positive or not",
        "before": {
            "figures": {
                "brier": {"value": 0.121, "interval": [0.1, 0.142], "method": "bootstrap"},
                "ece": {"value": 0.088, "interval": [0.06, 0.12], "method": "bootstrap"},
                "slope": {"value": 0.61, "interval": [0.45, 0.8], "method": "bootstrap"},
                "intercept": {"value": 0.22, "interval": [-0.1, 0.5], "method": "bootstrap"},
            },
            "bins": [],
        },
        "after": {
            "figures": {
                "brier": {"value": 0.104, "interval": [0.084, 0.125], "method": "bootstrap"},
                "ece": {"value": 0.031, "interval": [0.02, 0.06], "method": "bootstrap"},
                "slope": {"value": 0.97, "interval": [0.7, 1.2], "method": "bootstrap"},
                "intercept": {"value": 0.05, "interval": [-0.3, 0.3], "method": "bootstrap"},
            },
            "bins": [],
        },
    },
    "decision_curve": {"threshold": [0.1], "model": [0.7], "treat_all": [0.69], "prevalence": 0.77},
    "smallest_difference": {"auroc": 0.06, "accuracy": 0.05, "described": "They can show an AUROC difference of 0.06."},
    "failures": [
        {
            "study_id": "study_0300",
            "kind": "False negative",
            "reference": "positive",
            "prediction": "negative",
            "probability": 0.03,
            "category": "CT-1",
        }
    ],
    "baselines": [
        {
            "name": "slices and spacing",
            "what": "Logistic regression on the number of slices and the spacing.",
            "kind": "features",
            "figures": {"auroc": {"value": 0.532, "interval": [0.46, 0.604]}},
        }
    ],
    "shortcuts": ["With the lungs masked out the AUROC is 0.700 (0.640 to 0.760)."],
    "subgroups": [
        {
            "by": "category",
            "groups": [
                {
                    "name": "CT-1",
                    "num_studies": 203,
                    "num_positive": 203,
                    "figures": {"sensitivity": {"value": 0.88, "interval": [0.83, 0.92]}},
                }
            ],
        }
    ],
    "comparison": {
        "other": "runs/other",
        "num_studies": 331,
        "figures": {
            "auroc": {"difference": 0.021, "interval": [-0.01, 0.052], "p_value": 0.19, "method": "DeLong"},
            "accuracy": {"difference": 0.015, "interval": [-0.02, 0.05], "p_value": 0.0002, "method": "McNemar"},
        },
        "described": "This run minus runs/other, on the same 331 studies.",
    },
    "repeats": {
        "kind": "folds",
        "members": [{"name": "fold 0", "figures": {"auroc": 0.9}}, {"name": "fold 1", "figures": {"auroc": 0.92}}],
        "figures": {"auroc": {"mean": 0.91, "sd": 0.014, "lowest": 0.9, "highest": 0.92, "runs": 2}},
    },
}


def result(**changes):
    return {**copy.deepcopy(_RESULT), **changes}


def context(dataset="mosmed/128x128x32", trained_on="mosmed/128x128x32", **changes):
    return {
        "config": {**Config().to_json(), "dataset": trained_on, "protocol": "covidnet3d"},
        "workdir": "runs/first",
        "dataset": dataset,
        "fingerprint": "f1" * 32,
        "split_hash": "5a" * 32,
        "part": "test",
        "external": dataset != trained_on,
        "is_phantom": any(name.startswith("ct_phantom") for name in (dataset, trained_on)),
        "counts": {
            "train": {"negative": 156, "positive": 526},
            "validation": {"negative": 22, "positive": 75},
            "test": {"negative": 76, "positive": 255},
        },
        "skipped": [("studies/CT-1/<study>.nii.gz", "truncated | unreadable")],
        "flow": {
            "found": 1111,
            "skipped": 1,
            "parts": {"train": 682, "validation": 97, "test": 331},
            "protocol": "covidnet3d",
        },
        "leak_check": "No study of one part is like a study of another.",
        "test_openings": [
            {
                "date": "2026-01-31T12:00:00+00:00",
                "dataset": dataset,
                "checkpoint": 1200,
                "command": "evaluate",
                "verify": False,
                "fold": None,
            }
        ],
        "checkpoint": 1200,
        "checkpoint_choice": "best",
        "num_parameters": 1234567,
        "num_members": 1,
        "arrangement": "single",
        "trained_split_hash": "7b" * 32,
        "wishes": {"metadata": None, "compare": None, "repeats": []},
        "computed_on": {"device": "cpu", "platform": "cpu"},
        "versions": {"covidscan": "0.1.0+abc", "jax": "0.10.2"},
        "seconds": {"inference": 3.25},
        "date": "2026-01-31T12:00:00+00:00",
        "commands": ["python -m covidscan.evaluate --workdir=runs/first --checkpoint=best --split=test"],
        "networks": [],
        **changes,
    }
