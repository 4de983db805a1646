"""Operating points: chosen on the validation studies, once for each checkpoint."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import optimize, special
from sklearn.metrics import recall_score

from covidscan.config import Config
from covidscan.metrics.predictions import Predictions, with_sides
from covidscan.runs import operating_points
from tests.support import evaluations
from tfds_mosmed.errors import UserError

OLDEST, OLDER = operating_points.Rules(fewest=0, offsets=False), operating_points.Rules(offsets=False)


def _overconfident(factor=3.0, studies=400):
    """Predictions whose log-odds are `factor` times too large."""
    generator = np.random.default_rng(0)
    log_odds = generator.normal(0.3, 1.5, studies)
    label = (generator.uniform(size=studies) < 1 / (1 + np.exp(-log_odds))).astype(int)
    score = 1 / (1 + np.exp(-factor * log_odds))
    order = np.argsort(-label, kind="stable")
    return evaluations.binary(score[order][: label.sum()], score[order][label.sum() :])


def test_the_temperature_undoes_overconfidence_and_leaves_the_ranking():
    validation = _overconfident(3.0)
    chosen = operating_points.choose(Config(), validation, 12)
    assert chosen.temperature == pytest.approx(3.0, rel=0.2)
    calibrated = validation.calibrated(chosen)
    np.testing.assert_array_equal(calibrated.uncalibrated, validation.uncalibrated)
    assert np.all(np.argsort(calibrated.probability[:, 1]) == np.argsort(validation.probability[:, 1]))
    assert (chosen.step, chosen.num_studies) == (12, 400)


def test_the_threshold_applies_to_calibrated_probabilities_and_keeps_the_criterion():
    validation = _overconfident()
    chosen = operating_points.choose(Config(operating_point="sensitivity", target_sensitivity=0.9), validation, 1)
    called = validation.calibrated(chosen).probability[:, 1] >= chosen.threshold
    found = recall_score(validation.label, called)
    assert 0.9 <= found < 0.9 + 2 / validation.label.sum()
    assert "0.9" in chosen.description
    dear = operating_points.choose(Config(operating_point="cost", cost_ratio=20), validation, 1)
    cheap = operating_points.choose(Config(operating_point="cost", cost_ratio=0.05), validation, 1)
    assert dear.threshold < cheap.threshold


def test_views_that_exchange_left_and_right_labels_are_told(caplog):
    assert with_sides(["Left effusion", "effusion_right", "bright", "cleft", "none"]) == "Left effusion, effusion_right"
    generator = np.random.default_rng(0)
    label, probability = generator.integers(0, 2, (40, 2)), generator.random((40, 2))
    for names, told in ((("bright", "dark"), False), (("left", "dark"), True)):
        sets = Predictions([str(k) for k in range(40)], [""] * 40, label, probability, names, "multilabel")
        operating_points.choose(Config(task="multilabel"), sets, 1)
        assert "mirror images" not in caplog.text
        operating_points.choose(Config(task="multilabel"), sets, 1, tta="full")
        assert ("averages over mirror images, which exchange left: leave it out" in caplog.text) == told


def test_each_grade_has_a_frozen_threshold(tmp_path):
    generator = np.random.default_rng(0)
    probability = generator.dirichlet([2, 2, 1, 1], 200)
    label = np.asarray([generator.choice(4, p=row) for row in probability])
    names = ("CT-0", "CT-1", "CT-2", "CT-3+4")
    grades = Predictions([str(k) for k in range(200)], [names[k] for k in label], label, probability, names, "severity")
    chosen = operating_points.choose(Config(task="severity"), grades, 1)
    assert len({*chosen.grade_thresholds}) == 3
    assert chosen.grade_thresholds[0] == chosen.threshold
    calibrated = grades.calibrated(chosen).probability
    for k, threshold in enumerate(chosen.grade_thresholds):
        score, yes = calibrated[:, k + 1 :].sum(1), label > k
        best = max(np.mean(score[yes] >= at) - np.mean(score[~yes] >= at) for at in score)
        assert np.mean(score[yes] >= threshold) - np.mean(score[~yes] >= threshold) == pytest.approx(best)
    operating_points.freeze(tmp_path, chosen)
    assert operating_points.read(tmp_path, 1) == chosen
    older = operating_points.choose(Config(task="severity"), grades, 1, OLDER)
    assert older.grade_thresholds == []
    ensemble = operating_points.mean_grade_thresholds([chosen, older])
    assert ensemble[2] == pytest.approx((chosen.grade_thresholds[2] + older.threshold) / 2)
    assert operating_points.mean_grade_thresholds([older]) == []


def test_the_most_accurate_threshold_is_one_half_of_a_calibrated_probability():
    config = Config(operating_point="accuracy")
    chosen = operating_points.choose(config, _overconfident(), 1)
    assert chosen.threshold == 0.5
    assert chosen.prevalence == pytest.approx(np.mean(_overconfident().label))
    assert operating_points.choose(config, _overconfident(), 1, OLDER).threshold != 0.5  # a temperature alone
    few = operating_points.choose(config, _overconfident(3.0, 19), 1)  # not recalibrated
    assert few.threshold != 0.5
    assert few.prevalence is None


def test_validation_studies_of_one_label_give_the_default():
    one = evaluations.binary((0.2, 0.7), ())
    chosen = operating_points.choose(Config(), one, 1)
    assert (chosen.criterion, chosen.threshold, chosen.temperature) == ("default", 0.5, 1.0)


def test_classes_have_a_temperature_but_no_threshold():
    generator = np.random.default_rng(0)
    probability = generator.dirichlet([1, 1, 1], 60)
    label = np.asarray([generator.choice(3, p=row) for row in probability])
    names = ("a", "b", "c")
    predictions = Predictions(
        [str(k) for k in range(60)], [names[k] for k in label], label, probability, names, "classes"
    )
    chosen = operating_points.choose(Config(task="classes"), predictions, 1)
    assert chosen.threshold is None
    assert 0.5 < chosen.temperature < 2


def test_a_frozen_operating_point_is_not_changed(tmp_path):
    first = operating_points.choose(Config(), _overconfident(), 12)
    operating_points.freeze(tmp_path, first)
    operating_points.freeze(tmp_path, dataclasses.replace(first, threshold=0.01))
    operating_points.freeze(tmp_path, dataclasses.replace(first, step=24, threshold=0.7))
    assert operating_points.read(tmp_path, 12) == first
    assert operating_points.read(tmp_path, 24).threshold == 0.7
    assert operating_points.read(tmp_path, 36) is None


def test_a_point_of_another_network_is_chosen_again_and_one_of_an_older_version_is_not(tmp_path, caplog):
    first = operating_points.choose(Config(), _overconfident(), 12)
    operating_points.freeze(tmp_path, first, "0" * 8)
    assert operating_points.read(tmp_path, 12, parameters="0" * 8) == operating_points.read(tmp_path, 12) == first
    assert caplog.text == ""
    assert operating_points.read(tmp_path, 12, parameters="1" * 8) is None
    assert "what was chosen for step 12 is of another network than is there now" in caplog.text
    again = dataclasses.replace(first, threshold=0.01)
    operating_points.freeze(tmp_path, again, "1" * 8)
    assert operating_points.read(tmp_path, 12, parameters="1" * 8) == again
    older = dataclasses.replace(first, step=24)
    operating_points.freeze(tmp_path, older)
    operating_points.freeze(tmp_path, dataclasses.replace(older, threshold=0.01), "1" * 8)
    assert operating_points.read(tmp_path, 24, parameters="1" * 8) == older


@pytest.mark.parametrize(
    ("field", "value"), [("threshold", 0.31), ("temperature", 2), ("num_studies", 99), ("step", 24)]
)
def test_an_edited_file_is_noticed_and_one_of_earlier_versions_read(field, value, tmp_path):
    first = operating_points.choose(Config(), _overconfident(), 12)
    operating_points.freeze(tmp_path, first)
    path = tmp_path / operating_points.FILE
    content = json.loads(path.read_text())
    path.write_text(json.dumps({"12": content["12"] | {field: value}}))
    with pytest.raises(
        UserError,
        match=r"choices.json is not as .* \(what was chosen for step 12 was edited, or is of another run\): remove",
    ):
        operating_points.read(tmp_path, 12)
    del content["12"]["sha256"]
    path.write_text(json.dumps(content))
    assert operating_points.read(tmp_path, 12) == first
    assert operating_points.Rules.of(first) == operating_points.Rules()
    del content["12"]["offsets"]
    path.write_text(json.dumps(content))
    older = operating_points.read(tmp_path, 12)
    assert older == dataclasses.replace(first, offsets=[])
    assert operating_points.Rules.of(older) == OLDER


@pytest.mark.parametrize("text", ["", "[]", json.dumps({"12": {"threshold": 0.3}})])
def test_a_damaged_file_is_named(text, tmp_path):
    (tmp_path / operating_points.FILE).write_text(text)
    with pytest.raises(UserError, match=r"choices.json is not as training wrote it"):
        operating_points.read(tmp_path, 12)


@pytest.mark.parametrize(
    ("validation", "reason"),
    [
        (_overconfident(3.0, 19), "19 validation studies are fewer than 20"),
        (evaluations.binary(np.linspace(0.1, 0.4, 15), np.linspace(0.6, 0.9, 15)), "at the bound of its search"),
    ],
)
def test_a_temperature_of_few_studies_or_at_a_bound_is_not_applied(validation, reason):
    without = operating_points.Rules(smoothing=False)
    rules = (operating_points.Rules(), without) if "fewer" in reason else (without,)
    for chosen in (operating_points.choose(Config(), validation, 1, each) for each in rules):
        assert chosen.temperature == 1
        assert reason in chosen.description
        assert "not recalibrated" in chosen.description
        assert chosen.offsets == [0, 0]
    older = operating_points.choose(Config(), validation, 1, OLDER)
    assert (older.temperature, older.offsets) == (1, [])
    assert f"No temperature was applied: {reason}".split(":")[0] in older.description
    before = operating_points.choose(Config(), validation, 1, OLDEST)
    assert before.temperature != 1
    assert "No temperature" not in before.description


def test_validation_studies_without_an_error_still_restore_the_prevalence():
    """Training drew both labels equally often; 22 negative and 76 positive studies, as of MosMedData's validation."""
    generator, intercepts, before = np.random.default_rng(0), [], []
    label = np.repeat([0, 1], [22, 76])
    spread = 3.64  # log-odds are normal with this deviation and half its square on either side: AUROC 0.995
    for _ in range(150):
        score = special.expit(generator.normal((label - 0.5) * spread**2, spread))
        validation = evaluations.binary(score[label == 1], score[label == 0])
        old = operating_points.choose(Config(), validation, 1, operating_points.Rules(smoothing=False))
        if "not recalibrated" not in old.description:
            continue
        point = operating_points.choose(Config(), validation, 1)
        assert "smoothed" in point.description
        assert point.prevalence == pytest.approx(76 / 98)
        clinic = (generator.random(5000) < 76 / 98).astype(int)
        seen = special.expit(generator.normal((clinic - 0.5) * spread**2, spread))
        others = evaluations.binary(seen[clinic == 1], seen[clinic == 0])
        for found, each in ((intercepts, point), (before, old)):
            found.append(calibration_intercept(clinic, others.calibrated(each).probability[:, 1]))
    assert len(before) > 3
    assert abs(np.mean(before)) > 1
    assert abs(np.mean(intercepts)) < 0.3


