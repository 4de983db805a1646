"""Version 0.1.0's run, evaluation and exported model (tests/support/stored_run): every command still takes them.

What other machines compute differs by rounding, which the tolerances leave room for.
"""

import json
import shutil

import numpy as np
import pytest

import covidscan
from covidscan.evaluation.verify import differences
from tests.support import runs
from tfds_mosmed import catalog
from tfds_mosmed.ct_phantom import generator

STORED = runs.ROOT / "tests" / "support" / "stored_run"
EVALUATION = "evaluations/ct_phantom_tiny-test-best"
FLAGS = ("--dataset=ct_phantom/tiny", "--width=2", "--seed=1", "--batch_size=4", "--epochs=4", "--learning_rate=0.02")
FLAGS += ("--ema_decay=0", "--log_every=1")


@pytest.fixture
def workdir(data_dir, tmp_path):
    """A copy of the run that is at home with this machine's records, whose phantoms may be rounded differently."""
    copy = shutil.copytree(STORED / "run", tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    config["data"]["fingerprint"] = catalog.load_builder("ct_phantom/tiny", data_dir).fingerprint()
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def _predictions(folder):
    return [[name, *map(float, list(row.values())[2:6])] for name, row in sorted(runs.predictions(folder).items())]


def _values(tree):
    """Leave out what may differ.

    Intervals, whose methods have changed, and warnings, which are new. Of baselines what their thresholds decide: they
    are fitted anew, and a study at the threshold falls on either side by the rounding of a machine's BLAS.
    """
    if isinstance(tree, list):
        return [_values(part) for part in tree]
    if isinstance(tree, dict) and "baselines" in tree:
        baselines = [{"name": one["name"], "auroc": one["figures"]["auroc"]} for one in tree["baselines"]]
        tree = tree | {"baselines": baselines}
    changed = {"interval", "method", "smallest_difference", "warnings"}
    return (
        {name: _values(part) for name, part in tree.items() if name not in changed} if isinstance(tree, dict) else tree
    )


def test_it_is_evaluated_and_verified_with_the_same_metrics(workdir, data_dir, tmp_path):
    stored = shutil.copytree(workdir, tmp_path / "stored")
    shutil.rmtree(workdir / "evaluations")
    flags = (f"--workdir={workdir}", f"--data_dir={data_dir}")
    runs.run("evaluate", *flags)
    before, now = (json.loads((folder / EVALUATION / "metrics.json").read_text()) for folder in (stored, workdir))
    assert now["context"].keys() == before["context"].keys() | {"cohort", "networks"}  # which earlier versions had not
    contexts = before.pop("context"), now.pop("context")
    assert len({context["checkpoint"] for context in contexts}) == 1
    assert before.keys() & {"files", "sha256"} == set()  # earlier versions wrote none
    del now["files"], now["sha256"]
    assert list(differences(_values(before), _values(now), tolerance=1e-3)) == []
    tables = _predictions(stored / EVALUATION), _predictions(workdir / EVALUATION)
    assert list(differences(*tables, tolerance=1e-3)) == []
    assert "are those of" in runs.run("evaluate", *flags, "--verify").stdout
    # The stored evaluation is read: compared with itself it does not differ.
    runs.run("evaluate", *flags, f"--compare={stored}")
    compared = json.loads((workdir / EVALUATION / "metrics.json").read_text())["comparison"]
    assert compared["num_studies"] == 7
    assert [figure["difference"] for figure in compared["figures"].values()] == pytest.approx([0.0] * 2, abs=1e-6)


def test_it_is_trained_further_from_either_checkpoint(workdir, data_dir):
    flags = [*FLAGS, f"--workdir={workdir}", f"--data_dir={data_dir}"]
    log = (workdir / "metrics.jsonl").read_text()
    assert "Trained to step 14" in runs.run("train", *flags).stdout
    assert (workdir / "metrics.jsonl").read_text() == log
    shutil.rmtree(workdir / "checkpoints" / "14")
    assert "Trained to step 14" in runs.run("train", *flags).stdout
    for split in ("train", "validation"):
        before, now = (runs.log_lines(folder, split) for folder in (STORED / "run", workdir))
        assert [line["step"] for line in now] == [line["step"] for line in before]
        np.testing.assert_allclose([line["loss"] for line in now], [line["loss"] for line in before], atol=1e-2)


def test_it_and_the_exported_models_of_then_and_now_predict_alike(workdir, tmp_path):
    runs.run("export", f"--workdir={workdir}", f"--output={tmp_path / 'exported'}")
    descriptions = [
        json.loads((folder / "model.json").read_text()) for folder in (STORED / "exported", tmp_path / "exported")
    ]
    assert descriptions[0].keys() == descriptions[1].keys()
    assert descriptions[0]["model"] == descriptions[1]["model"]
    cards = [(folder / "model_card.md").read_text() for folder in (STORED / "exported", tmp_path / "exported")]
    assert cards[0] == cards[1]
    study = tmp_path / "study.nii.gz"
    generator.write_study(generator.make_phantom(900, "CT-3", matrix=128), study)
    predictions = [covidscan.load(model)(study) for model in (workdir, STORED / "exported", tmp_path / "exported")]
    assert 0.1 < predictions[0].probability < 0.9
    for prediction in predictions[1:]:
        assert prediction.probability == pytest.approx(predictions[0].probability, abs=1e-5)
        assert prediction.decision == predictions[0].decision
