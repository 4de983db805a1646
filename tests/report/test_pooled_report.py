"""Page, model card and checklists of a cross-validation: each study by the network of its fold, at its threshold."""

import json
import re

import pytest

from covidscan.report import charts, checklist, console, html
from tests.support import full_evaluations
from tests.support.loaded import load
from tests.support.pooled_evaluations import POINT, counted, pooled, pooled_context
from tests.support.reported import context, result

FULL = {name: getattr(full_evaluations, name)() for name in ("binary", "severity", "classes")}


def _data(page):
    return json.loads(re.search(r'id="report-data">(.*?)</script>', page, re.DOTALL)[1])


def _rendered(evaluation, **changes):
    result, about, predictions, _, history = evaluation
    data = charts.chart_data(predictions, result["threshold"], history)
    return html.render_html(*load(result, {**about, **changes}), data, {}, {})


@pytest.mark.parametrize("name", ["binary", "severity"])
def test_a_cross_validation_has_curves_and_a_confusion_matrix_and_no_slider(name):
    page = _rendered(pooled(FULL[name]))
    for plot in ("roc", "precision-recall", "decision", "scores"):
        assert f'id="{plot}"' in page
    assert FULL[name].predictions.study_id == pooled(FULL[name]).predictions.study_id
    table = page.split("each by its own fold’s threshold.</caption>")[1].split("</table>")[0]
    assert re.findall(r"<td[^>]*>(\d+)</td>", table) == [str(number) for row in counted(FULL[name]) for number in row]
    assert "threshold-slider" not in page.split('id="report-data"')[0]
    assert "The dot is the threshold" not in page
    assert "right of the line" not in page
    assert "(frozen)" not in page
    assert _data(page)["explorer"]["threshold"] is None
    assert "Each fold has its own threshold (0.31, 0.44, 0.58, 0.62, 0.73)." in page


@pytest.mark.parametrize("name", FULL)
def test_a_cross_validation_is_described_as_neither_an_ensemble_nor_one_network(name):
    page = _rendered(pooled(FULL[name]))
    for words in (
        "Out-of-fold predictions, ",
        "mosmed/128x128x32, fold 3<small>",
        "5 networks, each study predicted by the one that never saw it · each at its own checkpoint (best)",
        "Each fold&#39;s own test studies were evaluated once.</strong>",
        "Each was predicted by the one network of the cross-validation that never saw it.",
        "each network’s own temperature scaling chosen on the validation studies (mean temperature 1.375)",
        "Of the first of the 5 networks.",
        "Split of the first fold (SHA-256)",
        "Parameters of each network",
    ):
        assert words in page
    assert not re.search("ensemble of|averaged|This evaluation is included|at step|makes the next figures", page)


def test_the_mean_over_the_folds_comes_before_the_metrics_of_all_folds_pooled():
    evaluation = pooled(FULL["binary"])
    evaluation = evaluation._replace(result=evaluation.result | {"repeats": result()["repeats"]})
    loaded = load(evaluation.result, evaluation.context)
    order = {
        _rendered(evaluation): ('id="repeats"', 'id="metrics"'),
        html.render_model_card(*loaded): ("## Folds", "## Metrics of all folds pooled"),
        console.evaluation_text(loaded[0]): ("2 folds ", "all folds pooled"),
    }
    for text, (first, second) in order.items():
        assert 0 < text.index(first) < text.index(second)


def test_baselines_of_folds_stand_beside_the_means_over_the_folds():
    evaluation = pooled(FULL["binary"])
    repeats = result()["repeats"]
    repeats = {**repeats, "figures": {"auroc": {**repeats["figures"]["auroc"], "mean": 0.123}}}
    page = _rendered(evaluation._replace(result=evaluation.result | {"repeats": repeats}))
    (own,) = re.findall(r'<tr class="self"><th scope="row">This model(.*?)</tr>', page, re.DOTALL)
    assert own.startswith("<small>evaluated in this report. Mean over the folds.</small></th>")
    assert "0.123" in own
    assert f"{evaluation.result['figures']['auroc']['value']:.3f}" not in own


def test_grades_of_folds_stand_beside_baselines_by_disease_as_these_are():
    evaluation = pooled(FULL["severity"])
    repeats = result()["repeats"]
    repeats = {**repeats, "figures": {"macro_auroc": {**repeats["figures"]["auroc"], "mean": 0.123}}}
    baseline = {"name": "slices", "what": "…", "kind": "features", "figures": {"auroc": {"value": 0.6}}}
    changes = {"repeats": repeats, "baselines": [baseline]}  # as severity's, of disease
    page = _rendered(evaluation._replace(result=evaluation.result | changes))
    (own,) = re.findall(r'<tr class="self"><th scope="row">This model(.*?)</tr>', page, re.DOTALL)
    assert own.startswith("<small>evaluated in this report</small></th>")
    assert f"{evaluation.result['disease']['figures']['auroc']['value']:.3f}" in own
    assert "0.123" not in own


