"""Prediction as users run it: files in, rows out, in separate processes."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import covidscan
from covidscan.prediction import predict_studies
from covidscan.prediction.predict_studies import predict
from covidscan.prediction.source import ModelSource
from covidscan.runs import operating_points
from covidscan.trained_models import restore as trained_module
from tests.support import runs
from tests.support.chest import chest, write_series
from tfds_mosmed import catalog
from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.errors import UserError
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import ScanError

SOME_FAILED = 3


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory, data_dir):
    """Two studies of ct_phantom/tiny as files, named by their ids."""
    folder = tmp_path_factory.mktemp("phantoms")
    builder = catalog.load_builder("ct_phantom/tiny", data_dir)
    for study in builder._list_studies(None)[:2]:
        phantom = generator.make_phantom(study.seed, study.category, study.matrix)
        generator.write_study(phantom, folder / f"{study.study_id}.nii.gz", folder / f".{study.study_id}_mask.nii.gz")
    return folder


@pytest.fixture(scope="module")
def given(tmp_path_factory, phantoms):
    """An invalid file, a DICOM series and two phantoms, in the order in which the user names them."""
    folder = tmp_path_factory.mktemp("given")
    broken = folder / "broken.nii.gz"
    broken.write_bytes(b"not a NIfTI image")
    return [broken, write_series(folder / "series", chest(0)), *sorted(phantoms.glob("phantom*"))]


@pytest.fixture(scope="module")
def predicted(trained, given):
    """The command's rows for them."""
    return runs.run("predict", f"--workdir={trained}", *map(str, given), check=False)


def test_each_study_has_a_row_in_order_and_an_unreadable_one_has_an_error(predicted, given):
    found = rows(predicted.stdout)
    assert [row["path"] for row in found] == list(map(str, given))
    assert "NIfTI" in found[0]["error"]
    assert found[0]["probability"] == found[0]["decision"] == ""
    for row in found[1:]:
        assert row["error"] == ""
        assert 0 < float(row["probability"]) < 1
        assert float(row["probability_negative"]) + float(row["probability_positive"]) == pytest.approx(1, abs=2e-6)
        assert row["decision"] in ("negative", "positive")
        assert float(row["seconds"]) > 0
    assert predicted.returncode == SOME_FAILED
    assert f"warning: {found[0]['error']}\n" in predicted.stderr
    assert "1 of 4 studies" in predicted.stderr
    assert "Traceback" not in predicted.stderr


def test_a_study_of_the_evaluation_is_predicted_as_it_was_evaluated(predicted, trained, data_dir):
    network = trained_module.restore(trained)
    studies = network.own_dataset()
    expected = {row["path"].split("/")[-1].removesuffix(".nii.gz"): row for row in rows(predicted.stdout)[2:]}
    own = [row for row, study_id in enumerate(studies.study_ids) if study_id in expected]
    chosen = network.operating_point(lambda: studies)
    predictions = network.predict(studies, np.asarray(own)).calibrated(chosen)
    assert len(own) == 2
    for study_id, probability in zip(predictions.study_id, predictions.probability, strict=True):
        assert float(expected[study_id]["probability"]) == pytest.approx(probability[1], abs=1e-5)
        assert expected[study_id]["decision"] == predictions.label_names[int(probability[1] >= chosen.threshold)]
        assert expected[study_id]["flags"] == "", "a training study has no flags"


def test_lines_of_json_are_written_to_a_folder(trained, given, predicted, tmp_path):
    done = runs.run(
        "predict", f"--workdir={trained}", "--format=json", f"--output_dir={tmp_path}", *map(str, given[2:])
    )
    assert done.stdout == ""
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    in_csv = rows(predicted.stdout)[2:]
    assert [line["path"] for line in lines] == [row["path"] for row in in_csv]
    assert [line["file"] for line in lines] == list(map(str, given[2:]))
    for line, row in zip(lines, in_csv, strict=True):
        assert row["file"] == ""
        assert row["model"] == line["model"]
        assert line["threshold"] == pytest.approx(float(row["threshold"]))
        assert line["decision"] == ("positive" if line["probability"] >= line["threshold"] else "negative")
        assert line["probability"] == pytest.approx(float(row["probability"]), abs=1e-5)
        assert line["probabilities"].keys() == {"negative", "positive"}
        assert line["seen"]["slice_gap_mm"] > 0


