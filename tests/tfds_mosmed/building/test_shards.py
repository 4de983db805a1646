"""Shards of the records."""

from tests.support.small_builds import small_builder


def test_a_full_shard_is_followed_by_another(built, studies, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tfds_mosmed.building.shards.SHARD_BYTES", 5.5 * 2 * 24 * 32 * 12
    )  # five records with their small fields
    made = small_builder(tmp_path)
    made.prepare(studies, workers=1)
    assert made.info.splits["studies"].shard_lengths == [5, 5, 2]
    assert [record["study_id"] for record in made.open_records()] == built.index().study_id
