"""Rows of predictions: hostile names and texts of files stay text."""

import csv
import json

from covidscan.data.domain_shift import Flag
from covidscan.prediction.prediction import Prediction

ESCAPES = "B30\x1b]0;title\x07\x1b[2J\x9b31m"


def _prediction(**changes):
    values = {
        "path": "scan.nii",
        "probability": 0.25,
        "decision": "negative",
        "probabilities": {"negative": 0.75, "positive": 0.25},
        "flags": (),
        "seen": {},
        "warnings": (),
        "seconds": 1.0,
    }
    return Prediction(**(values | changes))


def test_no_cell_is_a_formula_and_numbers_stay_numbers():
    hostile = _prediction(
        path="=cmd|' /C calc'!A0", decision="@SUM(1)", warnings=("+1+2",), error="-x", file="=x",
        threshold=0.5, model="0123456789ab", number=3, files=("0003.png", "0003.html"),
    )  # fmt: skip
    (cells,) = csv.reader([hostile.to_csv(["negative", "positive"])])
    assert cells == [
        "'=cmd|' /C calc'!A0", "0.250000", "'@SUM(1)", "0.750000", "0.250000", "", "'+1+2", "1.000", "'-x", "0.500000",
        "0123456789ab", "3", "'=x", "0003.png 0003.html",
    ]  # fmt: skip


def test_texts_of_files_have_no_control_characters():
    hostile = _prediction(path=f"a{ESCAPES}", flags=(Flag("kernel", ESCAPES),), warnings=(ESCAPES,), error=ESCAPES)
    row = hostile.to_csv(["negative", "positive"])
    assert row.isprintable()
    assert r"B30\x1b]0;title\x07" in row
    line = json.loads(hostile.to_json())
    assert line["path"] == f"a{ESCAPES}", "names of files stay exact in JSON, which escapes them"
    assert "".join([line["flags"][0]["seen"], *line["warnings"], line["error"]]).isprintable()
    assert hostile.to_json().isprintable()