def test_studies_that_are_explained_at_once_keep_their_order_and_their_own_files(trained, given, predicted, tmp_path):
    order = [given[1], given[0], given[2], given[3]]
    done = runs.run(
        "predict", f"--workdir={trained}", "--explain", f"--output_dir={tmp_path}", *map(str, order), check=False
    )
    assert done.returncode == SOME_FAILED
    written = rows((tmp_path / "predictions.csv").read_text())
    assert [row["file"] for row in written] == list(map(str, order))
    probability = {row["path"]: row["probability"] for row in rows(predicted.stdout)}
    for number, (row, path) in enumerate(zip(written, order, strict=True), start=1):
        assert row["probability"] == probability[str(path)]
        if path == given[0]:
            assert row["files"] == ""
            continue
        assert f"{number:04d}.html" in row["files"].split()
        assert f"P(positive) = {float(row['probability']):.3f}" in (tmp_path / f"{number:04d}.html").read_text()
    assert len({(tmp_path / f"{number:04d}.png").read_bytes() for number in (1, 3, 4)}) == 3


def test_a_second_call_predicts_what_is_missing(trained, given, tmp_path, capsys, monkeypatch):
    """A file that was broken, and one that is new; rows that are complete stay as they are."""
    folder, out = tmp_path / "studies", tmp_path / "out"
    folder.mkdir()
    for name, source in (("a.nii.gz", given[0]), ("b.nii.gz", given[2])):
        shutil.copy(source, folder / name)
    source = ModelSource.of([trained])

    def call(**options):
        counts = predict([str(folder)], source, output_dir=str(out), **options)
        written = rows((out / "predictions.csv").read_text())
        return counts, {Path(row["file"]).name: row for row in written}

    counts, first = call()
    assert counts == (2, 1)
    assert first["a.nii.gz"]["error"]
    shutil.copy(given[3], folder / "a.nii.gz")
    shutil.copy(given[3], folder / "0.nii.gz")
    capsys.readouterr()
    counts, second = call()
    assert counts == (3, 0)
    assert second["b.nii.gz"] == first["b.nii.gz"]
    assert {name: row["number"] for name, row in second.items()} == {"a.nii.gz": "1", "b.nii.gz": "2", "0.nii.gz": "3"}
    assert second["a.nii.gz"]["probability"] == second["0.nii.gz"]["probability"] != ""
    assert "has 1 of 3 studies" in (printed := capsys.readouterr().err)
    assert f"Written to {out}: predictions.csv\n" in printed
    before = (out / "predictions.csv").read_bytes()
    assert call()[0] == (3, 0)
    assert (out / "predictions.csv").read_bytes() == before
    with pytest.raises(UserError, match=r"predictions\.csv holds predictions of another model, or differs in --tta"):
        call(tta="mirror")
    assert (out / "predictions.csv").read_bytes() == before
    terminal = _Terminal()
    monkeypatch.setattr(predict_studies, "_stdout", lambda: terminal)
    predict([str(folder)], source)
    assert re.findall(r"^\S+: (?:posi|nega)tive; probabilities: neg.*; threshold: 0", terminal.getvalue(), re.M)[2:]
    assert "path," not in terminal.getvalue()


@pytest.mark.sampled
def test_later_calls_add_to_the_embeddings(trained, given, tmp_path):
    source = ModelSource.of([trained])
    assert predict([str(given[2])], source, output_dir=str(tmp_path)) == (1, 0)
    for studies in (given[2:3], [given[0], *given[2:]]):
        predict(list(map(str, studies)), source, embeddings=True, output_dir=str(tmp_path))
    stored = np.load(tmp_path / "embeddings.npz")
    written = [row for row in rows((tmp_path / "predictions.csv").read_text()) if not row["error"]]
    assert stored["files"].tolist() == [row["file"] for row in written] == list(map(str, given[2:]))
    assert stored["numbers"].tolist() == [int(row["number"]) for row in written]
    assert stored["features"].dtype == np.float32
    assert stored["features"].shape == (len(written), len(stored["layers"]))
    assert stored["sources"].tolist() == [row["source"] for row in written]
    # A scan that is replaced gets the features of the new one, and none where that cannot be read.
    replaced = shutil.copy(given[2], tmp_path / "scan.nii.gz")
    for source_file, count in ((None, 3), (given[3], 3), (given[0], 2)):
        if source_file is not None:
            shutil.copy(source_file, replaced)
        predict([str(replaced)], source, embeddings=True, output_dir=str(tmp_path))
        stored = dict(zip(*(np.load(tmp_path / "embeddings.npz")[name] for name in ("files", "features")), strict=True))
        assert len(stored) == count
        if count == 3:
            same = stored[str(source_file or given[2])]
            np.testing.assert_array_equal(stored[str(replaced)], same)