def calibration_intercept(label, probability):
    """Return by how much log-odds have to rise so that their mean probability is the share of positives."""
    logits = special.logit(np.clip(probability, 1e-12, 1 - 1e-12))
    return optimize.brentq(lambda added: special.expit(logits + added).mean() - label.mean(), -10, 10)


def test_the_threshold_of_folds_is_chosen_on_all_studies_out_of_fold(tmp_path):
    rng = np.random.default_rng(0)
    parts = [evaluations.binary(rng.beta(4, 2, 40), rng.beta(2, 4, 12)) for _ in range(4)]
    parts = [
        dataclasses.replace(part, study_id=[f"{fold}/{name}" for name in part.study_id])
        for fold, part in enumerate(parts)
    ]
    points = [operating_points.choose(Config(), part, 7) for part in parts]
    pooled = Predictions.pool([part.calibrated(point) for part, point in zip(parts, points, strict=True)])
    chosen = operating_points.choose_for_ensemble(Config(), pooled, points)
    assert chosen.num_studies == 208
    score, yes = pooled.probability[:, 1], pooled.label == 1
    youden = [np.mean(score[yes] >= at) - np.mean(score[~yes] >= at) for at in (*score, chosen.threshold)]
    assert youden[-1] == pytest.approx(max(youden))
    assert "each predicted by the network of its fold, which never saw it." in chosen.description
    assert operating_points.with_out_of_fold(tmp_path, points, "networks") == points
    operating_points.freeze(tmp_path, chosen, "networks")
    own = operating_points.with_out_of_fold(tmp_path, points, "networks")
    assert operating_points.mean_threshold(own) == chosen.threshold
    assert [one.temperature for one in own] == [point.temperature for point in points]
    assert operating_points.with_out_of_fold(tmp_path, points, "others") == points  # a fold was trained again
    older = [dataclasses.replace(points[0], offsets=[]), *points[1:]]
    assert operating_points.choose_for_ensemble(Config(), pooled, older) is None
    accurate = operating_points.choose_for_ensemble(Config(operating_point="accuracy"), pooled, points)
    assert accurate.threshold == 0.5
