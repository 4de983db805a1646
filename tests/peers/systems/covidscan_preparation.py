"""Preparation of one study by CovidScan, in one thread on one core; or in one and two processes."""

import functools
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from isal import igzip

from tests.peers import replies
from tfds_mosmed.building.prepare_studies import Preparation
from tfds_mosmed.building.study import FileStudy
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.prepare import Prepared, prepare
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.workers import ONE_THREAD

STUDIES_A_CALL = 8


def _prepared(path: str, grid: Grid) -> Prepared:
    return prepare(read_scan(Path(path)), grid)


def one_core(path: str) -> dict:
    """Return tasks: prepare a study on grids, or as a record with checksum and signature; or only decompress it."""
    content = Path(path).read_bytes()
    study = FileStudy("study", "CT-1", Path(path))
    preparation = Preparation(Grid.parse("128x128x32"), with_mask=True, folds={"study": 0})
    to_grids = {
        name: functools.partial(_prepared, path, Grid.parse(name))
        for name in ("64x64x32_full", "128x128x32_full", "128x128x32")
    }
    return to_grids | {
        "record": lambda: preparation.prepare(study),
        "igzip": lambda: igzip.decompress(content),
    }


def processes(path: str) -> dict:
    """Return tasks that prepare eight studies in one process and in two, as a build does."""
    prepared = functools.partial(_prepared, grid=Grid.parse("128x128x32"))
    studies = [path] * STUDIES_A_CALL
    os.environ.update(ONE_THREAD)  # for the processes that are spawned
    context = multiprocessing.get_context("spawn")
    pools = {number: ProcessPoolExecutor(number, context) for number in (1, 2)}
    return {str(number): lambda pool=pool: list(pool.map(prepared, studies)) for number, pool in pools.items()}


if __name__ == "__main__":
    output = replies.open_output()
    what, settings = replies.settings()
    replies.reply_with_timings(output, {"one_core": one_core, "processes": processes}[what](**settings))
