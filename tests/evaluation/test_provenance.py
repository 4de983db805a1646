"""Provenance of an evaluation: what it tells of the user's files."""

import pytest

from covidscan.evaluation import provenance


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
        ("covid/P1", "is empty: copy it again", "is empty: copy it again"),
    ],
)
def test_a_study_was_left_out_for_a_reason_without_the_path_of_its_file(study_id, reason, expected):
    assert provenance._without_path(study_id, reason) == expected
