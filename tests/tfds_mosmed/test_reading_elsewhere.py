"""The README's ways to read records elsewhere, as they are printed there; those of TFDS alone without this package."""

import json
import re
import subprocess
import sys

import pytest

from tests.support import runs

README = (runs.ROOT / "tfds_mosmed" / "README.md").read_text()
SECTION = README.partition("## Reading the records elsewhere")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture
def folder(tmp_path, data_dir, trained):
    """A folder with records and a run under the names of the README."""
    (tmp_path / "data").symlink_to(data_dir)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(trained)
    return tmp_path


def _run(folder, *blocks, path=""):
    code = "".join(blocks).replace("ct_phantom/demo", "ct_phantom/tiny")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=runs.environment() | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tfds_alone_reads_the_records_and_the_parts_of_a_run(folder):
    alone, parts, numpy, grain, _ = BLOCKS
    volumes = "    print(volumes.shape, volumes.dtype, volumes.sum(dtype=int))\n"
    show = (
        "import sys; assert not {'tfds_mosmed', 'covidscan', 'tensorflow'} & set(sys.modules)\n"
        "import json; print(json.dumps([studies[row]['study_id'].decode() for row in train]))\n"
    )
    first, *batches, ids = _run(folder, alone, parts, numpy, volumes, grain, volumes, show).splitlines()
    assert re.fullmatch(r"24 int16 CT-\d", first)
    listed = json.loads((folder / "runs" / "demo" / "studies.json").read_text())["train"]
    assert json.loads(ids) == [study["study_id"] for study in listed]
    by_numpy, by_grain = batches[: len(batches) // 2], batches[len(batches) // 2 :]
    shapes = [line.rpartition(" ")[0] for line in by_numpy]
    assert shapes == ["(4, 16, 32, 32) int16"] * 3 + ["(2, 16, 32, 32) int16"]
    assert shapes == [line.rpartition(" ")[0] for line in by_grain]
    one, other = (sum(int(line.split()[-1]) for line in lines) for lines in (by_numpy, by_grain))
    assert one == other < 0


def test_this_package_reads_the_parts_of_the_flags(folder):
    show = "print([dataset.study_ids[row] for row in dataset.parts['train']], volume.shape, label)\n"
    shown = _run(folder, BLOCKS[-1], show, path=str(runs.ROOT))
    for study in json.loads((folder / "runs" / "demo" / "studies.json").read_text())["train"]:
        assert repr(study["study_id"]) in shown
    assert "(16, 32, 32)" in shown
