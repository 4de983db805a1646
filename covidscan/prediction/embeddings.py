"""Features of the studies of an output folder, in one file that later calls add to."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from covidscan.prediction.rows import file_of
from tfds_mosmed import early_exit
from tfds_mosmed.errors import NOT_AS_WRITTEN, UserError, one_line
from tfds_mosmed.scans.find import Found
from tfds_mosmed.storage import write_whole

FILE = "embeddings.npz"


class EmbeddingsInFolder:
    """Features of the studies that earlier calls embedded, and of those that this one adds.

    embeddings.npz holds `features`, float32 (study, feature); `numbers` and `files` (study,), as in the rows;
    `layers` (feature,), see `Embedder.layers`; and `model`, see `Prediction.model`.

    Args:
      folder: of the rows.

    Raises:
      UserError: the file is not as it was written.
    """

    def __init__(self, folder: Path):
        self.path = folder / FILE
        self._model = ""
        self._features: dict[str, tuple[int, np.ndarray]] = {}  # file -> number, features
        if not self.path.exists():
            return
        try:
            with np.load(self.path) as stored:
                self._model = str(stored["model"])
                studies = zip(stored["files"], stored["numbers"], stored["features"], strict=True)
                self._features = {str(file): (int(number), features) for file, number, features in studies}
        except (*NOT_AS_WRITTEN, OSError) as error:
            raise UserError(
                f"{self.path} is not as predict writes it ({one_line(error)}): remove it or choose another --output_dir"
            ) from error

    def has(self, study: Found) -> bool:
        """Return whether a study has features."""
        return file_of(study) in self._features

    def add(self, study: Found, number: int, features: np.ndarray) -> None:
        """Add the features of a study, or replace them."""
        self._features[file_of(study)] = number, features

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
        known = self._features.copy()  # at Ctrl-C another thread adds to it
        files = sorted(known, key=lambda file: known[file][0])
        content = io.BytesIO()
        np.savez(
            content,
            features=np.array([known[file][1] for file in files], np.float32).reshape(-1, len(layers)),
            numbers=np.array([known[file][0] for file in files], np.int64),
            files=np.array(files, np.str_),
            layers=np.array(layers, np.str_),
            model=np.array(model),
        )
        write_whole(self.path, content.getvalue())
