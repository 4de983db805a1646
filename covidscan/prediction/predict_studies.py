"""Predicting many studies: processes read and prepare, the network answers, rows are written as they come."""

import contextlib
import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import loky
import tqdm

from covidscan.prediction.prediction import Prediction, csv_header
from covidscan.prediction.predictor import Predictor
from covidscan.prediction.reading import Reading, readings
from covidscan.prediction.source import ModelSource
from tfds_mosmed import storage
from tfds_mosmed.building.prepare_studies import progress
from tfds_mosmed.errors import UserError
from tfds_mosmed.scans.find import find_studies

MOST_WORKERS_WITH_SCANS = 4  # each holds two whole studies
MOST_OF_NAME = 100  # characters of a study's name in the names of its files


def predict(
    paths: Sequence[str],
    source: ModelSource,
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
      UserError: there is no such model, or the output is there already.
      OSError: the output cannot be written.
    """
    folder = _folder(output_dir) if output_dir is not None else None
    path = None if folder is None else folder / ("predictions.jsonl" if as_json else "predictions.csv")
    if path is not None and path.exists():
        raise UserError(f"{path} is there already: remove it, or choose another --output_dir")
    studies = find_studies(paths)
    workers = loky.cpu_count()
    if explain:
        workers = min(workers, MOST_WORKERS_WITH_SCANS)
    with readings(studies, source.grid(), workers, with_scan=explain) as read, contextlib.ExitStack() as stack:
        predictor = source.load(tta=tta)
        output = stack.enter_context(_output(path))
        if not as_json:
            print(csv_header(predictor.info), file=output, flush=True)
        failed = 0
        for number, study in enumerate(progress(read, len(studies), "Predicting"), 1):
            answer = predictor.answer(study)
            failed += answer.error is not None
            if explain and isinstance(study, Reading):
                assert folder is not None
                answer = _explained(predictor, answer, study, folder, number)
            row = answer.to_json() if as_json else answer.to_csv(predictor.info.label_names)
            with tqdm.tqdm.external_write_mode(output):
                print(row, file=output, flush=True)
    return len(studies), failed


def _explained(predictor: Predictor, answer: Prediction, study: Reading, folder: Path, number: int) -> Prediction:
    """Write the files that explain an answer, and name them in it."""
    from covidscan.explanation import write_explanation  # and with it Matplotlib

    assert study.scan is not None
    flags = f", flagged: {', '.join(flag.code for flag in answer.flags)}" if answer.flags else ""
    of = predictor.explained(answer)
    caption = f"{answer.path}: {answer.decision}, P({of}) = {answer.probability:.3f}{flags}"
    caption = caption.encode(errors="replace").decode()  # a file name may be no text
    stem = re.sub(r"(\.nii)?(\.gz)?$", "", Path(answer.path).name)
    safe = re.sub(r"[^\w.-]+", "_", stem.encode(errors="replace").decode())[:MOST_OF_NAME]
    files = write_explanation(
        folder, f"{number:04d}_{safe}", study.scan, study.prepared, predictor.explain(study, answer), caption
    )
    return dataclasses.replace(answer, files=tuple(files))


def _folder(output_dir: str) -> Path:
    if storage.is_remote(output_dir):
        raise UserError(f"--output_dir={output_dir}: give a folder of this machine, and copy it there when it is done")
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _output(path: Path | None) -> contextlib.AbstractContextManager[IO[str]]:
    """Open a new file, or take stdout; names of files that are no text come out as they are."""
    if path is not None:
        return path.open("x", encoding="utf-8", errors="surrogateescape")
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    return contextlib.nullcontext(sys.stdout)
