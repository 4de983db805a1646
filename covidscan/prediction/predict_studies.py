"""Prediction of many studies: worker processes read and prepare them, rows are written as they are done."""

import collections
import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING

import tqdm
from absl import logging

from covidscan.metrics.thresholds import is_explained
from covidscan.prediction import index_page
from covidscan.prediction.embeddings import EmbeddingsInFolder
from covidscan.prediction.prediction import Prediction, csv_header
from covidscan.prediction.predictor import Explainer, Predictor
from covidscan.prediction.reading import Reading, Refusal, readings
from covidscan.prediction.rows import RowsInFolder, file_of, rows_in_folder
from covidscan.prediction.source import ModelSource
from tfds_mosmed import storage
from tfds_mosmed.cores import usable_cores
from tfds_mosmed.errors import UserError
from tfds_mosmed.progress import announce, progress
from tfds_mosmed.scans.find import Found, find_studies

if TYPE_CHECKING:
    from covidscan.trained_models.ensemble import Ensemble

MAX_WORKERS_WITH_SCANS = 4  # each holds two whole studies
EXPLAINED_AT_ONCE = 2  # the files of a study are written while the maps of the next one are computed


def predict(
    paths: Sequence[str],
    source: ModelSource,
    *,
    tta: str = "",
    prevalence: float | None = None,
    explainer: "Callable[[Ensemble], Explainer] | None" = None,
    endings: Sequence[str] = (),
    embeddings: bool = False,
    output_dir: str | None = None,
    form: str | None = None,
) -> tuple[int, int]:
    """Predict studies, and write a row for each as soon as it is done.

    In a folder that earlier calls wrote to, only those studies are predicted that have no row, or one with an error, or
    lack files, or have changed since.

    Args:
      paths: files and folders, see `find_studies`.
      source: of the model.
      tta: set of views over which logits are averaged, see `models.views`; "": none.
      prevalence: to which predictions are adapted; None: to none.
      explainer: see `ModelSource.load`; if given, files that explain each prediction are written to `output_dir`.
      endings: of the names of these files, by which an earlier call is known to have written them.
      embeddings: whether the features of each study are written to `output_dir`, see `EmbeddingsInFolder`.
      output_dir: folder for predictions.csv or predictions.jsonl; None: rows go to stdout.
      form: "csv" or "json", of the rows; None: "csv", and lines for a reader where rows go to a terminal.

    Returns:
      Number of studies, and how many of them could not be predicted.

    Raises:
      UserError: there is no such model, or the folder holds predictions of another model or in the other format.
      OSError: the output cannot be written.
    """
    as_json = form == "json"
    with contextlib.ExitStack() as stack:
        rows = None if output_dir is None else stack.enter_context(rows_in_folder(_folder(output_dir), as_json))
        studies = missing = find_studies(paths)
        vectors: EmbeddingsInFolder | None = None
        if rows is not None:
            vectors = EmbeddingsInFolder(rows.path.parent) if embeddings else None
            missing = [
                study
                for study in studies
                if not rows.has(study, endings) or (vectors and not vectors.has(study, rows.source(study)))
            ]
            if len(missing) < len(studies):
                done = len(studies) - len(missing)
                print(f"{rows.path} has {done} of {len(studies)} studies already", file=sys.stderr)
                if others := rows.num_of_other_versions([*{*studies} - {*missing}]):
                    print(
                        f"{others} of these were read and prepared by another version: choose another --output_dir to "
                        "have all alike",
                        file=sys.stderr,
                    )
        workers = min(usable_cores(), MAX_WORKERS_WITH_SCANS) if explainer else usable_cores()
        read = stack.enter_context(readings(missing, source.grid(), workers, with_scan=explainer is not None))
        predictor = source.load(tta=tta, prevalence=prevalence, explainer=explainer, embeds=embeddings)
        task = predictor.info.task
        if explainer and not is_explained(task):
            raise UserError(
                f"--explain, --save_maps, --dicom: maps explain labels, and the run is of --task={task}: leave them out"
            )
        names = () if task == "regression" else predictor.info.label_names
        header = csv_header(predictor.info)
        as_text = False
        if rows is None:
            output = _stdout()
            as_text = form is None and output.isatty()
            if not (as_json or as_text):
                print(header, file=output, flush=True)
        else:
            if vectors and predictor.embedder:
                stack.enter_context(vectors.writing(predictor.embedder.layers, predictor.identity))
            output = stack.enter_context(rows.adding(missing, predictor.identity, header))
        if explainer and missing:
            announce(
                "Predicting and explaining; the first study takes longer, up to some minutes: programs are compiled"
            )
        failed = 0
        threads = stack.enter_context(ThreadPoolExecutor(EXPLAINED_AT_ONCE))
        predictions = _predictions(zip(missing, read, strict=True), predictor, rows, threads)
        for found, study, prediction in progress(predictions, len(missing), "Predicting"):
            failed += prediction.error is not None
            if rows is not None:
                if vectors and predictor.embedder:
                    volume = study.prepared.volume if isinstance(study, Reading) and not prediction.error else None
                    vectors.add(prediction, None if volume is None else predictor.embedder(volume))
                kept = [name for name in rows.files(found) if name not in prediction.files]
                prediction = dataclasses.replace(prediction, files=(*kept, *prediction.files))
            row = prediction.to_json() if as_json else prediction.to_csv(names)
            with tqdm.tqdm.external_write_mode(output):
                print(prediction.to_text() if as_text else row, file=output, flush=True)
            if prediction.error and not output.isatty():
                logging.warning("%s", prediction.error)
        if rows is not None:
            rows.read()
            pages = [index_page.write(rows, predictor.info).name] if index_page.LISTED in endings else []
            print(f"Written to {rows.path.parent}: {', '.join([rows.path.name, *pages])}", file=sys.stderr)
    return len(studies), failed


def _predictions(
    studies: Iterable[tuple[Found, Reading | Refusal]],
    predictor: Predictor,
    rows: RowsInFolder | None,
    threads: ThreadPoolExecutor,
) -> Iterator[tuple[Found, Reading | Refusal, Prediction]]:
    """Predict studies, explain those whose scans were kept, and yield them in their order."""
    pending: collections.deque[tuple[Found, Reading | Refusal, Prediction | Future[Prediction]]] = collections.deque()

    def first() -> tuple[Found, Reading | Refusal, Prediction]:
        found, study, prediction = pending.popleft()
        return found, study, prediction.result() if isinstance(prediction, Future) else prediction

    for found, study in studies:
        prediction: Prediction | Future[Prediction] = predictor.predict(study)
        if rows is not None:
            number = rows.number(found)
            prediction = dataclasses.replace(prediction, number=number, file=file_of(found), source=rows.source(found))
            if isinstance(study, Reading) and study.scan is not None:
                prediction = threads.submit(predictor.explain, study, prediction, rows.path.parent, f"{number:04d}")
        pending.append((found, study, prediction))
        while pending and (len(pending) == EXPLAINED_AT_ONCE or not isinstance(pending[0][2], Future)):
            yield first()
    while pending:
        yield first()


def _folder(output_dir: str) -> Path:
    if storage.is_remote(output_dir):
        raise UserError(f"--output_dir={output_dir}: give a local folder, and copy it there when it is done")
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    storage.sweep(folder)
    return folder


def _stdout() -> IO[str]:
    """Return stdout, to which file names that are not valid UTF-8 are written byte for byte."""
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    return sys.stdout
