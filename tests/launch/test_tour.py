"""The notebook: its code runs from records to an explanation, and what it shows is stored in it."""

import contextlib
import json
import shutil

from tests.support import notebook, runs

TOUR = runs.ROOT / "launch" / "tour.ipynb"


def test_the_tour_runs_from_records_to_an_explanation(trained, data_dir, tmp_path):
    (tmp_path / "data").symlink_to(data_dir)
    shutil.copytree(trained, tmp_path / "runs" / "tour")  # the same flags, so that nothing is trained anew
    with contextlib.chdir(tmp_path):
        done = notebook.run(TOUR)
    assert next(tmp_path.glob("runs/tour/evaluations/*/report.html")).stat().st_size > 100_000
    stored = json.loads(TOUR.read_text())
    for cell, now in zip(stored["cells"], done["cells"], strict=True):
        if cell["cell_type"] == "code":
            assert cell["execution_count"]
            kinds = [[output["output_type"] for output in each["outputs"]] for each in (cell, now)]
            assert kinds[0] == kinds[1], now
    assert TOUR.stat().st_size < 500_000
