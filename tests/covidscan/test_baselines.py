"""Baselines, and shortcuts that are planted and must be seen."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from covidscan.baselines import compare_with_baselines
from covidscan.study_features import StudyFeatures, study_features
from tests.tfds_mosmed.chest import SPACING_MM, chest
from tfds_mosmed.preprocess import Grid, prepare
from tfds_mosmed.scans import Scan

BINARY = ("negative", "positive")
TRAIN, JUDGED = 70, 130


@pytest.fixture(scope="module")
def records():
    """Prepared studies of both labels in turn; the lungs of the positive ones are hazy behind, nothing else differs."""
    rng, made = np.random.default_rng(0), []
    for number in range(TRAIN + JUDGED):
        hu = chest(number)[:, ::2, ::2].astype(np.float64)
        body = hu > -300
        hu[body] += rng.normal(0, 12)
        if number % 2:
            haze = np.zeros(hu.shape, bool)
            haze[4:22, 24:32, 10:38] = True
            hu[haze & (hu > -900) & (hu < -700)] += rng.uniform(60, 400)
        spacing = (SPACING_MM[0], *(2 * step * rng.uniform(0.9, 1.1) for step in SPACING_MM[1:]))
        prepared = prepare(Scan(hu.astype(np.int16), spacing, np.eye(4), ()), Grid.parse("32x32x16_full"))
        made.append(
            {
                "volume": prepared.volume,
                "spacing_mm": prepared.spacing_mm,
                "source_shape": (int(rng.integers(31, 60)), 512, 512),
                "source_spacing_mm": spacing,
            }
        )
    return made


LABEL = np.arange(TRAIN + JUDGED) % 2


def compare(records, task="binary", names=BINARY, label=LABEL, train=slice(0, TRAIN), judged=slice(TRAIN, None)):
    columns = zip(*map(study_features, records), strict=True)
    features = [np.stack(column) for column in columns]
    parts = [StudyFeatures(*(column[part] for column in features)) for part in (train, judged)]
    baselines, shortcuts = compare_with_baselines(task, names, parts[0], label[train], parts[1], label[judged])
    return {baseline["name"]: baseline for baseline in baselines}, shortcuts


def changed(records, change):
    """The records with those of positive studies changed."""
    return [record | change(number, record) if number % 2 else record for number, record in enumerate(records)]


def with_marker(number, record):
    volume = record["volume"].copy()
    volume[2, 0, 0] = 1500
    return {"volume": volume}


def auroc(baseline):
    return baseline["figures"]["auroc"]["value"]


@pytest.fixture(scope="module")
def clean(records):
    return compare(records)


def test_studies_that_differ_in_their_lungs_alone_are_no_shortcut(clean):
    baselines, shortcuts = clean
    assert shortcuts == []
    for name in ("Slices and spacing", "Lungs masked out"):
        assert 0.3 < auroc(baselines[name]) < 0.65
        assert "suspected" not in baselines[name]["what"]
    for name in ("Mean lung density", "Dense share"):
        assert auroc(baselines[name]) > 0.9
        assert "shortcut" not in baselines[name]["what"]


def test_a_planted_marker_voxel_is_seen_by_the_probe_alone(records, clean):
    baselines, shortcuts = compare(changed(records, with_marker))
    assert auroc(baselines["Lungs masked out"]) > 0.99
    assert len(shortcuts) == 1
    assert shortcuts[0].startswith("Lungs masked out: ")
    assert "positive studies" in shortcuts[0]
    assert "a shortcut is suspected" in baselines["Lungs masked out"]["what"]
    for name in ("Slices and spacing", "Mean lung density", "Dense share"):
        assert baselines[name] == clean[0][name]


def test_a_marker_on_half_of_the_positive_studies_is_seen(records):
    _, shortcuts = compare(changed(records, lambda number, record: with_marker(0, record) if number % 4 == 1 else {}))
    assert [sentence.partition(":")[0] for sentence in shortcuts] == ["Lungs masked out"]


@pytest.mark.parametrize("slices", [lambda number: 60 + number % 5, lambda number: (28, 63)[number // 2 % 2]])
def test_slice_counts_that_go_with_the_label_are_seen(records, slices):
    """More slices in positive studies, or both fewer and more."""
    planted = changed(records, lambda number, record: {"source_shape": (slices(number), 512, 512)})
    baselines, shortcuts = compare(planted)
    assert auroc(baselines["Slices and spacing"]) > 0.9
    assert [sentence.partition(":")[0] for sentence in shortcuts] == ["Slices and spacing"]


def test_spacing_that_goes_with_the_label_is_seen(records):
    planted = changed(records, lambda number, record: {"source_spacing_mm": (8.0, 0.9, 0.9 + 1e-3 * (number % 7))})
    assert [sentence.partition(":")[0] for sentence in compare(planted)[1]] == ["Slices and spacing"]


def test_few_studies_are_not_enough_to_say_that_there_is_no_shortcut(records):
    baselines, shortcuts = compare(records, judged=slice(TRAIN, TRAIN + 16))
    assert shortcuts == []
    for name in ("Slices and spacing", "Lungs masked out"):
        assert baselines[name]["what"].endswith("cannot be told with this few studies.")


def test_many_studies_that_cannot_be_told_apart_are_said_to_be_so(records):
    alike = [record | {"source_shape": (40, 512, 512), "source_spacing_mm": (8.0, 0.7, 0.7)} for record in records]
    baselines, _ = compare(alike)
    assert auroc(baselines["Slices and spacing"]) == 0.5
    assert baselines["Slices and spacing"]["what"].endswith("no sign of a shortcut.")


def test_constant_answers_judged_by_hand(records):
    label = np.where(np.arange(TRAIN + JUDGED) % 4, 1, 0)  # three of four positive
    baselines, _ = compare(records, label=label)
    judged = label[TRAIN:]
    always, prevalence = baselines["Always positive"], baselines["Prevalence"]
    assert always["kind"] == prevalence["kind"] == "constant"
    for baseline in (always, prevalence):
        assert baseline["figures"]["auroc"] == {"value": 0.5, "interval": None}
        assert baseline["figures"]["accuracy"]["value"] == judged.mean()
        assert baseline["figures"]["sensitivity"]["value"] == 1
        assert baseline["figures"]["specificity"]["value"] == 0
    wilson = stats.binomtest(int(judged.sum()), len(judged)).proportion_ci(method="wilson")
    assert always["figures"]["accuracy"]["interval"] == pytest.approx([wilson.low, wilson.high])


def test_the_commoner_label_of_the_training_studies_is_what_prevalence_answers(records):
    label = np.concatenate([np.where(np.arange(TRAIN) % 4, 0, 1), np.ones(JUDGED, int) * (np.arange(JUDGED) % 5 > 0)])
    baselines, _ = compare(records, label=label)
    assert baselines["Prevalence"]["figures"]["accuracy"]["value"] == pytest.approx(1 / 5)


def test_judged_labels_are_for_judging_only(records):
    """With the judged labels turned round every AUROC turns round: no baseline has learned from them."""
    turned = np.concatenate([LABEL[:TRAIN], 1 - LABEL[TRAIN:]])
    for name, baseline in compare(records, label=turned)[0].items():
        assert auroc(baseline) == pytest.approx(1 - auroc(compare(records)[0][name]))


def test_density_is_ranked_as_it_is(records, clean):
    """Logistic regression on one number ranks by that number."""
    hu = [study_features(record).mean_lung_hu for record in records[TRAIN:]]
    assert auroc(clean[0]["Mean lung density"]) == pytest.approx(roc_auc_score(LABEL[TRAIN:], hu))


def test_one_label_alone_and_one_study_of_a_label_are_not_judged(records):
    baselines, shortcuts = compare(records, label=np.concatenate([LABEL[:TRAIN], np.ones(JUDGED, int)]))
    assert shortcuts == []
    assert auroc(baselines["Lungs masked out"]) is None
    assert baselines["Lungs masked out"]["figures"]["sensitivity"]["value"] is not None
    lonely = np.concatenate([np.eye(1, TRAIN, dtype=int)[0], LABEL[TRAIN:]])
    baselines, shortcuts = compare(records, label=lonely)
    assert shortcuts == []
    assert baselines["Lungs masked out"]["figures"] == {"auroc": {"value": None, "interval": None}}


def test_severity_asks_for_disease_and_classes_for_each_class(records):
    planted = changed(records, with_marker)
    grades = LABEL * (1 + np.arange(len(LABEL)) // 2 % 2)
    baselines, shortcuts = compare(planted, "severity", ("CT-0", "CT-1", "CT-2"), grades)
    assert auroc(baselines["Lungs masked out"]) > 0.99
    assert baselines["Lungs masked out"]["figures"].keys() == {"auroc"}
    assert len(shortcuts) == 1
    assert "studies graver than CT-0" in shortcuts[0]
    names = ("cap", "covid", "normal")
    baselines, shortcuts = compare(planted, "classes", names, np.array([0, 1, 2, 1])[np.arange(len(LABEL)) % 4])
    assert any("studies of covid" in sentence for sentence in shortcuts)
    assert auroc(baselines["Lungs masked out"]) > 0.7
    assert baselines["Always covid"]["figures"]["auroc"] == {"value": 0.5, "interval": None}
