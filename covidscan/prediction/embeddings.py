"""Features of the studies of an output folder, in one file that later calls add to."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from covidscan.prediction.prediction import Prediction
from covidscan.prediction.rows import file_of, is_of_same_files
from tfds_mosmed import early_exit
from tfds_mosmed.errors import NOT_AS_WRITTEN, UserError, one_line
from tfds_mosmed.scans.find import Found
from tfds_mosmed.storage import write_whole

FILE = "embeddings.npz"


class _Embedded(NamedTuple):
    """Number and source of a study, see `Prediction`, and its features."""

    number: int
    source: str
    features: np.ndarray


class EmbeddingsInFolder:
    """Features of the studies that earlier calls embedded, and of those that this one adds.

    embeddings.npz holds `features`, float32 (study, feature); `numbers`, `files` and `sources` (study,), as in the
    rows; `layers` (feature,), see `Embedder.layers`; and `model`, see `Prediction.model`.

    Args:
      folder: of the rows.

    Raises:
      UserError: the file is not as it was written.
    """

    def __init__(self, folder: Path):
        self.path = folder / FILE
        self._model = ""
        self._studies: dict[str, _Embedded] = {}  # by file
        if not self.path.exists():
            return
        try:
            with np.load(self.path) as stored:
                self._model = str(stored["model"])
                sources = stored["sources"] if "sources" in stored else [""] * len(stored["files"])  # older versions
                studies = zip(stored["files"], stored["numbers"], sources, stored["features"], strict=True)
                self._studies = {
                    str(file): _Embedded(int(number), str(source), features)
                    for file, number, source, features in studies
                }
        except (*NOT_AS_WRITTEN, OSError) as error:
            raise UserError(
                f"{self.path} is not as predict writes it ({one_line(error)}): remove it or choose another --output_dir"
            ) from error

    def has(self, study: Found, source: str) -> bool:
        """Return whether a study has features, and had the same files, see `Prediction.source`, when it got them."""
        known = self._studies.get(file_of(study))
        return known is not None and is_of_same_files(known.source, source)

    def add(self, prediction: Prediction, features: np.ndarray | None) -> None:
        """Replace the features of a study, or remove them where it could not be predicted."""
        assert prediction.file is not None and prediction.number is not None  # noqa: PT018
        if features is None:
            self._studies.pop(prediction.file, None)
        else:
            self._studies[prediction.file] = _Embedded(prediction.number, prediction.source or "", features)

    @contextlib.contextmanager
    def writing(self, layers: Sequence[str], model: str) -> Iterator[None]:
        """Write the file when the body ends, or the process at Ctrl-C.

        Args:
          layers: see `Embedder.layers`.
          model: see `Prediction.model`.

        Raises:
          UserError: the earlier features are of another model.
        """
        if self._model not in ("", model):
            raise UserError(
                f"{self.path} is of another model, or differs in --tta or --prevalence: choose another --output_dir"
            )
        try:
            with early_exit.registered(lambda: self._write(layers, model)):
                yield
        finally:
            self._write(layers, model)

    def _write(self, layers: Sequence[str], model: str) -> None:
        known = self._studies.copy()  # at Ctrl-C another thread adds to it
        files = sorted(known, key=lambda file: known[file].number)
        content = io.BytesIO()
        np.savez(
            content,
            features=np.array([known[file].features for file in files], np.float32).reshape(-1, len(layers)),
            numbers=np.array([known[file].number for file in files], np.int64),
            files=np.array(files, np.str_),
            sources=np.array([known[file].source for file in files], np.str_),
            layers=np.array(layers, np.str_),
            model=np.array(model),
        )
        write_whole(self.path, content.getvalue())
