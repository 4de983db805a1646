"""Pictures: there is something on them, and runs that were cut short still have curves."""

import dataclasses
import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.path import Path

from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import Calibration, DecisionCurve, Reliability
from covidscan.report import charts, forest, montage, plots
from covidscan.runs.log import read_log
from tests.support import full_evaluations
from tests.support.loaded import load

NAMES = {
    "binary": ("negative", "positive"),
    "severity": ("CT-0", "CT-1", "CT-2", "CT-3+4"),
    "classes": ("cap", "covid", "normal"),
}


def _predictions(task, label=None, count=30):
    rng = np.random.default_rng(1)
    label = rng.integers(0, len(NAMES[task]), count) if label is None else np.asarray(label)
    probability = rng.dirichlet(np.ones(len(NAMES[task])), len(label))
    ids = [f"s{number}" for number in range(len(label))]
    return Predictions(ids, [NAMES[task][k] for k in label], label, probability, NAMES[task], task)


def _log(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _ink(png):
    image = imread(io.BytesIO(png))[..., :3]
    assert min(image.shape[:2]) > 200
    return np.mean(image.min(axis=-1) < 0.95)


@pytest.mark.parametrize("task", NAMES)
def test_every_task_has_its_pictures(task):
    predictions = _predictions(task)
    data, matrix = charts.chart_data(predictions, 0.5), np.eye(len(NAMES[task]), dtype=int)
    for figure in (plots.roc(data, 0.5), plots.precision_recall(data), plots.confusion_matrix(matrix, NAMES[task])):
        assert 0.01 < _ink(plots.to_png(figure)) < 0.9


@pytest.mark.parametrize("name", ["a$b$", r"$\frac$ \$", "_^{ $x^$", "\x1b[31m\u202e"])
def test_names_are_text_and_not_formulas(name):
    names = (name, f"{name} other", "normal")
    predictions = dataclasses.replace(_predictions("classes"), label_names=names)
    predictions = dataclasses.replace(predictions, study_id=[f"{name}{i}" for i in range(30)], category=[name] * 30)
    data = charts.chart_data(predictions, 0.5)
    figures = [plots.roc(data, 0.5), plots.precision_recall(data), plots.confusion_matrix(np.eye(3, dtype=int), names)]
    for figure in figures:
        plots.to_png(figure)
    for figure in figures[:2]:
        assert len(figure.axes[0].get_legend().texts) == 3
    volume = np.full((4, 24, 24), -800, np.int16)
    plots.to_png(
        montage.draw(predictions, dict.fromkeys(predictions.study_id, montage.ShownStudy(volume, (8.0, 6.0, 6.0))))
    )


@pytest.mark.parametrize("render", [plots.to_png, plots.to_svg])
def test_the_same_numbers_give_the_same_file(render):
    data = charts.chart_data(_predictions("binary"), 0.5)
    assert render(plots.roc(data, 0.5)) == render(plots.roc(data, 0.5))


def test_text_of_a_drawing_is_text_and_nothing_but_text():
    names = ("a\x1b\u202e", "<script>&", "other")
    data = charts.chart_data(dataclasses.replace(_predictions("classes"), label_names=names), None)
    tree = ElementTree.fromstring(plots.to_svg(plots.roc(data, None)))
    words = ["".join(each.itertext()) for each in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert any(word.startswith("<script>&: AUROC") for word in words)
    assert any(word.startswith("a\\x1b\\u202e: AUROC") for word in words)
    assert "Sensitivity" in words


def test_roc_is_drawn_through_every_operating_point():
    label, score = np.asarray([0, 0, 1, 1, 1]), np.asarray([0.1, 0.6, 0.4, 0.8, 0.9])
    predictions = Predictions("abcde", "abcde", label, np.stack([1 - score, score], 1), NAMES["binary"], "binary")
    axes = plots.roc(charts.chart_data(predictions, 0.5), 0.5).axes[0]
    _, curve, point = axes.lines
    corners = {(0, 0), (0, 2 / 3), (0.5, 2 / 3), (0.5, 1), (1, 1)}
    assert corners <= set(map(tuple, curve.get_xydata())) <= {*corners, (0, 1 / 3)}
    np.testing.assert_allclose(point.get_xydata(), [(0.5, 2 / 3)])
    assert "AUROC 0.833" in curve.get_label()
    (band,) = axes.patches
    assert Path(band.get_xy()).contains_points([(0.25, 0.66), (0.05, 0.5)]).all()


def test_precision_recall_names_the_share_of_positives():
    data = charts.chart_data(_predictions("binary", [1] * 3 + [0] * 9), 0.5)
    axes = plots.precision_recall(data).axes[0]
    assert axes.lines[0].get_label().endswith("(0.250)")
    np.testing.assert_allclose(axes.lines[1].get_ydata(), 0.25)
    row = data.explorer.frozen
    np.testing.assert_allclose(axes.lines[2].get_xydata(), [(row.sensitivity.value, row.ppv)])


def test_the_question_of_disease_has_its_own_frozen_point():
    data = charts.chart_data(_predictions("severity", [0, 1, 2, 0, 1, 2]), 0.5)
    grave = 1 - data.explorer.score < 0.5
    rates = [(grave & (data.explorer.positive == answer)).sum() / n for answer, n in ((False, 2), (True, 4))]
    np.testing.assert_allclose(data.explorer.frozen_point, rates)


def test_many_classes_are_named_beside_the_curves():
    label, names = np.arange(28) % 14, tuple(f"class {k}" for k in range(14))
    probability = np.random.default_rng(2).dirichlet(np.ones(14), 28)
    predictions = Predictions(
        [str(i) for i in range(28)], [names[k] for k in label], label, probability, names, "classes"
    )
    figure = plots.roc(charts.chart_data(predictions, None), None)
    styles = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(styles) == 15
    plots.to_png(figure)
    assert figure.axes[0].get_legend().get_window_extent().x0 > figure.axes[0].get_window_extent().x1


def test_one_label_alone_has_a_message_and_no_curve():
    data = charts.chart_data(_predictions("binary", [1, 1, 1]), 0.5)
    for figure in (plots.roc(data, 0.5), plots.precision_recall(data)):
        assert any("not defined" in text.get_text() for text in figure.axes[0].texts)
        plots.to_png(figure)


def test_the_confusion_matrix_shows_counts_and_shares():
    figure = plots.confusion_matrix([[3, 1], [0, 8]], ["negative", "positive"])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["3", "75 %", "1", "25 %", "0", "0 %", "8", "100 %"]


def test_the_reliability_diagram_shows_each_bin_with_its_range_interval_and_studies():
    full = full_evaluations.binary()
    calibration = load(full.result, full.context)[0].calibration
    figure = plots.reliability(calibration)
    for upper, lower, side in zip(figure.axes[:2], figure.axes[2:], ("before", "after"), strict=True):
        bins = getattr(calibration, side).bins
        assert side in upper.get_title(loc="left").lower()
        line, _, (across, upright) = upper.containers[0].lines
        np.testing.assert_allclose(line.get_xydata(), [(b.mean_probability, b.observed) for b in bins])
        assert line.get_linestyle() == "None"  # nothing is known between bins
        ranges = np.asarray(across.get_segments())[:, :, 0]
        np.testing.assert_allclose(ranges, [(b.low, b.high) for b in bins], atol=1e-12)
        intervals = np.asarray(upright.get_segments())[:, :, 1]
        np.testing.assert_allclose(intervals, [b.interval for b in bins], atol=1e-12)
        drawn = [(bar.get_x(), bar.get_x() + bar.get_width(), bar.get_height()) for bar in lower.patches]
        np.testing.assert_allclose(drawn, [(b.low, b.high, b.count) for b in bins])
        assert sum(height for _, _, height in drawn) == 331


def test_reliability_without_bins_is_an_empty_diagram():
    plots.to_png(plots.reliability(Calibration("", Reliability({}, []), Reliability({}, []))))


def test_the_decision_curve_has_the_model_and_both_alternatives():
    curve = DecisionCurve([0.1, 0.3, 0.5], model=[0.4, 0.3, 0.1], treat_all=[0.4, 0.2, -0.2], prevalence=0.46)
    everyone, none, model = plots.decision_curve(curve).axes[0].lines
    np.testing.assert_allclose(everyone.get_ydata(), curve.treat_all)
    np.testing.assert_allclose(none.get_ydata(), 0)
    np.testing.assert_allclose(model.get_xydata(), [(0.1, 0.4), (0.3, 0.3), (0.5, 0.1)])
    explorer = charts.chart_data(_predictions("binary", [1] * 3 + [0] * 9), 0.4).explorer
    dot = plots.decision_curve(curve, explorer).axes[0].lines[3]
    np.testing.assert_allclose(dot.get_xydata(), [(0.4, explorer.frozen.net_benefit(0.4))])


def test_the_log_of_a_resumed_run_counts_each_step_once(tmp_path):
    path = _log(
        tmp_path / "metrics.jsonl",
        [
            {"step": 10, "split": "train", "loss": 0.9},
            {"step": 30, "split": "train", "loss": 0.4},
            {"step": 20, "split": "train", "loss": 0.6},
            {"step": 30, "split": "train", "loss": 0.5},
        ],
    )
    with path.open("a") as file:
        file.write('{"step": 40, "split": "tr')
    curve = charts.learning(read_log(tmp_path))["loss"]["train"]
    assert list(zip(*curve, strict=True)) == [(10, 0.9), (20, 0.6), (30, 0.5)]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [{"step": 1, "split": "train", "loss": 0.7}],
        [{"step": 1, "split": "train", "loss": float("nan")}, {"step": 2, "split": "validation", "auroc": None}],
        [{"step": s, "split": "validation", "loss": 1 / s, "auroc": s / 9} for s in range(1, 9)],
    ],
)
def test_learning_curves_of_short_and_empty_runs(lines):
    assert _ink(plots.to_png(plots.learning_curves(charts.learning(lines), None))) > 0.005


