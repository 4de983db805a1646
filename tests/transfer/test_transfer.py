"""Measures of the transfer benchmark by hand, and its command with trainings and networks that are made up."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from covidscan.config import Config, DataPaths
from covidscan.distributed.exits import RunAgain
from covidscan.metrics import detectability, interval_methods, roc
from covidscan.metrics.detectability import Detectability, Inserted, ScanUsed, summarize
from covidscan.metrics.predictions import Predictions
from covidscan.runs.workdir import describe, run_id
from tests.support import share
from tests.transfer import measures, network, run
from tests.transfer.results import RealStudy
from tfds_mosmed import catalog, storage
from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.errors import UserError
from tfds_mosmed.insertion.lesion import Lesion


def predictions(scores):
    """Predictions of study id -> probability; ids that begin with "p" are positive."""
    score, label = np.asarray(list(scores.values())), np.asarray([name.startswith("p") for name in scores], int)
    categories = [("CT-0", "CT-1")[number] for number in label]
    return Predictions(
        list(scores), categories, label, np.stack([1 - score, score], 1), ("negative", "positive"), "binary"
    )


def details(lesions=(), findings=()):
    return {"lesion_diameters_mm": list(lesions), "findings": list(findings)}


def test_bands_hold_the_largest_lesion_and_sensitivity_is_at_the_diseased_negatives():
    diseased = {f"n{number:02d}": number / 100 for number in range(20)}
    scores = {**diseased, "healthy": 0.9, "p_faint": 0.175, "p_small": 0.185, "p_medium": 0.5, "p_large": 0.95}
    known = {name: details(findings=["nodules", "fibrosis"]) for name in diseased} | {
        "healthy": details(findings=["nodules", "motion"]),
        "p_faint": details(),
        "p_small": details([7.9, 2.0]),
        "p_medium": details([3.0, 8.0, 1.0], ["fibrosis"]),
        "p_large": details([25.0]),
    }
    found = measures.hard_phantoms(predictions(scores), known)
    assert (found.num_positive, found.num_negative, found.num_diseased) == (4, 21, 20)
    assert [(band.name, band.num_positive) for band in found.bands] == [
        ("below 8 mm", 2),
        ("8 to 15 mm", 1),
        ("15 to 25 mm", 0),
        ("25 mm or more", 1),
    ]
    aurocs = [band.auroc.value for band in found.bands]
    assert aurocs[2] is None
    np.testing.assert_allclose([aurocs[0], aurocs[1], aurocs[3]], [(18 + 19) / 42, 20 / 21, 1])
    # Of twenty diseased studies one may lie above the threshold, that of 0.19; the healthy one does not count.
    assert found.sensitivity.value == 3 / 4
    assert found.threshold == pytest.approx(0.1825)


def test_the_interval_of_a_sensitivity_knows_that_the_threshold_is_a_quantile_of_few_negatives():
    negatives, positives = np.linspace(0, 0.6, 20), np.linspace(0.3, 1, 2000)
    found = measures.sensitivity_at_specificity(positives, negatives)
    low, high = found.interval
    # One of twenty negative studies may be above the threshold. In a resample these are others.
    ends = [(positives > negatives[number]).mean() for number in (19, 16)]
    assert low < ends[0] + 0.01 < found.value < ends[1] - 0.01 < high
    perfect = measures.sensitivity_at_specificity(positives, negatives / 3)
    assert (perfect.value, perfect.interval) == (1, interval_methods.wilson(20, 20))


def _scan(name, probability):
    return ScanUsed(name, probability, False, 1, 0, 10.0, 0.5, 2.0, [])


def _inserted(scan, without, probability, diameter=10.0, density=-550.0):
    return Inserted(scan, 1, 0, 0, 0, "ground_glass", density, diameter, without, probability, True)


def test_insertions_are_decided_at_the_threshold_of_the_hard_phantoms():
    scans = [_scan("a", 0.1), _scan("b", 0.2), _scan("c", 0.8)]
    inserted = [_inserted("a", 0.1, 0.9), _inserted("b", 0.2, 0.4), _inserted("c", 0.8, 0.9)]
    lesions = [Lesion(10, -550), Lesion(20, -700)]
    frozen = Detectability(7, 0.3, "2026", "1", scans, summarize(inserted, scans, lesions), [("d", "no lungs")])
    found = measures.insertions(frozen, inserted, 0.5)
    assert (found.num_scans, found.num_positive, found.refused) == (3, 1, [("d", "no lungs")])
    none, one = found.detections
    assert (one.share, one.counted, one.scans) == (0.5, 2, 2)
    assert (none.share, none.diameter_mm) == (None, 20)


def test_recipes_are_compared_on_the_studies_that_both_predicted_and_labels_must_agree():
    rng = np.random.default_rng(0)
    names = [f"{kind}{number}" for kind in "np" for number in range(12)]
    mine = predictions(dict(zip(names, rng.random(24), strict=True)))
    other = predictions(dict(zip(reversed(names[2:]), rng.random(22), strict=True)))
    found = measures.compare(mine, other, "before")
    scores = [dict(zip(each.study_id, each.probability[:, 1], strict=True)) for each in (mine, other)]
    test = roc.delong_test([name[0] == "p" for name in names[2:]], *([s[name] for name in names[2:]] for s in scores))
    assert found.num_studies == 22
    assert (found.auroc.difference, found.auroc.p_value) == pytest.approx((test.difference, test.p_value))
    swapped = predictions({name.translate(str.maketrans("np", "pn")): 0.5 for name in names})
    swapped = Predictions(names, swapped.category, swapped.label, swapped.probability, swapped.label_names, "binary")
    with pytest.raises(UserError, match="negative_categories"):
        measures.compare(mine, swapped, "before")


def test_the_seeds_mean_aligns_studies_by_their_ids():
    mean = measures.mean([predictions({"n": 0.2, "p": 0.6}), predictions({"p": 0.8, "n": 0.4})])
    np.testing.assert_allclose(mean.probability[:, 1], [0.3, 0.7])


def test_real_studies_are_ranked_and_refused_ones_do_not_count():
    given = [("covid", 0.9), ("covid", 0.4), ("covid", None), ("normal", 0.4), ("tumour", 0.6)]
    found = measures.real_studies([RealStudy(f"{kind}/{p}", kind, p) for kind, p in given])
    assert found.ranks == [1, 4]
    assert found.auroc.value == pytest.approx((2 + 0.5) / 4)
    assert len(found.studies) == 5


@pytest.fixture
def bench(tmp_path, data_dir, monkeypatch):
    """The command on ct_phantom/tiny; `done` lists what it did, and `fails` makes a step of it fail."""
    tiny, done, fails = "ct_phantom/tiny", [], []
    builder = catalog.load_builder(tiny, data_dir)
    ids = sorted(builder.index().study_id)
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "one.flags").write_text(f"# A comment.\n--dataset={tiny}\n")
    (recipes / "two.flags").write_text(f"--dataset={tiny}\n--epochs=3\n")
    for kind in ("covid", "normal"):
        study = tmp_path / "ct" / "group" / kind / "study.nii.gz"
        study.parent.mkdir(parents=True)
        study.write_bytes(b"")
    (tmp_path / "ct" / "not_counted.nii.gz").write_bytes(b"")

    def step(*what):
        if what in fails:
            raise RunAgain("stopped")
        done.append(what)

    def command(*arguments, command, allowed=0):
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in arguments if flag.startswith("--"))
        workdir = tmp_path / "out" / flags["workdir"].split("/out/")[1]
        step(command, workdir.name)
        if "output_dir" in flags:
            Path(flags["output_dir"]).mkdir(exist_ok=True)
            descriptor = os.open(flags["output_dir"], os.O_RDONLY)
            assert storage.try_lock(descriptor)  # as the real commands do
            os.close(descriptor)
        if command == "train":
            data = {"dataset": tiny, "fingerprint": builder.fingerprint(), "split_hash": "", "num_train": 14}
            data |= {"label_names": ["negative", "positive"], "volume_shape": [16, 32, 32]}
            workdir.mkdir(parents=True, exist_ok=True)
            config = Config(dataset=tiny, seed=int(flags["seed"]), init_from=flags.get("init_from", ""))
            made = describe(config, DataPaths(str(data_dir)), data)
            (workdir / "config.json").write_text(json.dumps(made))
            (workdir / "metrics.jsonl").write_text('{"step": 30, "split": "train", "volumes_per_second": 2.0}\n')
        elif command == "detectability":
            paths = [path for path in arguments if not path.startswith("--")]
            lesions = [
                Lesion(float(diameter), float(density))
                for diameter in flags["diameters"].split(",")
                for density in flags["densities"].split(",")
            ]
            scans = [_scan(path, 0.0) for path in paths]
            inserted = [_inserted(path, 0.0, 1.0, each.diameter_mm, each.hu) for path in paths for each in lesions]
            made = Detectability(
                7, 1.0, "2026", "1", scans, summarize(inserted, scans, lesions), [("x/sick.nii.gz", "has no lungs")]
            )
            (tmp_path / flags["output_dir"] / detectability.FILE).write_text(
                detectability.to_json(made, run_id(workdir))
            )
            (tmp_path / flags["output_dir"] / "insertions.csv").write_text(detectability.to_csv(inserted))
        else:
            paths = [path for path in arguments if not path.startswith("--")]
            rows = [{"path": path, "probability": 0.9 if "covid" in path else 0.1, "error": None} for path in paths]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / flags["output_dir"] / "predictions.jsonl").write_text(text)

    def predictions_csv(workdir, dataset, data_dir):
        step(dataset, workdir.name)
        scores = np.random.default_rng([int(workdir.name[-1]), workdir.parent.name == "two"]).random(len(ids))
        kinds = "n" * 12 + "p" * 12
        named = [kind + study for kind, study in zip(kinds, ids, strict=True)]
        return predictions(dict(zip(named, scores, strict=True))).to_csv()

    loaded = network.Phantoms(
        tiny, builder.fingerprint(), {k + study: details([9.0], ["fibrosis"]) for study in ids for k in "np"}
    )
    monkeypatch.setattr(run, "HARD", "ct_phantom/hard")
    monkeypatch.setattr(run, "EXTERNAL", "ct_phantom/external")
    monkeypatch.setattr(run, "load_phantoms", lambda dataset, _: loaded._replace(dataset=dataset))
    for module in (run, network):
        monkeypatch.setattr(module, "RECIPES", recipes)
    monkeypatch.setattr(network, "_run", command)
    monkeypatch.setattr(network, "predictions_csv", predictions_csv)
    monkeypatch.setenv("COVIDSCAN_REAL_CT", str(tmp_path / "ct"))

    def main(*flags):
        run.main([f"--data_dir={data_dir}", f"--output={tmp_path / 'out'}", "--seeds=0,1", *flags])

    main.done, main.fails, main.out, main.recipes = done, fails, tmp_path / "out", recipes
    return main


STEPS = ("train", "ct_phantom/hard", "predict", "detectability", "ct_phantom/external")


def test_a_stopped_command_continues_and_repeats_nothing(bench, capsys):
    for step in STEPS:
        bench.fails[:] = [(step, "seed_1")]
        with pytest.raises(RunAgain):
            bench("--recipe=one")
    bench.fails.clear()
    bench("--recipe=one")
    assert bench.done == [(step, f"seed_{seed}") for seed in (0, 1) for step in STEPS]
    text = capsys.readouterr().out
    assert (bench.out / "one" / "table.md").read_text() == text
    bench("--recipe=one")
    assert len(bench.done) == 10
    assert capsys.readouterr().out == text
    assert "| probability of covid/study | 0.900 | 0.900 | **0.900** (0.900 to 0.900) |" in text
    assert "not_counted" not in text
    assert "| real CT without COVID-19 (1): positive at the threshold of 95 % specificity | 0 | 0 |" in text
    cell = "1.000 (0.207 to 1.000), 1 insertions into 1 scans"
    for lesion in ("−550 HU, 10 mm", "−700 HU, 20 mm"):
        title = f"ground glass of {lesion}, inserted into the others: detected at this threshold"
        assert f"| {title} | {cell} | {cell} | **1.000** (1.000 to 1.000) |" in text
    assert "no lesions in sick.nii.gz: has no lungs" in text
    assert "| minutes of training steps | 2 | 2 | **2** (2 to 2) |" in text
    result = json.loads((bench.out / "one" / "seed_1" / "transfer" / "result.json").read_text())
    assert (result["seed"], result["hard"]["num_positive"], result["real"]["ranks"]) == (1, 12, [1])
    assert 0 < result["hard"]["threshold"] < 1
    assert len(result["insertions"]["detections"]) == 10


def test_a_recipe_is_compared_with_one_before_of_the_same_seeds(bench, capsys):
    with pytest.raises(UserError, match="first run this command with --recipe=one and --seeds=0"):
        bench("--recipe=two", "--against=one")
    assert not bench.done
    bench("--recipe=one")
    bench("--recipe=two", "--against=one")
    text = capsys.readouterr().out
    assert "AUROC less that of one, same 24 hard phantoms (DeLong)" in text
    assert "the same of the seeds' mean probability" in text


def test_a_recipe_begins_with_the_networks_of_another(bench, monkeypatch, capsys):
    monkeypatch.setitem(network.BEGINS_WITH, "two", "one")
    bench("--recipe=two")
    trained = [seed for step, seed in bench.done if step == "train"]
    assert trained == ["seed_0", "seed_0", "seed_1", "seed_1"]
    first, second = (json.loads((bench.out / f"{name}/seed_1/config.json").read_text()) for name in ("one", "two"))
    assert first["config"]["init_from"] == ""
    assert second["config"]["init_from"] == str(bench.out / "one/seed_1")
    assert "| minutes of training steps | 4 | 4 | **4** (4 to 4) |" in capsys.readouterr().out


def test_a_recipe_that_has_changed_is_not_passed_off_as_the_trained_one(bench):
    bench("--recipe=one")
    (bench.recipes / "one.flags").write_text("--dataset=ct_phantom/tiny\n--epochs=9\n")
    with pytest.raises(UserError, match=r"one/seed_0 was trained with other flags than .*one\.flags has now: give"):
        bench("--recipe=one")


def test_records_that_were_built_anew_are_predicted_anew_and_refused_where_they_trained(bench, monkeypatch):
    bench("--recipe=one")
    old = run.load_phantoms("ct_phantom/hard", "")
    monkeypatch.setattr(run, "load_phantoms", lambda dataset, _: old._replace(dataset=dataset, fingerprint="new"))
    bench("--recipe=one")
    assert bench.done[10:] == [(step, f"seed_{seed}") for seed in (0, 1) for step in (STEPS[1], STEPS[4])]
    config = bench.out / "one" / "seed_0" / "config.json"
    made = json.loads(config.read_text())
    made["data"]["fingerprint"] = "old"
    config.write_text(json.dumps(made))
    with pytest.raises(UserError, match="seed_0 was trained on other records of ct_phantom/tiny than --data_dir"):
        bench("--recipe=one")


@pytest.mark.skipif(not share.is_full(), reason=f"trains: only with {share.FULL}=1")
def test_trained_for_real(tmp_path, data_dir, monkeypatch, capsys):
    real = run.load_phantoms
    (tmp_path / "tiny.flags").write_text("--dataset=ct_phantom/tiny\n--width=8\n--batch_size=4\n--epochs=2\n")

    def load(dataset, folder):
        loaded = real("ct_phantom/tiny", folder)
        return loaded._replace(
            details={f"phantom_{number:04d}": details([9.0], ["fibrosis"]) for number in range(1, 25)}
        )

    monkeypatch.setattr(run, "load_phantoms", load)
    for module in (run, network):
        monkeypatch.setattr(module, "RECIPES", tmp_path)
    for seed, kind in enumerate(("covid", "normal")):
        study = tmp_path / "ct" / "group" / kind / "study.nii.gz"
        study.parent.mkdir(parents=True)
        generator.write_study(generator.make_phantom(seed, "CT-0", 128), study)
    monkeypatch.setenv("COVIDSCAN_REAL_CT", str(tmp_path / "ct"))
    run.main(["--recipe=tiny", "--seeds=3", f"--data_dir={data_dir}", f"--output={tmp_path / 'out'}"])
    text = capsys.readouterr().out
    assert "14 training studies of `ct_phantom/tiny`" in text
    assert "probability of covid/study | 0." in text
    assert "| ground glass of −550 HU, 10 mm, inserted into the others: detected at this threshold |" in text
    result = json.loads((tmp_path / "out" / "tiny" / "seed_3" / "transfer" / "result.json").read_text())
    assert result["insertions"]["num_scans"] == 1
