"""The page, the model card and the montage as a reader gets them."""

import base64
import re

import numpy as np
import pytest

from covidscan.judge import judge, montage_studies, write_evaluation
from covidscan.report import montage, report
from tests.covidscan.evaluations import SEVERITY, THIRTEEN, binary, chest, context


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluation")
    write_evaluation(path, THIRTEEN, context(), {study_id: chest() for study_id in montage_studies(THIRTEEN)})
    return path


def _html(predictions=THIRTEEN, **changes):
    return report.render_html(judge(predictions), context(**changes), {})


def test_the_report_fetches_nothing(folder):
    page = (folder / "report.html").read_text()
    sources = re.findall(r"""(?:src|href|data|action|poster)\s*=\s*["']([^"']*)""", page)
    assert len(sources) >= 4
    assert all(source.startswith(("data:image/png;base64,", "data:,")) for source in sources)
    assert not re.search(r"https?://|url\(|@import|<script|<iframe", page)


def test_every_picture_has_words_for_those_who_cannot_see_it(folder):
    images = re.findall(r"<img[^>]*>", (folder / "report.html").read_text())
    assert len(images) == 4
    assert all(re.search(r'alt="[^"]{20,}"', image) for image in images)


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


def test_the_model_card_is_a_table_with_the_baseline(folder):
    card = (folder / "model_card.md").read_text()
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
    assert montage.telling_slices(*chest((7, 8, 9, 17))) == [7, 9, 17]  # 8 shows much the same as 7


def test_telling_slices_without_lungs_are_spread_out():
    assert montage.telling_slices(np.full((9, 16, 16), 40, np.int16), (8, 1, 1)) == [2, 4, 6]
    assert montage.telling_slices(np.full((9, 16, 16), -1000, np.int16), (8, 1, 1)) == [2, 4, 6]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0312, "0.031 s"), (42.4, "42 s"), (200, "3 min 20 s"), (15005, "4 h 10 min")]
)
def test_times_as_a_reader_says_them(seconds, words):
    assert report.duration(seconds) == words


def test_pictures_of_the_report_are_the_files_beside_it(folder):
    page = (folder / "report.html").read_text()
    embedded = [base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert set(embedded) == {path.read_bytes() for path in folder.glob("*.png")}