def test_a_value_that_is_not_a_number_is_left_out():
    lines = [{"step": step, "split": "validation", "loss": 1 / step, "auroc": step / 9} for step in range(1, 9)]
    diverged = {"step": 4, "split": "validation", "loss": float("nan"), "auroc": float("nan")}
    whole, gap = charts.learning(lines[:3] + lines[4:]), charts.learning([*lines[:3], diverged, *lines[4:]])
    assert plots.to_png(plots.learning_curves(gap, None)) == plots.to_png(plots.learning_curves(whole, None))


def test_learning_curves_are_drawn_by_epoch_with_the_learning_rate():
    lines = [{"step": step, "split": "train", "loss": 0.5, "learning_rate": step / 1e4} for step in (10, 20, 30)]
    figure = plots.learning_curves(charts.learning([*lines, {"step": 30, "split": "validation", "auroc": 0.9}]), 20.0)
    loss, auroc, rate = figure.axes
    np.testing.assert_allclose(loss.lines[0].get_xydata(), [(0.5, 0.5), (1, 0.5), (1.5, 0.5)])
    np.testing.assert_allclose(rate.lines[0].get_xydata(), [(0.5, 0.001), (1, 0.002), (1.5, 0.003)])
    assert auroc.lines[-1].get_label() == "best: 0.900 at step 30"
    assert rate.get_xlabel() == "Epoch (20 steps each)"


