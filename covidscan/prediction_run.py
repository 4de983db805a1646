"""Predicting many studies: processes read and prepare, the network answers, rows are written as they come."""

import contextlib
import dataclasses
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import loky
import tqdm

from covidscan.loading import Source
from covidscan.prediction import Prediction, csv_header
from covidscan.predictor import Predictor
from tfds_mosmed.finding import find_studies
from tfds_mosmed.reading import Reading, readings


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
        answers = tqdm.tqdm(predictor.stream(read), "Predicting", len(studies), unit=" studies", file=sys.stderr)
        for number, (answer, study) in enumerate(answers, 1):
            failed += answer.error is not None
            if explain and study is not None:
                answer = _explained(predictor, answer, study, Path(output_dir or "."), number)
            row = answer.to_json() if as_json else answer.to_csv(predictor.info.label_names)
            print(row, file=output, flush=True)
    return len(studies), failed


def _explained(predictor: Predictor, answer: Prediction, study: Reading, folder: Path, number: int) -> Prediction:
    """Write the files that explain an answer, and name them in it."""
    from covidscan.explanation import write_explanation  # and with it Matplotlib

    assert study.scan is not None
    caption = f"{answer.path}: {answer.decision}, P = {answer.probability:.3f}"
    stem = re.sub(r"(\.nii)?(\.gz)?$", "", Path(answer.path).name)
    safe = re.sub(r"[^\w.-]+", "_", stem)
    files = write_explanation(
        folder, f"{number:04d}_{safe}", study.scan, study.prepared, predictor.explain(study, answer), caption
    )
    return dataclasses.replace(answer, files=tuple(files))


@contextlib.contextmanager
def _output(directory: str | None, name: str) -> Iterator[IO[str]]:
    if directory is None:
        yield sys.stdout
        return
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as output:
        yield output