def test_an_ensemble_is_described_in_the_report():
    page = _rendered(FULL["binary"], arrangement="ensemble", num_members=5)
    assert "ensemble of 5 networks · each at its own checkpoint (best)" in page
    assert "ensemble of" not in _rendered(FULL["binary"])


def test_verifications_and_other_data_sets_are_marked_among_the_test_accesses():
    access = FULL["binary"].context["test_openings"][0]
    lines = [access, {**access, "verify": True}, {**access, "dataset": "ct_folder/64x64x32"}]
    page = _rendered(FULL["binary"], test_openings=lines)
    assert "mosmed/128x128x32 were evaluated once.</strong>" in page
    assert "mosmed/128x128x32 (verification)<small>" in page
    assert "1 evaluation of other data sets" in page
    assert "makes the next figures better" not in page
    assert "This evaluation is included" not in _rendered(FULL["binary"], part="validation")


def test_an_external_report_shows_the_split_that_trained():
    assert f"Split of the training (SHA-256)</dt><dd>{'7b' * 32}" in _rendered(FULL["binary"], external=True)
    assert "7b" * 32 not in _rendered(FULL["binary"])


def test_the_model_card_states_the_arrangement():
    card = html.render_model_card(*load(result(threshold=None, operating_point=POINT), pooled_context(context())))
    assert "5 such networks, one a fold, and each study was predicted by the one that never saw it\n" in card
    assert "A study is classified by its own fold's threshold; mean temperature 1.375." in card
    assert "Each fold's own test studies were evaluated once. Dates: 2026-01-31" in card
    assert "Each network's temperature was chosen on its own fold's validation studies;" in card
    assert "- Split of the first fold 5a" in card
    assert not re.search("likeliest|together|averaged|step 1,200|more than once|None", card)


def _item(number, evaluated=None, *, of="CLAIM 2024", **changes):
    evaluated = evaluated or result(threshold=None, operating_point=POINT)
    text = checklist.render_checklist(*load(evaluated, pooled_context(context(), **changes)))
    part = next(part for part in text.split("\n## ") if part.startswith(of))
    (cell,) = re.findall(rf"^\| {number} \| .*? \| (.*?) \| [^|]* \|$", part, re.MULTILINE)
    return cell


def test_the_checklist_states_the_arrangement():
    assert "No ensemble: 5 networks, one a fold" in _item("27")
    internal = _item("32")
    assert "331 studies, each predicted by the one of 5 networks that neither trained nor chose on it" in internal
    assert "Each fold's own test studies were evaluated once." in internal
    assert "each fold tests once" in _item("19")
    assert "decided by each fold's own threshold" in _item("38")
    assert "by each fold's own threshold. The best sum" in _item("15", of="TRIPOD+AI")
    assert "mean temperature 1.375; decided by each fold's own threshold." in _item("12g", of="TRIPOD+AI")
    assert "each network's own chosen on the validation studies of its fold" in _item("12f", of="TRIPOD+AI")
    assert _item("21", of="TRIPOD+AI") == (
        "Each of 331 studies (76 negative, 255 positive) is predicted by one of 5 networks, is used to choose "
        "threshold and temperature of another one and to train the other 3."
    )
    assert "22.9% negative, 77.1% positive" in _item("20c", of="TRIPOD+AI")  # 254 of 1110
    assert "test studies were evaluated" not in _item("40")
    whole = checklist.render_checklist(*load(result(threshold=None, operating_point=POINT), pooled_context(context())))
    assert not re.search(r"likeliest|averaged|threshold None|fold 0|step 1,200|[^|] {2}[^|]|\.\.|[{}]", whole)


def test_the_checklist_of_classes_takes_the_likeliest_label():
    figures = {"accuracy": {"value": 0.6, "interval": [0.5, 0.7], "method": "Wilson", "baseline": 0.5}}
    evaluated = result(task="classes", threshold=None, operating_point=POINT, decision_curve=None, figures=figures)
    assert "the likeliest label" in _item("15", evaluated, of="TRIPOD+AI")
    assert "is used to choose temperature of another one" in _item("21", evaluated, of="TRIPOD+AI")
