"""Summary of a cohort: counts by class, patients, and why studies cannot be used, without names."""

import dataclasses

import numpy as np
import pytest

from tfds_mosmed.building import cohort
from tfds_mosmed.building.index import StudyIndex
from tfds_mosmed.scans.acquisition import Acquisition


def index_of(categories, acquisition=None, gaps=None, slices=None):
    ids = [f"{category}/Planted{number}" for number, category in enumerate(categories)]
    count = len(ids)
    return StudyIndex(
        study_id=ids,
        category=list(categories),
        fold=np.zeros(count, int),
        num_slices=np.full(count, 40) if slices is None else np.array(slices),
        source_spacing_mm=np.tile([8.0, 0.7, 0.75], (count, 1))
        if gaps is None
        else np.array([[g, 1, 1] for g in gaps]),
        voxels_sha256=[""] * count,
        signature=[""] * count,
        lungs_found=np.ones(count, bool),
        has_lesion_mask=np.zeros(count, bool),
        warnings={ids[0]: ["2 duplicate slices"], ids[1]: ["3 duplicate slices"]},
        acquisition=dict(zip(ids, acquisition or [], strict=False)),
    )


def test_studies_are_counted_by_class():
    acquired = [
        Acquisition("DICOM", f"patient-{n // 2}", f"site-{n // 3}", "SIEMENS X", "B31f", "given") for n in range(6)
    ]
    index = index_of(["covid", "covid", "covid", "normal", "normal", "normal"], acquired, slices=range(30, 36))
    skipped = [(f"covid/Planted{n}", f"/raw/covid/Planted{n}.nii.gz: lacks {n} slices") for n in (7, 8)]
    found = cohort.summarize(index, skipped, {".zip": 2})
    assert (found.num_studies, found.num_patients, found.num_sites) == (6, 3, 2)
    assert found.classes == {"covid": 3, "normal": 3}
    texts = {each.name: each.counts for each in found.texts}
    assert texts["scanner"] == {"SIEMENS X": {"covid": 3, "normal": 3}}
    assert texts["site"] == {"1": {"covid": 3}, "2": {"normal": 3}}
    numbers = {each.name: each.ranges for each in found.numbers}
    assert numbers["slices"]["normal"] == (33, 34, 35)
    assert numbers["pixel spacing (mm)"]["covid"] == (0.75, 0.75, 0.75)
    assert found.unusable == [cohort.Count("lacks 7 slices, in the first", 2)]
    assert found.warnings == [cohort.Count("2 duplicate slices, in the first", 2)]
    assert found.left_out == {".zip": 2}
    assert found.shortcuts == []
    assert "fewer than two classes have 5 studies" in found.not_compared
    assert "planted" not in str(dataclasses.asdict(found)).lower()


def test_what_is_not_known_is_told():
    found = cohort.summarize(index_of(["", "", ""]), [], {})
    assert (found.num_patients, found.num_sites, found.classes) == (None, None, {"all": 3})
    assert found.not_compared == "the classes are not known"
    assert {each.name: each.counts for each in found.texts}["kernel"] == {"not stated": {"all": 3}}
    assert cohort.summarize(index_of(["a"] * 9), [], {}).not_compared == "there is one class only"


def test_studies_of_one_patient_are_compared_once():
    """Twelve studies of one patient, and of twelve, at other distances of the slices: only the latter is evidence."""
    categories = ["covid"] * 12 + ["normal"] * 12
    index = index_of(categories, gaps=[5.0] * 12 + [8.0] * 12)
    apart = cohort.summarize(index, [], {}, [f"p{n}" for n in range(24)])
    assert {each.name for each in apart.shortcuts} == {"slice spacing (mm)", "length (mm)"}
    same = cohort.summarize(index, [], {}, ["p"] * 12 + [f"p{n}" for n in range(12)])
    assert same.shortcuts == []
    assert same.not_compared


def test_many_numbers_are_two_classes():
    labels = [str(number / 10) for number in range(60)]
    assert cohort.classes_of(labels).count("up to 2.95") == 30
    assert cohort.classes_of(["CT-0", "CT-1"]) == ["CT-0", "CT-1"]


def test_rare_scanners_are_counted_together():
    acquired = [Acquisition("DICOM", scanner=f"S{min(n, 20)}") for n in range(30)]
    found = cohort.summarize(index_of(["a"] * 30, acquired), [], {})
    counts = {each.name: each.counts for each in found.texts}["scanner"]
    assert len(counts) == cohort.MOST_VALUES
    assert counts["S20"] == {"a": 10}
    assert counts["others"] == {"a": 10}


@pytest.mark.parametrize(
    ("study_id", "reason", "expected"),
    [
        ("covid/P1", "/raw/covid/P1.nii.gz: is empty; copy it again", "is empty; copy it again"),
        (
            "covid/P1",
            "/raw/a: b/covid/P1: holds no CT slice (of its files: 3 PDF)",
            "holds no CT slice (of its files: 3 PDF)",
        ),
        ("study_0007", "CT-1.zip: CT-1/study_0007.nii.gz: cannot be read (CRC)", "cannot be read (CRC)"),
        ("covid/P1", "covid/P1: took longer than 8 s to read", "took longer than 8 s to read"),
        (
            "covid/P1",
            "covid/P1 has the same voxels as covid/P2: one study under two names",
            "one study under two names",
        ),
        ("covid/P1", "is empty: copy it again", "is empty: copy it again"),
    ],
)
def test_a_study_was_left_out_for_a_reason_without_the_path_of_its_file(study_id, reason, expected):
    assert cohort.without_path(study_id, reason) == expected
