"""Files of built records that were damaged, edited or swapped: one line that names the file and the way out."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support import share
from tests.support.chest import chest, write_nifti
from tests.support.mutations import mutated
from tests.support.small_builds import small_builder
from tfds_mosmed.errors import UserError

NAMES = ("metadata.json", "dataset_info.json", "ct_folder-studies.array_record-00000-of-00001")


@pytest.fixture
def records(built, tmp_path):
    """The folder of a copy of the records."""
    return Path(small_builder(shutil.copytree(built.data_dir_root, tmp_path / "data")).data_dir)


def _read(folder):
    """Read all of the records, as commands do; return what they say of the studies."""
    builder = small_builder(folder.parents[2])
    builder.prepare()
    index, skipped, left_out = builder.index(), builder.skipped(), builder.left_out()
    assert len(builder.fingerprint()) == 64
    rows = [(record["study_id"], record["category"], int(record["volume"].sum())) for record in builder.open_records()]
    assert [row[:2] for row in rows] == list(zip(index.study_id, index.category, strict=True))
    assert not skipped
    assert not left_out
    return rows


@pytest.mark.parametrize("name", NAMES)
def test_no_mutation_is_read_wrongly_or_ends_in_more_than_a_line(name, records):
    content, expected = (records / name).read_bytes(), _read(records)
    chance = share.generator(f"mutations of {name}")
    refused = 0
    for _ in range(500 if share.is_full() else 12):
        (records / name).write_bytes(mutated(content, chance))
        try:
            assert _read(records) == expected
        except UserError as error:
            refused += 1
            message = str(error)
            assert "\n" not in message
            assert message.startswith(str(records))
            assert "python -m covidscan.build --dataset=ct_folder/24x32x12" in message
    assert refused > (200 if share.is_full() else 3)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_missing_or_empty_is_named(name, records):
    (records / name).write_bytes(b"")
    with pytest.raises(UserError, match=str(records)):
        _read(records)
    (records / name).unlink()
    with pytest.raises(UserError, match=rf"^{records}.* build the records again") as error:
        _read(records)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("category", "covid"),
        ("fold", 3),
        ("voxels_sha256", "0" * 64),
        ("lungs_found", False),
    ],
)
def test_an_edited_index_does_not_fit_the_records(field, value, records):
    path = records / "metadata.json"
    metadata = json.loads(path.read_text())
    row = next(row for row in metadata["index"] if row[field] != value)
    row[field] = value
    path.write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=rf"record \d+, \S+, cannot be read \({field} is .* in metadata.json"):
        _read(records)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_other_records_is_noticed(name, records, studies, tmp_path):
    other = shutil.copytree(studies, tmp_path / "raw")
    write_nifti(other / "covid/s0.nii.gz", chest(20))
    made = small_builder(tmp_path / "other")
    made.prepare(other, workers=1)
    shutil.copy(Path(made.data_dir, name), records / name)
    if name == "dataset_info.json":  # which holds sizes only
        return
    with pytest.raises(UserError, match=r"record \d+, covid/s0, cannot be read"):
        _read(records)


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata: metadata["sources"].popitem(),
        lambda metadata: metadata["index"][0].update(study_id="normal/s99"),
        lambda metadata: metadata.update(left_out={".zip": -1}),
    ],
    ids=["source", "study_id", "left_out"],
)
def test_metadata_that_do_not_fit_together_are_refused(change, records):
    path = records / "metadata.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=r"metadata\.json: is not as the build wrote it"):
        _read(records)
