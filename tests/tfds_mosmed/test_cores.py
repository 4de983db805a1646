"""Cores that a process may use, by its CPU affinity and its container's quota."""

import os

import pytest

from tfds_mosmed import cores


@pytest.mark.parametrize(
    ("files", "number"),
    [({}, 64), ({"v2": "max 100000"}, 64), ({"v2": "150000 100000"}, 2), ({"quota": "-1", "period": "100000"}, 64),
     ({"quota": "300000", "period": "100000"}, 3)],
)  # fmt: skip
def test_cores_are_limited_by_the_containers_quota(files, number, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(64))
    monkeypatch.setattr(cores, "CPU_QUOTAS", ((tmp_path / "v2",), (tmp_path / "quota", tmp_path / "period")))
    for name, content in files.items():
        (tmp_path / name).write_text(content + "\n")
    assert cores.usable_cores() == number
