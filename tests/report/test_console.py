"""Results as the console shows them."""

import re

from covidscan.evaluation.comparison import summarize_runs
from covidscan.metrics.results import Metric
from covidscan.report.console import comparison_text, evaluation_text, repeats_text
from tests.support.evaluations import THIRTEEN, evaluated
from tests.support.loaded import load
from tests.support.reported import context, result


def test_the_printed_table_is_aligned_and_names_the_baseline():
    lines = evaluation_text(evaluated(THIRTEEN)).splitlines()
    assert lines[:2] == ["CT scans with reference standard negative: 5", "CT scans with reference standard positive: 8"]
    assert lines[3].split("  ")[-1] == "always positive"
    table = lines[3 : lines.index("", 3)]
    assert len({len(line) for line in table}) == 1
    assert re.search(r"^Sensitivity +0\.750 +0\.\d{3} to 0\.\d{3} +1\.000$", "\n".join(lines), re.MULTILINE)


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
