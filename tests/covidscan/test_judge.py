"""An evaluation as a reader gets it: the table, predictions.csv, the report, the montage, the model card."""

import io
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from covidscan.judge import Predictions, judge, montage_studies, print_table, write_evaluation
from covidscan.report import montage, report
from tfds_mosmed.errors import UserError

FILES = {
    "metrics.json",
    "predictions.csv",
    "report.html",
    "model_card.md",
    "roc.png",
    "precision_recall.png",
    "confusion_matrix.png",
    "montage.png",
}


def binary(positive, negative):
    """Predictions from the scores of the positive and of the negative studies, in that order."""
    score = np.asarray([*positive, *negative], np.float64)
    label = np.repeat([1, 0], [len(positive), len(negative)])
    ids = [f"study_{number:04d}" for number in range(1, len(score) + 1)]
    names = ("negative", "positive")
    return Predictions(
        ids, [("CT-0", "CT-1")[k] for k in label], label, np.stack([1 - score, score], 1), names, "binary"
    )


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
    """Two lungs in a body in air, HU (slice, row, column); a dense patch in some slices."""
    volume = np.full((24, 48, 48), -1000, np.int16)
    volume[:, 6:42, 4:44] = 40
    for columns in (slice(8, 21), slice(27, 40)):
        volume[3:21, 12:36, columns] = -850
    for number in dense_slices:
        volume[number, 28:34, 10:16] = -450
    return volume, (8.0, 6.0, 6.0)


def context(**changes):
    return {
        "config": {"dataset": "mosmed/64x64x32", "protocol": "holdout", "task": "binary", "model": "lung_resnet"},
        "workdir": "runs/first",
        "dataset": "mosmed/64x64x32",
        "fingerprint": "f1" * 32,
        "split_hash": "5a" * 32,
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
        **changes,
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation") / "mosmed-test-best"
    volumes = {study_id: chest() for study_id in montage_studies(THIRTEEN)}
    return folder, write_evaluation(folder, THIRTEEN, context(), volumes)


def _html(predictions=THIRTEEN, **changes):
    return report.render_html(judge(predictions), context(**changes), {})


def test_the_table_of_thirteen_studies():
    result = judge(THIRTEEN)
    assert result["counts"] == {"negative": 5, "positive": 8}
    assert result["confusion_matrix"] == [[3, 2], [2, 6]]
    assert result["sensitivities"] == {"negative": 3 / 5, "positive": 6 / 8}
    assert result["figures"]["accuracy"]["value"] == pytest.approx(9 / 13)
    assert result["figures"]["accuracy"]["baseline"] == pytest.approx(8 / 13)
    assert result["figures"]["f1"]["baseline"] == pytest.approx(16 / 21)
    assert result["figures"]["npv"]["baseline"] is None
    low, high = result["figures"]["specificity"]["interval"]
    assert low < 3 / 5 < high
    assert result["figures"]["auroc"]["interval"] is None
    assert result["notes"] == []


def test_severity_is_also_judged_as_disease_or_not():
    result = judge(SEVERITY)
    assert result["baseline"] == "always CT-3+4"
    assert result["confusion_matrix"] == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 1]]
    assert result["disease"]["confusion_matrix"] == [[1, 0], [1, 3]]
    assert result["disease"]["figures"]["sensitivity"] == {
        "value": 3 / 4,
        "interval": pytest.approx((0.3006, 0.9544), abs=1e-4),
        "baseline": 1.0,
    }


def test_one_label_alone_is_judged_with_a_note():
    result = judge(binary((0.9, 0.3), ()))
    assert result["figures"]["auroc"] == {"value": None, "interval": None, "baseline": None}
    assert result["figures"]["accuracy"]["value"] == 0.5
    assert any("Not defined" in note and "AUROC" in note for note in result["notes"])
    assert "not defined" in print_table(result)


