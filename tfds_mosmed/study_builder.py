"""What the data sets share: fields of the records, preparation on all cores or on Beam, index and checks."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import hashing

from tfds_mosmed.build_lock import build_lock
from tfds_mosmed.errors import UserError
from tfds_mosmed.preparation import Outcome, prepare_studies, prepare_study, progress
from tfds_mosmed.preprocess import Grid
from tfds_mosmed.studies import Study
from tfds_mosmed.study_index import StudyIndex, assign_folds, index_row

SPLIT = "studies"  # the only one; parts are chosen at training time
SHARD_BYTES = 128 << 20
ON_BAD_STUDY = ("stop", "skip")


@dataclasses.dataclass(eq=False, kw_only=True)
class GridConfig(tfds.core.BuilderConfig):
    """A builder config that is a grid.

    Attributes:
      grid: what the studies are brought to; text as in "128x128x32" will do.
    """

    grid: Grid

    def __post_init__(self):
        if isinstance(self.grid, str):
            self.grid = Grid.parse(self.grid)


GRIDS = tuple(Grid.parse(size + field) for size in ("64x64x32", "128x128x32", "256x256x40") for field in ("", "_full"))


class StudyRecords(Sequence):
    """Random access to the records; texts are str. Reading from several threads is safe, and it can be pickled."""

    def __init__(self, source: Sequence[dict[str, Any]]):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row):  # type: ignore[override]
        """Read record `row`: a dict of the fields."""
        record = self._source[row]
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in record.items()}


class StudyBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set of CT studies. Subclasses list the studies; all else is here."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 - TFDS's own declaration
    HAS_MASKS = False

    def __init__(self, *, file_format: str = "array_record", **kwargs: Any):
        """See `tfds.core.DatasetBuilder`; the records are array_record, which is read without TensorFlow."""
        super().__init__(file_format=file_format, **kwargs)
        self._on_bad_study = "stop"
        self._workers: int | None = None

    # What a data set defines.

    def _list_studies(self, dl_manager: tfds.download.DownloadManager) -> list[Study]:
        """List the studies without reading them; raises UserError."""
        raise NotImplementedError

    def published_split(self) -> dict[str, str] | None:
        """Give each study's part in a published split, "train" or "test"; None where there is none."""
        return None

    # What users call.

    def prepare(
        self,
        manual_dir: str | Path | None = None,
        on_bad_study: str = "stop",
        workers: int | None = None,
        beam_options: Any = None,
    ) -> None:
        """Build the records, unless they stand.

        Args:
          manual_dir: where the raw studies are, for data sets that do not get them themselves.
          on_bad_study: "stop" raises at the first study that cannot be used; "skip" leaves such studies out and keeps
            their reasons for `skipped`.
          workers: processes; None for as many as this process may use cores.
          beam_options: `apache_beam` pipeline options; the records are then built by a Beam pipeline.

        Raises:
          UserError: in one line, which file or folder is the trouble and what to do.
        """
        if on_bad_study not in ON_BAD_STUDY:
            raise UserError(f"--on_bad_study={on_bad_study}: choose one of {', '.join(ON_BAD_STUDY)}")
        self._on_bad_study, self._workers = on_bad_study, workers
        config = tfds.download.DownloadConfig(
            manual_dir=str(manual_dir) if manual_dir else None, beam_options=beam_options, try_download_gcs=False
        )
        self.download_and_prepare(download_config=config)

    def is_built(self) -> bool:
        """Tell whether the records are there, whole."""
        return self.is_prepared()

    def index(self) -> StudyIndex:
        """Give the records' small fields, in the records' order, without reading the records."""
        return StudyIndex.from_rows(self._kept("index"))

    def skipped(self) -> list[tuple[str, str]]:
        """List the studies that were left out, with the reasons."""
        return [(study_id, reason) for study_id, reason in self._kept("skipped")]

    def open_records(self) -> StudyRecords:
        """Open the records; record i is row i of the index."""
        self._kept("index")
        return StudyRecords(self.as_data_source(split=SPLIT))

    def fingerprint(self) -> str:
        """Hash what the records were made from: name, version, configuration, and each study's id, class and voxels."""
        rows = [[row["study_id"], row["category"], row["voxels_sha256"]] for row in self._kept("index")]
        text = json.dumps([self.name, str(self.version), self._kept("config"), rows])
        return hashlib.sha256(text.encode()).hexdigest()

    # How TFDS builds.

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(self._features()), metadata=tfds.core.MetadataDict()
        )

    def _features(self) -> dict[str, Any]:
        shape = self.builder_config.grid.shape
        fields: dict[str, Any] = {
            # Without the encoding integers are stored one by one.
            "volume": tfds.features.Tensor(shape=shape, dtype=np.int16, encoding="bytes", doc="HU, -1024 to 1500"),
            "study_id": tfds.features.Text(),
            "category": tfds.features.Text(doc="the class, as the data set calls it"),
            "fold": tfds.features.Scalar(np.int32, doc="0 to 9, stratified by category"),
            "spacing_mm": tfds.features.Tensor(shape=(3,), dtype=np.float32, doc="of the grid: slice, row, column"),
            "source_shape": tfds.features.Tensor(shape=(3,), dtype=np.int32, doc="slices, rows, columns"),
            "source_spacing_mm": tfds.features.Tensor(shape=(3,), dtype=np.float32, doc="slice, row, column"),
            "source_box": tfds.features.Tensor(shape=(3, 2), dtype=np.int32, doc="the source's voxels under the grid"),
            "lungs_found": tfds.features.Scalar(np.bool_, doc="whether the grid covers the lungs' box"),
            "has_lesion_mask": tfds.features.Scalar(np.bool_),
            "voxels_sha256": tfds.features.Text(doc="of the source's shape and voxels"),
        }
        if self.HAS_MASKS:
            doc = "1 in lesions; all 0 without a mask"
            fields["lesion_mask"] = tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="zlib", doc=doc)
        return fields

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Build the records unless they stand; see `tfds.core.DatasetBuilder`. One process builds, others wait for it."""
        with build_lock(Path(self.data_dir)):
            super().download_and_prepare(**kwargs)
        if not self._is_loaded():
            self.info.read_from_directory(self.data_dir)  # another process has built them since this builder was made

    def _log_download_bytes(self) -> None:
        """TFDS would print sizes that nobody knows; the progress bar says what happens."""

    _log_download_done = _log_download_bytes

    def _is_loaded(self) -> bool:
        return bool(self.info.metadata)

    def _kept(self, name: str) -> Any:
        if not self.is_built():
            raise UserError(f"{self.name}/{self.builder_config.name} is not built in {self.data_dir_root}; call prepare()")
        if not self._is_loaded():
            self.info.read_from_directory(self.data_dir)
        return self.info.metadata[name]

    def _generate_splits(self, dl_manager, download_config) -> list[tfds.core.SplitInfo]:
        limit = download_config.max_examples_per_split
        studies = self._in_record_order(self._list_studies(dl_manager))[:limit]
        self._folds = assign_folds([s.study_id for s in studies], [s.category for s in studies])
        self._studies = studies
        rows: list[dict[str, Any]] = []
        skipped: list[tuple[str, str]] = []
        grid = self.builder_config.grid
        outcomes = prepare_studies(studies, grid, self.HAS_MASKS, self._workers)
        outcomes = progress(outcomes, len(studies), f"{self.name}/{self.builder_config.name}")
        records = self._accept(outcomes, rows, skipped)
        split = self._write_shards(records)
        self.info.metadata.clear()
        self.info.metadata.update(index=rows, skipped=skipped, config=self._config())
        return [split]

    def _split_generators(self, dl_manager):
        raise NotImplementedError

    def _generate_examples(self, studies):
        raise NotImplementedError

    def _in_record_order(self, studies: Sequence[Study]) -> list[Study]:
        """TFDS's own order, by hash of the key: it says nothing of the class, and is the same with Beam."""
        hasher = hashing.Hasher(SPLIT)
        return sorted(studies, key=lambda study: hasher.hash_key(study.study_id))

    def _config(self) -> dict[str, Any]:
        plain = {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
        config = self.builder_config
        own = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in plain}
        return {name: str(value) for name, value in own.items()}

    def _accept(self, outcomes: Iterator[Outcome], rows: list, skipped: list) -> Iterator[dict[str, Any]]:
        """Keep the good outcomes' records and index rows; stop at, or note, the others."""
        seen: dict[str, str] = {}
        for study_id, record, warnings, error in outcomes:
            if record is not None:
                first = seen.setdefault(record["voxels_sha256"], study_id)
                if first != study_id:
                    error = f"{study_id} holds the very voxels of {first}: one study under two names; remove one of them"
            if error is not None or record is None:
                if self._on_bad_study == "stop":
                    raise UserError(f"{error} (or leave such studies out with --on_bad_study=skip)")
                skipped.append((study_id, error))
                continue
            record["fold"] = self._folds[study_id]
            rows.append(index_row(record, warnings))
            yield record

    def _write_shards(self, records: Iterator[dict[str, Any]]) -> tfds.core.SplitInfo:
        """Write records as they come. TFDS's writer would hold up to 1 GB, and beyond that it needs TensorFlow."""
        template = self._get_filename_template(SPLIT)
        writer = self._example_writer()
        sizes: list[list[int]] = []

        def serialized(chunk: Iterator[dict[str, Any]]) -> Iterator[tuple[int, bytes]]:
            for record in chunk:
                example = self.info.features.serialize_example(record)
                sizes[-1].append(len(example))
                yield len(sizes[-1]), example

        grid_bytes = 2 * int(np.prod(self.builder_config.grid.shape))
        per_shard = max(1, SHARD_BYTES // grid_bytes)
        unnamed = self.data_path / f"{SPLIT}-unnamed"
        for first in records:
            sizes.append([])
            chunk = itertools.chain([first], itertools.islice(records, per_shard - 1))
            writer.write(f"{unnamed}-{len(sizes) - 1}", serialized(chunk))
        if not sizes:
            raise UserError(f"{self.name}: no study could be used; see the reasons with --on_bad_study=stop")
        for shard in range(len(sizes)):  # how many there are is only known now
            path = template.sharded_filepath(shard_index=shard, num_shards=len(sizes))
            (self.data_path / f"{unnamed.name}-{shard}").rename(path)
        return tfds.core.SplitInfo(
            name=SPLIT,
            shard_lengths=[len(shard) for shard in sizes],
            num_bytes=sum(map(sum, sizes)),
            filename_template=template,
        )