def test_several_networks_are_averaged(trained, trained_with_seed_1, given):
    study = given[2]
    alone = [covidscan.load(workdir)(study) for workdir in (trained, trained_with_seed_1)]
    together = covidscan.load([trained, trained_with_seed_1])(study)
    assert together.probability == pytest.approx(np.mean([one.probability for one in alone]), abs=1e-6)
    assert abs(alone[0].probability - alone[1].probability) > 1e-4, (
        "two networks with the same prediction prove nothing"
    )


@pytest.mark.sampled
def test_views_have_a_threshold_of_their_own_and_are_predicted_as_they_were_evaluated(trained, given):
    network = trained_module.restore(trained)
    studies = network.own_dataset()
    plain, chosen = (network.operating_point(lambda: studies, tta=tta) for tta in ("", "mirror"))
    assert operating_points.read(trained, network.step, "mirror") == chosen
    assert operating_points.read(trained, network.step) == plain
    own = np.asarray([studies.study_ids.index(given[2].name.removesuffix(".nii.gz"))])
    expected = network.predict(studies, own, "mirror").calibrated(chosen).probability[0, 1]
    predictor = covidscan.load(trained, tta="mirror")
    found = predictor(given[2])
    assert found.probability == pytest.approx(expected, abs=1e-5)
    assert found.threshold == chosen.threshold
    assert found.model.endswith("+tta=mirror")
    alone, scan = covidscan.load(trained), read_scan(given[2])
    sides = [alone(hu, scan.spacing_mm).probability for hu in (scan.hu, scan.hu[..., ::-1])]
    log_odds = np.log(sides) - np.log1p(-np.asarray(sides))
    assert found.probability == pytest.approx(1 / (1 + np.exp(-np.mean(log_odds))), abs=2e-3)
    assert abs(sides[0] - sides[1]) > 1e-5, "two views with the same prediction prove nothing"
    with pytest.raises(UserError, match="give mirror or full"):
        covidscan.load(trained, tta="everything")


def test_load_predicts_or_raises_an_error_that_names_the_study(trained, given):
    predictor = covidscan.load(trained)
    scan = read_scan(given[1])
    prediction = predictor(scan.hu, scan.spacing_mm)
    assert prediction.probability == predictor(given[1]).probability
    assert prediction.decision in prediction.probabilities
    shown = prediction._repr_html_()
    assert prediction.decision in shown
    assert "data:image/png;base64," in shown
    with pytest.raises(ScanError, match="broken"):
        predictor(given[0])
    with pytest.raises(TypeError, match="spacing_mm"):
        predictor(scan.hu)
    with pytest.raises(ScanError, match="array"):
        predictor(np.zeros((4, 4)), (1, 1, 1))


@pytest.mark.parametrize("checkpoint", ["best", "latest"])
def test_nothing_is_written_into_the_workdir(checkpoint, trained, given, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    (workdir / "choices.json").unlink()  # so that the threshold must be chosen again
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in [workdir, *workdir.rglob("*")]}
    prediction = covidscan.load(workdir, checkpoint=checkpoint)(given[1])
    assert prediction.decision
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in [workdir, *workdir.rglob("*")]} == before


@pytest.mark.parametrize(
    ("flags", "message"),
    {
        "no path": (["--workdir=runs/none"], "give PATH …"),
        "no model": (["scan.nii.gz"], "give --workdir or --model, as in"),
        "both": (["--workdir=a", "--model=b", "scan.nii.gz"], "--workdir, --model"),
        "no run": (["--workdir=runs/none", "scan.nii.gz"], "runs/none"),
        "no exported model": (["--model=runs/none", "scan.nii.gz"], "runs/none"),
        "an exported model as a run": (
            ["--workdir=tests/support/stored_run/exported", "scan.nii.gz"],
            "an exported model is used with --model=tests/support/stored_run/exported",
        ),
        "explanations without a folder": (["--workdir=a", "--explain", "scan.nii.gz"], "--output_dir"),
        "maps of an exported model": (
            ["--model=a", "--save_maps", "--output_dir=b", "scan.nii.gz"],
            "--save_maps: --model=a holds probabilities only",
        ),
    }.values(),
)
def test_mistakes_end_in_one_line(flags, message):
    done = runs.run("predict", *flags, check=False)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_networks_with_different_windows_do_not_form_an_ensemble(trained, tmp_path):
    # Version 0.1.0's checkpoints do not hold config.json, so that it can be changed.
    other = shutil.copytree(runs.ROOT / "tests/support/stored_run/run", tmp_path / "other")
    run = json.loads((other / "config.json").read_text())
    run["config"]["windows"][0] = [-500, 1400]
    (other / "config.json").write_text(json.dumps(run))
    with pytest.raises(UserError, match="windows differ"):
        covidscan.load([trained, other])