def test_scores_are_stacked_by_reference_standard():
    label, score = np.asarray([0, 0, 1, 1]), np.asarray([0.01, 0.52, 0.53, 1.0])
    predictions = Predictions("abcd", "abcd", label, np.stack([1 - score, score], 1), NAMES["binary"], "binary")
    axes = plots.scores(charts.chart_data(predictions, 0.4).explorer).axes[0]
    negative, positive = ([bar for bar in bars if bar.get_height()] for bars in axes.containers)
    assert [(round(bar.get_x() + 0.5 * bar.get_width(), 3), bar.get_y()) for bar in negative] == [
        (0.025, 0),
        (0.525, 0),
    ]
    assert [(round(bar.get_x() + 0.5 * bar.get_width(), 3), bar.get_y()) for bar in positive] == [
        (0.525, 1),
        (0.975, 0),
    ]
    assert axes.lines[0].get_xdata()[0] == 0.4


def test_the_forest_plot_has_a_row_a_group_and_a_line_of_all_studies():
    full = full_evaluations.binary()
    evaluation = load(full.result, full.context)[0]
    figure = forest.plot(evaluation)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[:4] == ["331", "All studies", "", "By category"]
    assert texts[-3:] == ["91", "45 to 72", "n"]
    (panel,) = (axes for axes in figure.axes if axes.get_title() == "Sensitivity")
    overall = evaluation.metrics["sensitivity"]
    assert panel.lines[0].get_xdata() == [overall.value, overall.value]
    np.testing.assert_allclose(
        panel.patches[0].get_extents().transformed(panel.transData.inverted()).intervalx, overall.interval
    )
    drawn = [tuple(line.get_xdata()) for line in panel.lines[1:]]
    expected = [
        overall,
        *(g.metrics["sensitivity"] for g in evaluation.subgroups[0].groups if "sensitivity" in g.metrics),
    ]
    assert drawn[::2] == [metric.interval for metric in expected]
    assert drawn[1::2] == [(metric.value,) for metric in expected]
    rows = [line.get_ydata()[0] for line in panel.lines[2::2]]
    assert [texts[2 * row + 1] for row in rows] == ["All studies", "CT-1", "CT-2", "CT-3"]


def test_learning_curves_without_a_log(tmp_path):
    assert _ink(plots.to_png(plots.learning_curves(charts.learning(read_log(tmp_path)), None))) > 0.005
