"""Base class of the data sets: fields of the records, preparation on all cores or on Beam, index and checks."""

import dataclasses
import hashlib
import json
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import dataset_info

from tfds_mosmed import dataset_names, storage
from tfds_mosmed.building import beam
from tfds_mosmed.building import remote as remote_records
from tfds_mosmed.building.cohort import CohortSummary, summarize
from tfds_mosmed.building.cohorts import check_is_one, is_another, own_place
from tfds_mosmed.building.dicom_patients import add_patients
from tfds_mosmed.building.fields import record_fields
from tfds_mosmed.building.index import StudyIndex, assign_folds, group_warnings
from tfds_mosmed.building.lock import build_lock
from tfds_mosmed.building.metadata import StoredInfo
from tfds_mosmed.building.patients import tell_apart
from tfds_mosmed.building.prepare_studies import Preparation, prepare_studies
from tfds_mosmed.building.record_order import SPLIT, RecordFilter, in_record_order
from tfds_mosmed.building.shards import StudyRecords, write_shards
from tfds_mosmed.building.sources import describe_changes, hash_sources, preparation_sha256
from tfds_mosmed.building.study import Study
from tfds_mosmed.building.update import EarlierRecords, find_unchanged, replacing, restore
from tfds_mosmed.errors import UserError, one_line
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.progress import progress

ON_BAD_STUDY = ("stop", "skip")


class StudyBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Data set of CT studies. A subclass implements `_list_studies`, and what it has of its own."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {  # noqa: RUF012 - TFDS's own declaration
        "1.0.0": "First release.",
        "1.1.0": "A perceptual hash of each study, by which copies are found.",
    }
    HAS_MASKS = False
    IS_FROM_TABLE = False  # whether a --table lists them
    IS_FROM_FOLDER = False  # whether the studies are in --manual_dir, which the records are then compared with

    def __init__(self, *, file_format: str = "array_record", data_dir: epath.PathLike | None = None, **kwargs: Any):
        """See `tfds.core.DatasetBuilder`; the records are array_record, which is read without TensorFlow."""
        self._remote_root = epath.Path(data_dir) if data_dir and storage.is_remote(data_dir) else None
        local = remote_records.local_copy(data_dir) if data_dir and self._remote_root else data_dir
        self._on_bad_study = "stop"
        self._workers: int | None = None
        self._folder: str | Path | None = None
        self._table: epath.PathLike | None = None
        super().__init__(file_format=file_format, data_dir=local, **kwargs)
        self._limit: int | None = None
        self._studies: list[Study] = []
        self._own_metadata: dict[str, Any] = {}
        self._earlier: EarlierRecords | None = None
        self._found: Sequence[Study] | None = None

    # For subclasses.

    def _list_studies(self, dl_manager: tfds.download.DownloadManager) -> list[Study]:
        """List the studies without reading them; raises UserError."""
        return list(self._list_folder(self._manual_dir(dl_manager)))

    def _list_folder(self, root: Path) -> Sequence[Study]:
        """List the studies in --manual_dir without reading them, where the data set is from there; raises UserError."""
        raise NotImplementedError

    def published_split(self) -> dict[str, str] | None:
        """Return each study's part, "train" or "test", in a published split; None if there is none."""
        return None

    # For users.

    def prepare(
        self,
        manual_dir: str | Path | None = None,
        on_bad_study: str = "stop",
        workers: int | None = None,
        beam_options: Any = None,
        table: epath.PathLike | None = None,
        update: bool = False,
    ) -> None:
        """Build the records, unless they exist; those that exist must be of the studies that are in `manual_dir` now.

        Args:
          manual_dir: folder with the raw studies, for data sets that are not downloaded or generated.
          on_bad_study: "stop" raises at the first study that cannot be used; "skip" leaves such studies out and keeps
            their reasons for `skipped`.
          workers: number of processes; None for as many as cores may be used.
          beam_options: `apache_beam` pipeline options; the records are then built by a Beam pipeline.
          table: CSV file that lists the studies in `manual_dir`, for data sets of a table.
          update: whether records of other studies are replaced; only new and changed studies are prepared.

        Raises:
          UserError: one line that names the file or folder and the remedy.
        """
        if on_bad_study not in ON_BAD_STUDY:
            raise UserError(f"--on_bad_study={on_bad_study}: choose one of {', '.join(ON_BAD_STUDY)}")
        if table is not None and not (self.IS_FROM_TABLE and manual_dir):
            missing = "--manual_dir=ROOT, the folder that its paths are relative to"
            raise UserError(
                f"--table={table}: needs {missing if self.IS_FROM_TABLE else f'--dataset=ct_table/…, not {self.name}'}"
            )
        self._on_bad_study, self._workers, self._folder, self._studies = on_bad_study, workers, manual_dir, []
        self._table = table
        config = tfds.download.DownloadConfig(
            manual_dir=str(manual_dir) if manual_dir else None, beam_options=beam_options, try_download_gcs=False
        )
        if update:
            self._check_update(beam_options)
            with build_lock(Path(self.data_dir)):
                restore(Path(self.data_path))  # after an update that was killed
        if update and manual_dir is not None and self.is_built():
            self._update(Path(manual_dir), config)
        else:
            self.download_and_prepare(download_config=config)
        if manual_dir is not None and self.IS_FROM_FOLDER and not self._studies:  # built before, or by another process
            self._check_sources(Path(manual_dir))

    def place(self, manual_dir: str | Path | None, table: epath.PathLike | None = None) -> Path | None:
        """Return the `data_dir` of a cohort that has records of its own, below that of this builder; None: this one.

        The first cohort is in `data_dir` itself. Another one, which has fewer than half of the ids in these records, is
        below it, in a folder named by that of its studies.

        Raises:
          UserError: there are several cohorts, and no folder of studies is given.
        """
        if self._remote_root or not self.IS_FROM_FOLDER:
            return None
        root, records = Path(self.data_dir_root), Path(self.data_path)
        if manual_dir is None:
            check_is_one(root, records)
            return None
        own = own_place(root, manual_dir, table)
        if not (own / records.relative_to(root)).exists():
            self._table = table
            if not self.is_built() or not Path(manual_dir).is_dir():
                return None
            self._metadata_of("config")
            self._found = self._list_folder(Path(manual_dir))
            if not is_another(self._metadata, self._found):
                return None
        logging.getLogger(__name__).warning(
            "%s holds another cohort; the records of --manual_dir=%s are in --data_dir=%s", records, manual_dir, own
        )
        return own

    def is_built(self) -> bool:
        """Return whether the records exist and are complete."""
        return dataset_info.dataset_info_path(
            self.data_path
        ).exists()  # written last, in a folder that is renamed when complete

    def index(self) -> StudyIndex:
        """Return the records' small fields, in the records' order, without reading the records."""
        return StudyIndex.from_rows(self._metadata_of("index"))

    def skipped(self) -> list[tuple[str, str]]:
        """Return the studies that were left out: (study id, reason)."""
        return [(study_id, reason) for study_id, reason in self._metadata_of("skipped")]

    def left_out(self) -> dict[str, int]:
        """Return the number of files that were not read although they may hold studies, by suffix: {".zip": 2}."""
        self._metadata_of("config")
        return dict(self._metadata.get("left_out", {}))  # earlier versions did not count them

    def summary(self) -> CohortSummary:
        """Summarize the studies in the records and those that were left out."""
        return self._summarize(self.index(), self.skipped(), self.left_out())

    def open_records(self) -> StudyRecords:
        """Open the records; record i is row i of the index."""
        self._metadata_of("index")
        rows = self._metadata["index"]
        try:
            for shard in self.info.splits[SPLIT].filepaths:
                if not shard.exists():
                    raise UserError(f"{shard}: is missing; build the records again: {self.rebuild_command()}")
            source: Any = self.as_data_source(SPLIT)  # type: ignore[call-arg]
            if len(source) != len(rows):
                raise ValueError(f"{len(source)} records, {len(rows)} in metadata.json")
        except UserError:
            raise
        except Exception as error:  # of array_record: many types
            raise UserError(self._damaged(f"the records cannot be read ({one_line(error)})")) from error
        return StudyRecords(source, rows, self._damaged("{}"))

    def _summarize(self, index: StudyIndex, skipped: Sequence[tuple[str, str]], left_out: dict[str, int]):
        patients = index.study_id if self.name in dataset_names.ONE_STUDY_PER_PATIENT else None
        return summarize(index, skipped, left_out, patients)

    def _damaged(self, reason: str) -> str:
        return f"{self.data_dir}: {reason}; build the records again: {self.rebuild_command()}"

    def fingerprint(self) -> str:
        """Return a hash of the data set's name, version and configuration, and of each study's id, class and voxels.

        Where a table lists the studies, what it tells of them is part of it.
        """
        rows = [
            [row["study_id"], row["category"], row["voxels_sha256"]]
            + ([row["listed"], row["acquisition"]["patient"], row["acquisition"]["site"]] if "listed" in row else [])
            for row in self._metadata_of("index")
        ]
        text = json.dumps([self.name, str(self.version), self._metadata_of("config"), rows])
        return hashlib.sha256(text.encode()).hexdigest()

    # Called by TFDS.

    def _info(self) -> tfds.core.DatasetInfo:
        about = self.get_metadata()
        return StoredInfo(
            builder=self,
            description=about.description,
            citation=about.citation,
            features=tfds.features.FeaturesDict(record_fields(self._grid.shape, self.HAS_MASKS)),
            metadata=tfds.core.MetadataDict(),
        )

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Build the records unless they exist; see `tfds.core.DatasetBuilder`. One process builds, others wait."""
        config = kwargs.get("download_config")
        overwrites = config is not None and config.download_mode.overwrite_dataset
        if (
            overwrites or not self.is_built() or self._remote_root
        ):  # else nothing is written: `data_dir` may be read-only
            self._build(**kwargs)
        self._metadata_of("config")

    def _build(self, **kwargs: Any) -> None:
        with build_lock(Path(self.data_dir)):
            restore(Path(self.data_path))
            was_built = self.is_built()
            if self.data_path.exists() and not was_built:
                raise UserError(self._damaged("is without dataset_info.json, which is written last"))
            if self._remote_root:
                self._fetch_or_publish(self._remote_path(self._remote_root), kwargs)
            else:
                super().download_and_prepare(**kwargs)
            if not was_built:
                storage.sync(self.data_path.parent)

    def _check_update(self, beam_options: Any) -> None:
        if self._remote_root or beam_options or not self.IS_FROM_FOLDER or self._folder is None:
            raise UserError(
                "--update: records are updated in a local --data_dir, from studies in --manual_dir, and without "
                f"--beam_options; else build them again: {self.rebuild_command()}"
            )

    def _update(self, root: Path, config: tfds.download.DownloadConfig) -> None:
        """Replace the records by those of the studies in a folder, unless they are the same."""
        with build_lock(Path(self.data_dir)):
            self._found = None  # another process may have updated the records while this one waited
            self.info.read_from_directory(self.data_dir)
            metadata = {name: self._metadata_of(name) for name in ("index", "skipped")} | dict(self._metadata)
            studies = self._find(root)
            if not describe_changes(metadata, studies):
                return
            if metadata.get("prepared_by") != preparation_sha256():
                raise UserError(
                    f"--update: {self.data_dir} was built by another version, and all records must be prepared alike; "
                    f"build them again: {self.rebuild_command()}"
                )
            rows = metadata["index"]
            unchanged = find_unchanged(metadata, studies)
            if is_another(metadata, studies):
                raise UserError(
                    f"--update: most studies in {self.data_dir} are not in {root}, which is another cohort then; give "
                    f"another --data_dir, or build the records again: {self.rebuild_command()}"
                )
            print(f"{len(unchanged)} of {len(studies)} studies are as they were; preparing the rest", file=sys.stderr)
            with replacing(Path(self.data_path)) as aside:
                self._earlier = EarlierRecords(aside, rows, unchanged)
                try:
                    super().download_and_prepare(download_config=config)
                finally:
                    self._earlier = None

    def _remote_path(self, root: epath.Path) -> epath.Path:
        return root / self.data_path.relative_to(self.data_dir_root)

    def _fetch_or_publish(self, remote: epath.Path, kwargs: dict[str, Any]) -> None:
        changed = remote_records.fetch(remote, self.data_path)
        if not self.is_built():
            super().download_and_prepare(**kwargs)
            remote_records.publish(self.data_path, remote)
        elif changed:
            self.info.read_from_directory(self.data_dir)

    def _log_download_bytes(self) -> None:
        """Log nothing: TFDS would print sizes that are unknown, and there is a progress bar."""

    _log_download_done = _log_download_bytes

    @property
    def _grid(self) -> Grid:
        config: Any = self.builder_config
        return config.grid

    @property
    def _metadata(self) -> Any:
        return self.info.metadata

    def _metadata_of(self, name: str) -> Any:
        if not self.is_built():
            raise UserError(
                f"{self.name}/{self.builder_config_name} is not built in {self.data_dir_root}; call prepare()"
            )
        if not self._metadata:
            self.info.read_from_directory(self.data_dir)  # another process has built them since this builder was made
        self._check_config()
        return self._metadata[name]

    def _update_command(self) -> str:
        if self._remote_root or self._metadata.get("prepared_by") != preparation_sha256():
            return f"build the records again: {self.rebuild_command()}"
        return f"prepare what changed: {self.rebuild_command().partition(' && ')[2]} --update"

    def rebuild_command(self) -> str:
        """Return the commands that build the records again, to be copied."""
        data_dir = self._remote_root or self.data_dir_root
        folder = self._folder or ("FOLDER" if self.IS_FROM_FOLDER else None)
        flags = {"dataset": f"{self.name}/{self.builder_config_name}", "data_dir": data_dir, "manual_dir": folder}
        if self.IS_FROM_TABLE:
            flags["table"] = self._table or "FILE"
        if self._on_bad_study != ON_BAD_STUDY[0]:
            flags["on_bad_study"] = self._on_bad_study
        given = [f"--{name}={value}" for name, value in flags.items() if value]
        removed = self._remote_path(self._remote_root) if self._remote_root else self.data_path
        return f"{storage.remove_command(removed)} && {shlex.join(['python', '-m', 'covidscan.build', *given])}"

    def _find(self, root: Path) -> list[Study]:
        """List the studies in a folder, once where `place` has just done so."""
        found, self._found = self._found, None
        return add_patients(self._list_folder(root) if found is None else found)

    def _check_sources(self, root: Path) -> None:
        """Check that the records were made from the studies in a folder; raises UserError with the way out."""
        if not root.is_dir():
            raise UserError(
                f"--manual_dir={root}: is not a folder, so the records in {self.data_dir} cannot be compared with it; "
                f"give the folder of the studies, or --data_dir={self._remote_root or self.data_dir_root} "
                "--manual_dir= to use the records as they are"
            )
        if changes := describe_changes(self._metadata, self._find(root)):
            given = f"--table={self._table}: does not list" if self._table else f"--manual_dir={root}: does not hold"
            raise UserError(
                f"{given} the studies that {self.data_dir} was built from ({changes}); give "
                f"another --data_dir, or {self._update_command()}"
            )
        if "sources" not in self._metadata:
            logging.getLogger(__name__).warning(
                "%s was built by an earlier version, which did not store what was in the files: other ones under the "
                "same names are not noticed; to be sure, build the records again: %s",
                self.data_dir,
                self.rebuild_command(),
            )

    def _check_config(self) -> None:
        here, there = self._config(), self._metadata["config"]
        if here != there:
            shown = [", ".join(f"{k}={v}" for k, v in sorted(config.items())) for config in (there, here)]
            raise UserError(
                f"{self.data_dir}: was built with {shown[0]}, not with {shown[1]}; give another name or --data_dir, or "
                f"build the records again: {self.rebuild_command()}"
            )

    def _generate_splits(self, dl_manager, download_config) -> list[tfds.core.SplitInfo]:
        self._limit = download_config.max_examples_per_split
        record_filter = RecordFilter(self._on_bad_study)
        if download_config.beam_options or download_config.beam_runner:
            splits = super()._generate_splits(dl_manager, download_config)
            for study in beam.read_report(self._report_path(), self._studies):
                record_filter.accept(study)
        else:
            splits = [self._prepare_and_write(self._plan(dl_manager), record_filter)]
        rows, skipped = record_filter.rows, record_filter.skipped
        if not rows:
            raise UserError(f"{self.name}: no study could be used; the first: {skipped[0][1]}")
        index = StudyIndex.from_rows(rows)
        self._finish(index, skipped)
        for kind in group_warnings(index.warnings):
            logging.getLogger(__name__).warning("%s: %s", self.name, kind)
        self._metadata.clear()
        self._metadata.update(index=rows, skipped=skipped, config=self._config(), **self._own_metadata)
        if self.IS_FROM_FOLDER:
            # Of a study that took its reader down there is no hash yet.
            hashed = {
                study.study_id: record_filter.sources[study.study_id] or hash_sources(study) for study in self._studies
            }
            self._metadata["sources"] = hashed
            self._metadata["prepared_by"] = preparation_sha256()
        for shortcut in self._summarize(index, skipped, self._metadata.get("left_out", {})).shortcuts:
            logging.getLogger(__name__).warning("%s: likely shortcut: %s", self.name, shortcut)
        return list(splits)

    def _prepare_and_write(self, preparation: Preparation, record_filter: RecordFilter) -> tfds.core.SplitInfo:
        title = f"Preparing {self.name}/{self.builder_config_name}"
        prepare = self._earlier.prepare_others if self._earlier else prepare_studies
        with prepare(self._studies, preparation, self._workers) as prepared:
            studies = progress(prepared, len(self._studies), title)
            records = (study.record for study in studies if record_filter.accept(study) and study.record)
            template = self._get_filename_template(SPLIT)
            try:
                return write_shards(records, self.info.features, template, self._example_writer())
            except RuntimeError as error:  # raised by array_record when the disk is full
                reason = str(error).partition(";")[0]
                raise UserError(
                    f"{self.data_dir_root}: cannot be written ({reason}); make room there or give another --data_dir"
                ) from error

    def _split_generators(self, dl_manager):
        """Return the Beam pipeline; without Beam, `_prepare_and_write` does its work."""
        preparation = self._plan(dl_manager)
        return {SPLIT: self._generate_examples(preparation)}

    def _generate_examples(self, preparation: Preparation):
        return beam.examples(self._studies, preparation, self._report_path())

    def _plan(self, dl_manager) -> Preparation:
        self._studies = in_record_order(add_patients(self._list_studies(dl_manager)))[: self._limit]
        patients = tell_apart([getattr(study, "patient", "") for study in self._studies])
        folds = assign_folds([s.study_id for s in self._studies], [s.category for s in self._studies], patients)
        return Preparation(self._grid, self.HAS_MASKS, folds)

    def _report_path(self) -> str:
        return str(self.data_path / "outcomes.json")

    def _manual_dir(self, dl_manager) -> Path:
        """Return --manual_dir; raises UserError with instructions for getting the data."""
        try:
            return Path(dl_manager.manual_dir)
        except (AssertionError, OSError) as error:
            given = f"--manual_dir={self._folder}: is not a folder with files in it"
            if self._folder is None:
                given = f"--manual_dir is not given, and no studies are in {dl_manager._manual_dir}"
            raise UserError(f"{given}: {self.MANUAL_DOWNLOAD_INSTRUCTIONS}") from error

    def _finish(self, index: StudyIndex, skipped: list[tuple[str, str]]) -> None:
        """Inspect all studies before they are stored; `_own_metadata` is stored with them."""

    def _config(self) -> dict[str, Any]:
        plain = {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
        config: Any = self.builder_config
        own = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in plain}
        return {name: str(value) for name, value in own.items()}