def test_the_printed_table_is_aligned_and_names_the_baseline():
    lines = print_table(judge(THIRTEEN)).splitlines()
    assert lines[:2] == ["CT scans with reference standard negative: 5", "CT scans with reference standard positive: 8"]
    assert lines[3].split("  ")[-1] == "always positive"
    assert len({len(line) for line in lines[3:]}) == 1
    assert re.search(r"^Sensitivity +0\.750 +0\.\d{3} to 0\.\d{3} +1\.000$", "\n".join(lines), re.MULTILINE)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), min_size=1), st.floats(0, 1)),
        min_size=1,
        max_size=8,
        unique_by=lambda study: study[0],
    )
)
def test_predictions_survive_csv(studies):
    score = np.asarray([value for _, value in studies])
    before = Predictions(
        [study_id for study_id, _ in studies],
        ["CT-1"] * len(studies),
        (score > 0.3).astype(int),
        np.stack([1 - score, score], 1),
        ("negative", "positive"),
        "binary",
    )
    after = Predictions.from_csv(before.to_csv(), "binary")
    assert list(after.study_id) == list(before.study_id)
    assert (list(after.category), after.label_names) == (list(before.category), before.label_names)
    np.testing.assert_array_equal(after.label, before.label)
    np.testing.assert_array_equal(after.probability, before.probability)


def test_predictions_csv_has_the_columns_of_the_contract():
    header, first, *_ = THIRTEEN.to_csv().splitlines()
    assert header == "study_id,label,probability_negative,probability_positive,prediction,category"
    assert first == f"study_0001,positive,{1 - 0.95!r},0.95,positive,CT-1"
    assert THIRTEEN.to_csv(threshold=0.96).splitlines()[1].split(",")[4] == "negative"


@pytest.mark.parametrize("text", ["", "study_id,label\na,b\n", "study_id,label,probability_a,category\nx,b,1,c\n"])
def test_another_csv_is_refused(text):
    with pytest.raises(UserError):
        Predictions.from_csv(text, "binary")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"study_id": [], "category": []}, UserError, "no study to judge: .* --split"),
        ({"probability": np.full((2, 2), np.nan)}, UserError, "diverged: .* --learning_rate"),
        ({"probability": np.full((2, 2), 0.4)}, ValueError, "sum to 1"),
        ({"probability": np.full((3, 2), 0.5)}, ValueError, "must fit 2 studies and 2 labels"),
        ({"label": [0, 2]}, ValueError, "from 0 to 1"),
        ({"study_id": ["a", "a"]}, ValueError, "once"),
    ],
)
def test_predictions_that_make_no_sense(change, error, message):
    fields = {"study_id": ["a", "b"], "category": ["x", "y"], "label": [0, 1], "probability": np.full((2, 2), 0.5)}
    with pytest.raises(error, match=message):
        Predictions(**{**fields, **change}, label_names=("negative", "positive"), task="binary")


def test_every_file_is_written_and_whole(written):
    folder, stored = written
    assert {path.name for path in folder.iterdir()} == FILES
    assert json.loads((folder / "metrics.json").read_text()) == json.loads(json.dumps(stored))
    assert stored["context"]["split_hash"] == "5a" * 32
    assert (folder / "predictions.csv").read_text() == THIRTEEN.to_csv()
    for path in folder.glob("*.png"):
        assert imread(path)[..., :3].std() > 0.05


def test_the_report_fetches_nothing(written):
    page = (written[0] / "report.html").read_text()
    sources = re.findall(r"""(?:src|href|data|action|poster)\s*=\s*["']([^"']*)""", page)
    assert len(sources) >= 4
    assert all(source.startswith(("data:image/png;base64,", "data:,")) for source in sources)
    assert not re.search(r"https?://|url\(|@import|<script|<iframe", page)


def test_every_picture_has_words_for_those_who_cannot_see_it(written):
    images = re.findall(r"<img[^>]*>", (written[0] / "report.html").read_text())
    assert len(images) == 4
    assert all(re.search(r'alt="[^"]{20,}"', image) for image in images)


def test_learning_curves_join_the_report_where_there_are_some(written, tmp_path):
    curves = written[0] / "roc.png"
    write_evaluation(tmp_path, THIRTEEN, context(), {}, curves=curves)
    assert (tmp_path / "report.html").read_text().count("<img") == 5
    write_evaluation(tmp_path, THIRTEEN, context(), {}, curves=tmp_path / "missing.png")
    assert (tmp_path / "report.html").read_text().count("<img") == 4


@pytest.mark.parametrize("predictions", [THIRTEEN, SEVERITY, binary((0.9,), ())])
@pytest.mark.parametrize("external", [False, True])
def test_words_of_the_field(predictions, external):
    result = judge(predictions)
    changed = context(external=external, is_phantom=external)
    for text in (report.render_html(result, changed, {}), report.render_model_card(result, changed)):
        assert "validated" not in text.lower()
        assert "ground truth" not in text.lower()
        assert "reference standard" in text.lower()
        assert "Research only, not for diagnosis" in text


