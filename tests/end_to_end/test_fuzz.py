"""Damaged studies neither end a run nor hang it nor exhaust its memory."""

import collections

from covidscan.prediction.reading import time_limit
from tests.support import share
from tests.support.mutants import mutants, read_mutant, write_seeds
from tfds_mosmed.scans.find import Found, find_studies
from tfds_mosmed.workers import Failure, isolated_map

MUTANTS = 2100


def test_damaged_studies_end_in_a_volume_or_one_line(tmp_path):
    for folder in ("seeds", "mutants"):
        (tmp_path / folder).mkdir()
    seeds = write_seeds(tmp_path / "seeds")
    assert [read_mutant(found).error for found in find_studies(list(map(str, seeds)))] == [None] * len(seeds)
    numbers = share.sample("mutants", range(MUTANTS))
    names: list[str] = []

    def found():
        for path in mutants(seeds, numbers, tmp_path / "mutants"):
            assert time_limit(Found("", path)) < 10
            studies = find_studies([str(path)])
            assert [study.name for study in studies] == [str(path)]
            names.append(str(path))
            yield from studies

    counts: collections.Counter[str] = collections.Counter()
    slowest, peak = 0.0, 0
    with isolated_map(read_mutant, found(), time_limit, 2) as results:
        for number, result in enumerate(results):
            if isinstance(result, Failure):
                counts[result.reason.partition(";")[0]] += 1
                continue
            slowest, peak = max(slowest, result.seconds), max(peak, result.peak_bytes)
            counts["error" if result.error else "volume"] += 1
            if result.error:
                assert result.error.startswith(f"{names[number]}: ")
                assert "\n" not in result.error
                assert "planted" not in result.error.lower()
    print(dict(counts), f"slowest {slowest:.1f} s, {peak >> 20} MiB at most")
    assert counts.total() == len(numbers)
    # For most a reader reports what is wrong, and few crash a worker.
    assert counts["volume"] > len(numbers) / 10
    assert counts["error"] > len(numbers) / 3
    assert counts["volume"] + counts["error"] > 0.98 * len(numbers)
    assert peak < 2 << 30
