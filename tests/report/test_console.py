"""Results as the console shows them."""

import dataclasses
import os
import re
from types import SimpleNamespace

import pytest

from covidscan.evaluation.comparison import summarize_runs
from covidscan.metrics.results import Baseline, Metric
from covidscan.report import wording
from covidscan.report.console import comparison_text, evaluation_text, repeats_text, text_table
from covidscan.report.html import render_model_card
from tests.support import full_evaluations
from tests.support.evaluations import THIRTEEN, evaluated
from tests.support.loaded import load
from tests.support.reported import context, result
from tfds_mosmed.progress import fitted


def test_the_printed_table_is_aligned_and_names_the_baseline():
    called, _, *lines = evaluation_text(evaluated(THIRTEEN)).splitlines()
    assert called.startswith("Perhaps no better than a baseline: 13 studies do not show whether the model is be")
    assert lines[:2] == ["CT scans with reference standard negative: 5", "CT scans with reference standard positive: 8"]
    assert lines[3].split("  ")[-1] == "always positive"
    table = lines[3 : lines.index("", 3)]
    assert len({len(line) for line in table}) == 1
    assert re.search(r"^Sensitivity +0\.750 +0\.\d{3} to 0\.\d{3} +1\.000$", "\n".join(lines), re.MULTILINE)


@pytest.mark.parametrize(
    ("auroc", "interval", "rival", "accuracy", "titles"),
    [
        (0.9, (0.85, 0.95), 0.80, 0.86, []),
        (0.9, (0.85, 0.95), 0.86, 0.86, ["Perhaps no better than a baseline"]),
        (0.9, (0.85, 0.95), 0.90, 0.86, ["No better than a baseline"]),
        (0.9, (0.85, 0.95), 0.80, 0.77, ["No more accurate than a constant answer"]),
        (0.9, (0.85, 0.95), None, 0.86, []),
        (0.9, None, 0.95, 0.86, ["No better than a baseline"]),
        (0.6, (0.49, 0.71), 0.40, 0.80, ["Perhaps no better than a baseline"]),
        (0.5, (0.40, 0.60), 0.45, 0.70, [
            "No better than a baseline",
            "Perhaps no better than a baseline",
            "No more accurate than a constant answer",
        ]),
        (None, None, None, 0.86, []),
    ],
)  # fmt: skip
def test_a_model_that_beats_no_baseline_is_called_that_first(auroc, interval, rival, accuracy, titles):
    evaluation, provenance = load(result(), context())
    metrics = evaluation.metrics | {
        "auroc": Metric(auroc, interval, "DeLong", 0.5),
        "accuracy": Metric(accuracy, None, None, 0.77),
    }
    density = Baseline("Dense share", "Of the lungs.", "features", {"auroc": Metric(rival)})
    changed = dataclasses.replace(evaluation, metrics=metrics, baselines=[density], repeats=None)
    assert [each.title for each in wording.not_beaten(changed)] == titles
    shown = evaluation_text(changed)
    card = render_model_card(changed, provenance)
    for title in titles:
        assert shown.index(title) < shown.index("CT scans with reference standard")
        assert card.index(f"> **{title}.**") < card.index("\n## ")
    assert ("better than a baseline" in card) == any("baseline" in title for title in titles)


@pytest.mark.parametrize(("pooled", "mean", "titles"), [
    (0.86, 0.92, ["Perhaps no better than a baseline"]),  # scores of the folds differ: pooled it is below the baseline
    (0.93, 0.89, ["No better than a baseline"]),
    (0.93, 0.94, []),
])  # fmt: skip
def test_over_folds_means_are_compared_with_means(pooled, mean, titles):
    evaluation, _ = load(result(), context())
    metrics = evaluation.metrics | {"auroc": Metric(pooled, (pooled - 0.02, pooled + 0.02), "DeLong", 0.5)}
    density = Baseline("Dense share", "Of the lungs. Mean over the folds.", "features", {"auroc": Metric(0.9)})
    folds = {f"fold {k}": {"auroc": Metric(mean + spread)} for k, spread in enumerate((-0.01, 0.01))}
    changed = dataclasses.replace(
        evaluation, metrics=metrics, baselines=[density], repeats=summarize_runs(folds, "folds")
    )
    found = wording.not_beaten(changed)
    assert [each.title for each in found] == titles
    for each in found:
        assert f"mean AUROC over the folds{', ' if each.is_certain else ' is '}{mean:.3f}" in each.text


@pytest.mark.parametrize("name", ["severity", "classes"])
def test_tasks_of_several_labels_are_compared_by_their_own_auroc(name):
    """Of severity that of the first grade against the others, of classes the mean."""
    full = getattr(full_evaluations, name)()
    evaluation = load(full.result, full.context)[0]
    own = wording.key_metrics(evaluation)["auroc"]
    for rival, titles in ((own.value + 0.001, ["No better than a baseline"]), (0.55, [])):
        density = Baseline("Dense share", "Of the lungs.", "features", {"auroc": Metric(rival)})
        found = wording.not_beaten(dataclasses.replace(evaluation, baselines=[density]))
        assert [each.title for each in found] == titles
        if titles:
            shown = evaluation_text(dataclasses.replace(evaluation, baselines=[density]))
            title = wording.key_title(evaluation, "auroc")
            assert shown.startswith(f"{titles[0]}: The model's {title}, {own.value:.3f}")


def test_the_console_shows_a_short_table_of_the_comparison():
    lines = comparison_text(load(result(), context())[0].comparison).splitlines()
    assert lines[0] == "This run minus runs/other, on the same 331 studies."
    assert " ".join(lines[3].split()) == "AUROC +0.021 -0.010 to +0.052 p = 0.190 DeLong"
    assert " ".join(lines[4].split()) == "Accuracy +0.015 -0.020 to +0.050 p < 0.001 McNemar"
    assert len({len(line) for line in lines[2:]}) == 1


def test_the_console_shows_a_short_table_of_folds():
    folds = {"fold 0": {"auroc": Metric(0.8)}, "fold 1": {"auroc": Metric(0.9)}}
    lines = repeats_text(summarize_runs(folds, "folds")).splitlines()
    assert lines[0].split() == ["2", "folds", "mean", "SD", "lowest", "highest", "folds"]
    assert lines[1].split() == ["AUROC", "0.850", "0.071", "0.800", "0.900", "2"]
    assert len({len(line) for line in lines}) == 1


def test_a_terminal_breaks_lines_between_words_and_shows_the_last_columns_of_wide_tables_below(monkeypatch):
    rows = [("", "left lung", "right lung"), ("volume", "2.1 l", "2.6 l")]
    whole = text_table(rows)
    prose = "Warning: the threshold was chosen\n  on three validation studies"
    assert (len(whole.splitlines()), fitted(prose)) == (2, prose)  # of a file
    monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: True, fileno=lambda: 1))
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((20, 40)))
    assert text_table(rows).splitlines() == [
        "        left lung",
        "volume      2.1 l",
        "",
        "        right lung",
        "volume       2.6 l",
    ]
    assert fitted(prose).splitlines() == ["Warning: the", "threshold was chosen", "  on three", "  validation studies"]
