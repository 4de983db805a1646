"""The model card: what was found and how, and no sentence about what was not done."""

import re

import pytest

from covidscan.report.html import render_model_card
from tests.support.loaded import load
from tests.support.reported import context, result


def _card(evaluated=None, **changes):
    return render_model_card(*load(evaluated or result(), context(**changes)))


def _sections(card):
    return re.findall(r"^## (.*)$", card, re.MULTILINE)


def test_metrics_have_interval_baseline_and_method():
    card = _card()
    assert "| AUROC | 0.913 | 0.871 to 0.955 | 0.500 | DeLong |" in card
    assert "| Negative predictive value | 0.688 | 0.579 to 0.779 | not defined | Wilson |" in card
    assert "331 studies (76 negative, 255 positive)" in card


def test_a_metric_without_an_interval_has_an_empty_cell():
    figures = {"accuracy": {"value": None, "interval": None, "method": None, "baseline": 0.77}}
    assert "| Accuracy | not defined |  | 0.770 |  |" in _card(result(figures=figures))


def test_the_operating_point_is_described():
    assert "sensitivity of at least 0.95 on the 97 validation studies.\nThreshold 0.410, temperature 1.375." in _card()
    assert "The predicted label is the likeliest one. Temperature 1.375." in _card(
        result(task="classes", threshold=None)
    )


def test_a_recalibration_with_an_offset_is_described():
    point = {**result()["operating_point"], "offsets": [0.0, -1.25], "prevalence": 0.77}
    card = _card(result(operating_point=point))
    assert "Threshold 0.410, temperature 1.375, offset −1.250." in card
    assert "| | before recalibration | after |" in card
    assert "The recalibration was chosen on 97" in card
    assert "unless `--prevalence` adapts it" in card
    untouched = _card(result(operating_point=point | {"temperature": 1.0, "offsets": [0.0, 0.0]}))
    assert "they were not recalibrated" in untouched


def test_everything_that_was_examined_has_its_section():
    card = _card()
    assert "| Slope (1 is right) | 0.610 (0.450 to 0.800) | 0.970 (0.700 to 1.200) |" in card
    assert "- slices and spacing: AUROC 0.532 (0.460 to 0.604). Logistic regression" in card
    assert "- category CT-1, 203 studies: Sensitivity 0.880 (0.830 to 0.920)" in card
    assert "| Accuracy | +0.015 | −0.020 to 0.050 | < 0.001 | McNemar |" in card
    assert "| AUROC | 0.910 | 0.014 | 0.900 | 0.920 | 2 |" in card
    assert "They can show an AUROC difference of 0.06." in card
    assert "Leaks: No study of one part is like a study of another." in card


@pytest.mark.parametrize(
    ("change", "section", "absent"),
    [
        ({"calibration": None}, "Calibration", "Slope"),
        ({"baselines": []}, "Baselines and probes", "slices and spacing"),
        ({"subgroups": []}, "Subgroups", "category CT-1"),
        ({"comparison": None}, "Comparison", "runs/other"),
        ({"repeats": None}, "Folds", "SD"),
        ({"smallest_difference": None}, None, "They can show"),
        ({"shortcuts": []}, None, "Shortcut"),
    ],
)
def test_what_was_not_examined_has_no_section(change, section, absent):
    whole, less = _card(), _card(result(**change))
    assert [name for name in _sections(whole) if name not in _sections(less)] == ([section] if section else [])
    assert absent in whole
    assert absent not in less


def test_limits_follow_from_the_evaluation():
    assert "Calibration was not examined" not in _card()
    assert "Subgroups were not examined" not in _card()
    bare = _card(result(calibration=None, subgroups=[]))
    assert "Calibration was not examined" in bare
    assert "Subgroups were not examined" in bare
    assert "temperature was chosen on 97" in _card()
    untouched = _card(result(operating_point={**result()["operating_point"], "temperature": 1.0}))
    assert "they were not recalibrated" in untouched
    assert "temperature was chosen" not in untouched


def test_accesses_to_the_test_part_are_counted():
    access = context()["test_openings"][0]
    assert "- Test accesses: The test studies of mosmed/128x128x32 were evaluated once. Dates: 2026-01-31T12" in _card()
    assert "more than once" not in _card()
    again = _card(test_openings=[access, {**access, "date": "2026-02-01"}])
    assert "mosmed/128x128x32 were evaluated 2 times. Dates: 2026-01-31T12:00:00+00:00, 2026-02-01\n" in again
    assert "evaluated more than once" in again
    assert "Test accesses" not in _card(test_openings=[])


def test_banners_and_shortcuts_come_before_the_metrics():
    card = _card(dataset="ct_phantom/demo", trained_on="ct_phantom/demo")
    places = [
        card.index(words) for words in ("Phantom data", "No external test", "Shortcut.", "## Model", "## Metrics")
    ]
    assert places == sorted(places)
    assert "Phantom data" not in _card()
    assert "No external test" not in _card(trained_on="ct_folder/128x128x32")


def test_severity_also_has_a_table_of_the_first_grade_against_the_others():
    card = _card(
        result(
            task="severity",
            disease={
                "baseline": "always positive",
                "figures": result()["figures"],
                "confusion_matrix": [[55, 21], [25, 230]],
            },
        )
    )
    assert "negative against the other grades:" in card
    assert card.count("| Specificity | 0.724 | 0.614 to 0.812 | 0.000 | Wilson |") == 2


def test_an_ensemble_is_described():
    assert "ensemble" not in _card()
    card = _card(arrangement="ensemble", num_members=5)
    assert "volumes; 5 such networks in an ensemble: their probabilities are averaged\n" in card
    assert "Threshold 0.410, mean temperature 1.375." in card
    assert "step 1,200" not in card
    used = [("runs/a", "lung_resnet", 1000, 7), ("runs/b", "densenet3d121", 20000, 9)]
    names = ("workdir", "model", "num_parameters", "checkpoint")
    mixed = _card(
        arrangement="ensemble", num_members=2, networks=[dict(zip(names, each, strict=True)) for each in used]
    )
    assert "# Model card: lung_resnet and densenet3d121," in mixed
    assert "- Network: lung_resnet and densenet3d121, 1,000 and 20,000 parameters, on" in mixed


def test_an_external_card_has_the_split_that_trained():
    assert f"- Split of the training {'7b' * 32}\n" in _card(trained_on="ct_folder/128x128x32")
    assert "7b" * 32 not in _card()


@pytest.mark.parametrize("change", [{}, {"calibration": None, "subgroups": [], "comparison": None, "shortcuts": []}])
def test_tables_have_equal_rows_and_lines_are_not_broken(change):
    card = _card(result(**change))
    for table in re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE):
        assert len({len(re.findall(r"\|", row)) for row in table.splitlines()}) == 1
        assert re.fullmatch(r"(\|---)+\|", table.splitlines()[1])
    assert not re.search(r"\n{4}", card)
    assert "validated" not in card.lower()
    assert "ground truth" not in card.lower()


def test_names_hold_no_html():
    card = _card(result(label_names=["negative", "<img src=x onerror=alert(1)>"]), dataset="ct_folder/<script>")
    assert not re.search(r"<\S", card)
    assert "&lt;img src=x" in card