def test_the_report_tells_what_a_reader_needs():
    page = _html()
    for words in (
        "Baseline: always positive",
        "5a" * 32,
        "f1" * 32,
        "&lt;study&gt;.nii.gz: truncated",
        "python -m covidscan.evaluate --workdir=runs/first",
        "1,234,567",
        "2 h 3 min",
        "lung_resnet",
        "step 1,200 (best)",
    ):
        assert words in page
    assert page.index("No external test") < page.index("Figures</h2>")


def test_banners_say_where_figures_come_from():
    phantom = {"is_phantom": True, "config": {**context()["config"], "dataset": "ct_phantom/demo"}}
    assert "Phantom data" not in _html()
    assert "trained and judged on synthetic chests" in _html(**phantom, dataset="ct_phantom/demo")
    external = _html(**phantom, external=True)
    assert "The network was trained on synthetic chests" in external
    assert "No external test" not in external
    assert "External test: trained on ct_phantom/demo, judged on mosmed/64x64x32" in external
    assert "They chose the checkpoint" in _html(part="validation")
    assert "They trained the network" in _html(part="train")


def test_a_report_that_fails_leaves_the_earlier_one(written):
    folder = written[0]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    incomplete = {name: value for name, value in context().items() if name != "split_hash"}
    with pytest.raises(Exception, match="split_hash"):
        write_evaluation(folder, binary((0.9,), (0.2,)), incomplete, {})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_model_card_is_a_table_with_the_baseline(written):
    card = (written[0] / "model_card.md").read_text()
    assert "| Specificity | 0.600 | 0.231 to 0.882 | 0.000 |" in card
    assert "> **No external test:" in card
    assert "13 studies (5 negative, 8 positive)" in card


def test_the_montage_shows_the_worst_mistakes_first():
    kinds = dict(montage.choose(THIRTEEN))
    assert kinds["False negative"] == ["study_0008", "study_0007"]
    assert kinds["False positive"] == ["study_0009", "study_0010"]
    assert set(kinds["True negative"]) <= {"study_0011", "study_0012", "study_0013"}
    assert list(dict(montage.choose(binary((0.9,), (0.1,))))) == ["True positive", "True negative"]
    assert dict(montage.choose(SEVERITY))["Wrong"] == ["study_0002", "study_0004"]


def test_the_montage_shows_slices_as_a_radiologist_sees_them():
    volume, spacing = chest((6, 11, 17))
    volume[11, 0, 0] = 1000  # front, patient's right: top left
    axes = montage.draw(binary((0.9,), ()), {"study_0001": (volume, spacing)}).axes[0]
    picture = axes.images[0]
    assert picture.origin == "upper"
    strip = np.asarray(picture.get_array())
    np.testing.assert_array_equal(strip[:, 49:97], volume[11])
    assert picture.get_clim() == (-1350, 150)
    assert "study_0001" in axes.get_title(loc="right")
    assert "CT-1 (positive)" in axes.get_title(loc="right")
    assert "0.90" in axes.get_title(loc="right")
    assert axes.get_title(loc="left") == "True positive"


def test_telling_slices_are_those_with_dense_lung():
    assert montage.telling_slices(*chest((6, 11, 17))) == [6, 11, 17]
    assert montage.telling_slices(*chest((4, 9, 20))) == [4, 9, 20]


def test_telling_slices_without_lungs_are_spread_out():
    assert montage.telling_slices(np.full((9, 16, 16), 40, np.int16), (8, 1, 1)) == [2, 4, 6]
    assert montage.telling_slices(np.full((9, 16, 16), -1000, np.int16), (8, 1, 1)) == [2, 4, 6]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0312, "0.031 s"), (42.4, "42 s"), (200, "3 min 20 s"), (7384, "2 h 3 min")]
)
def test_times_as_a_reader_says_them(seconds, words):
    assert report.duration(seconds) == words


def test_pictures_of_the_report_are_the_files_beside_it(written):
    page = (written[0] / "report.html").read_text()
    import base64

    embedded = [base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert set(embedded) == {path.read_bytes() for path in written[0].glob("*.png")}
    assert imread(io.BytesIO(embedded[0])).ndim == 3
