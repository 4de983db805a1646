"""Baselines, and planted shortcuts that must be found."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from covidscan.data.image_features import StudyFeatures, study_features
from covidscan.evaluation.baselines import compare_with_baselines
from covidscan.metrics.intervals import confusion_intervals
from covidscan.metrics.results import Metric
from tests.support.chest import chest
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.scan import Scan

BINARY = ("negative", "positive")
TRAIN, EVALUATED = 60, 90
LABEL = np.arange(TRAIN + EVALUATED) % 2
CHEST = chest()
BEHIND = (np.arange(CHEST.shape[1]) >= 38)[:, None]


def patient(number):
    """A chest at a random position, with its own tissue and ribs; odd numbers have hazy posterior lungs."""
    rng = np.random.default_rng(number)
    hu = CHEST + rng.normal(0, 15, CHEST.shape)
    hu[CHEST > -200] += rng.normal(0, 25)
    hu += np.where(CHEST > -200, np.kron(rng.normal(0, 40, (7, 10, 12)), np.ones((4, 8, 8))), 0)
    for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):
        row, column = int((150 + 90 * np.sin(angle)) / 4), int((192 + 130 * np.cos(angle)) / 4)
        hu[number % 3 :: 3, row : row + 2, column : column + 2] = rng.uniform(300, 900)
    if number % 2:
        hu += np.where((CHEST > -920) & (CHEST < -700) & BEHIND, rng.uniform(80, 400), 0)
    hu = np.roll(hu, rng.integers(-3, 4, 2), (1, 2))
    return Scan(hu.astype(np.int16), (8.0, *rng.uniform(3.7, 4.3, 2)), np.eye(4), ())


@pytest.fixture(scope="module")
def records():
    """Prepared patients; how they were scanned is independent of their lungs."""
    rng = np.random.default_rng(0)
    scans = [patient(number) for number in range(TRAIN + EVALUATED)]
    return [
        {
            "volume": prepared.volume,
            "spacing_mm": prepared.spacing_mm,
            "source_shape": (int(rng.integers(31, 60)), 512, 512),
            "source_spacing_mm": scan.spacing_mm,
        }
        for scan in scans
        for prepared in [prepare(scan, Grid.parse("48x48x16"))]
    ]


@pytest.fixture(scope="module")
def compare(records):
    """Baselines by name, and shortcuts, of the records with those of positive studies changed."""
    plain = [study_features(record) for record in records]

    def run(change=None, task="binary", names=BINARY, label=LABEL, evaluated=slice(TRAIN, None)):
        features = [
            study_features(record | change(number, record)) if change and number % 2 else features
            for number, (record, features) in enumerate(zip(records, plain, strict=True))
        ]
        columns = [np.stack(column) for column in zip(*features, strict=True)]
        train, other = (StudyFeatures(*(c[part] for c in columns)) for part in (slice(0, TRAIN), evaluated))
        baselines, shortcuts = compare_with_baselines(task, names, train, label[:TRAIN], other, label[evaluated])
        return {baseline.name: baseline for baseline in baselines}, shortcuts

    return run


@pytest.fixture(scope="module")
def clean(compare):
    return compare()


def with_marker(number, record):
    volume = record["volume"].copy()
    volume[2, 0, 0] = 1500
    return {"volume": volume}


def auroc(baseline):
    return baseline.metrics["auroc"].value


def test_studies_that_differ_only_in_their_lungs_are_no_shortcut(clean):
    baselines, shortcuts = clean
    assert shortcuts == []
    for name in ("Slices and spacing", "Lungs masked out"):
        assert 0.3 < auroc(baselines[name]) < 0.65
        assert "suspected" not in baselines[name].explanation
    for name in ("Mean lung density", "Dense share"):
        assert auroc(baselines[name]) > 0.9
        assert "shortcut" not in baselines[name].explanation


def test_a_planted_marker_voxel_is_found_only_by_the_probe(compare, clean):
    baselines, shortcuts = compare(with_marker)
    assert auroc(baselines["Lungs masked out"]) > 0.99
    assert len(shortcuts) == 1
    assert shortcuts[0].startswith("Lungs masked out: ")
    assert "positive studies" in shortcuts[0]
    assert "a shortcut is suspected" in baselines["Lungs masked out"].explanation
    for name in ("Slices and spacing", "Mean lung density", "Dense share"):
        assert baselines[name] == clean[0][name]


def test_a_marker_on_half_of_the_positive_studies_is_found(compare):
    _, shortcuts = compare(lambda number, record: with_marker(0, record) if number % 4 == 1 else {})
    assert [sentence.partition(":")[0] for sentence in shortcuts] == ["Lungs masked out"]


@pytest.mark.parametrize("slices", [lambda number: 60 + number % 5, lambda number: (28, 63)[number // 2 % 2]])
def test_slice_counts_that_correlate_with_the_label_are_found(compare, slices):
    """More slices in positive studies, or both fewer and more."""
    baselines, shortcuts = compare(lambda number, record: {"source_shape": (slices(number), 512, 512)})
    assert auroc(baselines["Slices and spacing"]) > 0.9
    assert [sentence.partition(":")[0] for sentence in shortcuts] == ["Slices and spacing"]


def test_spacing_that_correlates_with_the_label_is_found(compare):
    _, shortcuts = compare(lambda number, record: {"source_spacing_mm": (8.0, 3.7, 4.0 + 1e-3 * (number % 7))})
    assert [sentence.partition(":")[0] for sentence in shortcuts] == ["Slices and spacing"]


def test_few_studies_are_not_enough_to_say_that_there_is_no_shortcut(compare):
    baselines, shortcuts = compare(evaluated=slice(TRAIN, TRAIN + 16))
    assert shortcuts == []
    for name in ("Slices and spacing", "Lungs masked out"):
        assert baselines[name].explanation.endswith("cannot be told with this few studies.")


def test_many_studies_suffice_to_say_that_there_is_no_shortcut():
    known = np.random.default_rng(0).normal(size=(500, 4)), np.arange(500) % 2
    features = StudyFeatures(known[0], known[0][:, 0], known[0][:, 0], np.full((500, 3), np.nan, np.float32))
    baselines, _ = compare_with_baselines("binary", BINARY, features, known[1], features, known[1])
    what = {baseline.name: baseline.explanation for baseline in baselines}
    assert what["Slices and spacing"].endswith("no sign of a shortcut.")


def test_baselines_allow_for_several_studies_of_a_patient():
    patient = np.tile(np.arange(60), 8)
    known, label = np.random.default_rng(0).normal(size=(60, 4))[patient], np.arange(480) % 2
    features = StudyFeatures(known, known[:, 0], known[:, 0], np.full((480, 3), np.nan, np.float32))
    arguments = "binary", BINARY, features, label, features, label
    for one, other in zip(
        compare_with_baselines(*arguments)[0], compare_with_baselines(*arguments, patient)[0], strict=True
    ):
        for name, metric in other.metrics.items():
            if metric.interval:
                narrow = one.metrics[name].interval
                assert metric.interval[1] - metric.interval[0] > 1.5 * (narrow[1] - narrow[0]), (one.name, name)


def test_constant_predictions_by_hand(compare):
    label = np.where(np.arange(TRAIN + EVALUATED) % 4, 1, 0)  # three of four positive
    baselines, _ = compare(label=label)
    evaluated = label[TRAIN:]
    always, prevalence = baselines["Always positive"], baselines["Prevalence"]
    assert always.kind == prevalence.kind == "constant"
    for baseline in (always, prevalence):
        assert baseline.metrics["auroc"] == Metric(0.5)
        assert baseline.metrics["accuracy"].value == evaluated.mean()
        assert baseline.metrics["sensitivity"].value == 1
        assert baseline.metrics["specificity"].value == 0
    table = np.bincount(evaluated)  # the interval of the table of metrics: that of each label's share of right ones
    ends = confusion_intervals(np.asarray([[0, table[0]], [0, table[1]]]))["accuracy"][:2]
    assert always.metrics["accuracy"].interval == pytest.approx(ends)


def test_prevalence_predicts_the_commoner_label_of_the_training_studies(compare):
    label = np.concatenate([np.where(np.arange(TRAIN) % 4, 0, 1), (np.arange(EVALUATED) % 5 > 0).astype(int)])
    baselines, _ = compare(label=label)
    assert baselines["Prevalence"].metrics["accuracy"].value == pytest.approx(1 / 5)


def test_baselines_do_not_learn_from_evaluated_labels(compare, clean):
    """With the evaluated labels inverted every AUROC is inverted: no baseline has learned from them."""
    turned = np.concatenate([LABEL[:TRAIN], 1 - LABEL[TRAIN:]])
    for name, baseline in compare(label=turned)[0].items():
        assert auroc(baseline) == pytest.approx(1 - auroc(clean[0][name]))


def test_density_ranks_studies_by_their_density(records, clean):
    """Logistic regression on one number ranks by that number."""
    hu = [study_features(record).mean_lung_hu for record in records[TRAIN:]]
    assert auroc(clean[0]["Mean lung density"]) == pytest.approx(roc_auc_score(LABEL[TRAIN:], hu))


def test_one_label_alone_and_one_study_of_a_label_have_no_auroc(compare):
    baselines, shortcuts = compare(label=np.concatenate([LABEL[:TRAIN], np.ones(EVALUATED, int)]))
    assert shortcuts == []
    assert auroc(baselines["Lungs masked out"]) is None
    assert baselines["Lungs masked out"].metrics["sensitivity"].value is not None
    lonely = np.concatenate([np.eye(1, TRAIN, dtype=int)[0], LABEL[TRAIN:]])
    baselines, shortcuts = compare(label=lonely)
    assert shortcuts == []
    assert baselines["Lungs masked out"].metrics == {"auroc": Metric(None)}


def test_severity_has_one_question_and_classes_one_each(compare):
    grades = LABEL * (1 + np.arange(len(LABEL)) // 2 % 2)
    baselines, shortcuts = compare(with_marker, "severity", ("CT-0", "CT-1", "CT-2"), grades)
    assert auroc(baselines["Lungs masked out"]) > 0.99
    assert baselines["Lungs masked out"].metrics.keys() == {"auroc"}
    assert len(shortcuts) == 1
    assert "studies graver than CT-0" in shortcuts[0]
    names = ("cap", "covid", "normal")
    baselines, shortcuts = compare(with_marker, "classes", names, np.array([0, 1, 2, 1])[np.arange(len(LABEL)) % 4])
    assert any("studies of covid" in sentence for sentence in shortcuts)
    assert auroc(baselines["Lungs masked out"]) > 0.7
    assert baselines["Always covid"].metrics["auroc"] == Metric(0.5)
