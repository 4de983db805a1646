"""Prediction of many studies: worker processes read and prepare them, rows are written as they are done."""

import contextlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import tqdm

from covidscan.prediction.prediction import csv_header
from covidscan.prediction.predictor import Explainer
from covidscan.prediction.reading import Reading, readings
from covidscan.prediction.source import ModelSource
from tfds_mosmed import storage
from tfds_mosmed.cores import usable_cores
from tfds_mosmed.errors import UserError
from tfds_mosmed.progress import progress
from tfds_mosmed.scans.find import find_studies

if TYPE_CHECKING:
    from covidscan.trained_models.ensemble import Ensemble

MAX_WORKERS_WITH_SCANS = 4  # each holds two whole studies
MAX_STEM = 100  # characters of a study's name in the names of its files


def predict(
    paths: Sequence[str],
    source: ModelSource,
    *,
    tta: bool = False,
    explainer: "Callable[[Ensemble], Explainer] | None" = None,
    output_dir: str | None = None,
    as_json: bool = False,
) -> tuple[int, int]:
    """Predict studies, and write a row for each as soon as it is done.

    Args:
      paths: files and folders, see `find_studies`.
      source: of the model.
      tta: whether to average over each study and its mirror image.
      explainer: see `ModelSource.load`; if given, files that explain each prediction are written to `output_dir`.
      output_dir: folder for predictions.csv or predictions.jsonl; None: rows go to stdout.
      as_json: whether a row is a line of JSON.

    Returns:
      Number of studies, and how many of them could not be predicted.

    Raises:
      UserError: there is no such model, or the output exists already.
      OSError: the output cannot be written.
    """
    folder = _folder(output_dir) if output_dir is not None else None
    path = None if folder is None else folder / ("predictions.jsonl" if as_json else "predictions.csv")
    if path is not None and path.exists():
        raise UserError(f"{path} exists already: remove it, or choose another --output_dir")
    studies = find_studies(paths)
    workers = usable_cores()
    if explainer:
        workers = min(workers, MAX_WORKERS_WITH_SCANS)
    with_scan = explainer is not None
    with readings(studies, source.grid(), workers, with_scan=with_scan) as read, contextlib.ExitStack() as stack:
        predictor = source.load(tta=tta, explainer=explainer)
        output = stack.enter_context(_output(path))
        if not as_json:
            print(csv_header(predictor.info), file=output, flush=True)
        failed = 0
        for number, study in enumerate(progress(read, len(studies), "Predicting"), 1):
            prediction = predictor.predict(study)
            failed += prediction.error is not None
            if explainer and isinstance(study, Reading):
                assert folder is not None
                prediction = predictor.explain(study, prediction, folder, f"{number:04d}_{_stem(study.name)}")
            row = prediction.to_json() if as_json else prediction.to_csv(predictor.info.label_names)
            with tqdm.tqdm.external_write_mode(output):
                print(row, file=output, flush=True)
    return len(studies), failed


def _stem(study: str) -> str:
    """Turn a study's name into characters that are safe in any file name."""
    stem = re.sub(r"(\.nii)?(\.gz)?$", "", Path(study).name)
    return re.sub(r"[^\w.-]+", "_", stem.encode(errors="replace").decode())[:MAX_STEM]


def _folder(output_dir: str) -> Path:
    if storage.is_remote(output_dir):
        raise UserError(f"--output_dir={output_dir}: give a local folder, and copy it there when it is done")
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    storage.sweep(folder)
    return folder


def _output(path: Path | None) -> contextlib.AbstractContextManager[IO[str]]:
    """Open a new file, or stdout; file names that are not valid UTF-8 are written byte for byte."""
    if path is not None:
        return path.open("x", encoding="utf-8", errors="surrogateescape")
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    return contextlib.nullcontext(sys.stdout)
