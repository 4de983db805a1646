"""Predicting many studies: processes read and prepare, the network answers, rows are written as they come."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import loky
import tqdm

from covidscan.loading import Source
from covidscan.prediction import csv_header
from tfds_mosmed.finding import find_studies
from tfds_mosmed.reading import readings


def predict(
    paths: Sequence[str],
    source: Source,
    *,
    tta: bool = False,
    explain: bool = False,
    output_dir: str | None = None,
    as_json: bool = False,
) -> tuple[int, int]:
    """Predict studies, and write a row for each as it is done.

    Args:
      paths: files and folders, see `find_studies`.
      source: of the model.
      tta: whether the answer is the mean over each study and its mirror image.
      explain: whether each answer is explained in files of its own, below `output_dir`.
      output_dir: where predictions.csv or predictions.jsonl is written; None: to stdout.
      as_json: whether a row is a line of JSON.

    Returns:
      How many studies there were, and how many of them have no answer.

    Raises:
      UserError: there is no such model.
      OSError: the output cannot be written.
    """
    studies = find_studies(paths)
    reading = readings(studies, source.grid(), loky.cpu_count(), with_scan=explain)
    with _output(output_dir, "predictions.jsonl" if as_json else "predictions.csv") as output, reading as read:
        predictor = source.load(tta=tta)
        if not as_json:
            print(csv_header(predictor.info), file=output, flush=True)
        failed = 0
        for answer, _ in tqdm.tqdm(predictor.stream(read), "Predicting", len(studies), unit=" studies"):
            failed += answer.error is not None
            row = answer.to_json() if as_json else answer.to_csv(predictor.info.label_names)
            print(row, file=output, flush=True)
    return len(studies), failed


@contextlib.contextmanager
def _output(directory: str | None, name: str) -> Iterator[IO[str]]:
    if directory is None:
        yield sys.stdout
        return
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as output:
        yield output
