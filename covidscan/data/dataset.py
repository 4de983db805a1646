"""Data set of a run: records, labels and the parts of the split."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from covidscan.config import Config, DataPaths
from covidscan.data import leakage, splits
from covidscan.data.labels import Labels, assign_labels, strata
from covidscan.data.leakage import StudyKeys
from covidscan.distributed import watchdog
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.provenance import DataWarning
from covidscan.metrics.signed_json import checksum
from covidscan.models.heads import UNSCALED, Scaling
from tfds_mosmed.building.cohort import CohortSummary, summarize
from tfds_mosmed.building.index import MOST_NAMED, Listed, StudyIndex, group_warnings
from tfds_mosmed.dataset_names import ONE_STUDY_PER_PATIENT
from tfds_mosmed.scans.folders import describe_left_out


class Dataset(NamedTuple):
    """A data set as a task sees it.

    Attributes:
      name: NAME/CONFIG.
      records: random access to the records; row i is study i.
      index: metadata of each study, without its volume.
      study_ids: (study,).
      categories: (study,).
      keys: of each study, by which it is found in other data sets.
      labels: the task's label of each study, and the labels' names.
      parts: "train", "validation", "test" -> rows, sorted.
      split_hash: identifies the parts.
      fingerprint: identifies the records.
      grid: of the records, as `Grid` writes it.
      volume_shape: (slice, row, column).
      has_masks: whether the records have the fields "lesion_mask" and "has_lesion_mask".
      skipped: studies left out of the records, with the reason.
      left_out: number of files that were not read although they may hold studies, by suffix.
      dropped: studies in no part -> the reason, by id.
      was_built: whether the records existed before they were loaded; otherwise their warnings were logged just now.
    """

    name: str
    records: Sequence[dict[str, Any]]
    index: StudyIndex
    study_ids: list[str]
    categories: list[str]
    keys: StudyKeys
    labels: Labels
    parts: dict[str, np.ndarray]
    split_hash: str
    fingerprint: str
    grid: str
    volume_shape: tuple[int, int, int]
    has_masks: bool
    skipped: list[tuple[str, str]]
    left_out: dict[str, int]
    dropped: dict[str, str]
    was_built: bool

    def counts(self, part: str) -> dict[str, int]:
        """Count the studies of each label in a part; of regression all of them; of multilabel one may count twice."""
        if self.labels.is_number:
            return {self.labels.names[0]: len(self.parts[part])}
        if self.labels.is_set:
            sums = self.labels.values[self.parts[part]].sum(axis=0)
            return dict(zip(self.labels.names, sums.tolist(), strict=True))
        counts = Counter(self.labels.values[self.parts[part]].tolist())
        return {name: counts[value] for value, name in enumerate(self.labels.names)}

    def describe(self, part: str) -> str:
        """Return the number of studies of each label in a part as text, of regression with the range of its labels."""
        counts = ", ".join(f"{count} {name}" for name, count in self.counts(part).items())
        if self.labels.is_set:
            return f"{len(self.parts[part])}, with labels {counts}"
        if not self.labels.is_number:
            return counts
        values = self.labels.values[self.parts[part]]
        return f"{len(values)}, labels {values.min():g} to {values.max():g}, median {np.median(values):g}"

    def scaling(self) -> Scaling:
        """Return mean and standard deviation of the training studies' labels, of regression; otherwise 0 and 1."""
        if not self.labels.is_number:
            return UNSCALED
        values = self.labels.values[self.parts["train"]]
        return Scaling(float(values.mean()), float(values.std()))

    def check_labels(self, config: Config) -> None:
        """Check that the parts have the labels that training and evaluation need; see `splits.check_labels`."""
        if self.labels.is_number:
            splits.check_values(self.parts, self.labels.values, config.protocol)
        elif self.labels.is_set:
            splits.check_sets(self.parts, self.labels.values, self.labels.names, config.protocol)
        else:
            splits.check_labels(self.parts, self.labels.values, self.labels.names, config.protocol, config.num_folds)

    def warnings(self) -> list[DataWarning]:
        """Return the warnings about the studies' files and lungs, by kind."""
        part_of = {self.study_ids[row]: part for part, rows in self.parts.items() for row in rows}
        return [
            DataWarning(
                self.name,
                kind.text,
                kind.study_ids[:MOST_NAMED],
                dict(Counter(part_of.get(study_id, "no part") for study_id in kind.study_ids)),
            )
            for kind in group_warnings(self.index.warnings)
        ]

    def summarize(self) -> CohortSummary:
        """Summarize the studies of all parts, and those that were left out of the records."""
        patients = self.study_ids if self.name.partition("/")[0] in ONE_STUDY_PER_PATIENT else None
        return summarize(self.index, self.skipped, self.left_out, patients)

    def describe_warnings(self) -> list[str]:
        """Return the warnings and the files that were left out, a line a kind, as they are logged at the build."""
        lines = [str(kind) for kind in group_warnings(self.index.warnings)]
        return lines + ([f"left out {describe_left_out(self.left_out)}, which were not read"] if self.left_out else [])

    def check_leaks(self) -> str:
        """Check that no study and no patient is in two parts; see `leakage.check_parts`."""
        return leakage.check_parts(self.keys, self.parts, self.name, self.index.patients(), self.dropped)

    def weights(self, rows: np.ndarray) -> np.ndarray:
        """Return the weights (row,) that a table gives to studies in the loss, float32, with a mean of 1."""
        listed = [self.index.listed.get(self.study_ids[row], Listed()).weight for row in rows]
        return (np.asarray(listed) / np.mean(listed)).astype(np.float32)

    def predictions(self, rows: np.ndarray, probability: np.ndarray, task: str) -> Predictions:
        """Join predicted probabilities (row, label) with the ids, categories, labels and patients of these rows."""
        patients = self.index.patients()
        return Predictions(
            study_id=[self.study_ids[row] for row in rows],
            category=[self.categories[row] for row in rows],
            label=self.labels.values[rows],
            probability=probability,
            label_names=self.labels.names,
            task=task,
            patient=_number_patients([patients[row] for row in rows]),
        )

    def is_labelled_as(self, described: Mapping[str, Any]) -> bool:
        """Return whether the studies have the labels that they had when a run was trained on them.

        Args:
          described: what `to_json` returned then. Of earlier versions only the counts of labels can be compared.
        """
        if "categories_sha256" in described:
            return described["categories_sha256"] == self._categories_sha256()
        return all(self.counts(part) == counts for part, counts in described.get("studies", {}).items())

    def _categories_sha256(self) -> str:
        return checksum(dict(zip(self.study_ids, self.categories, strict=True)))

    def to_json(self) -> dict[str, Any]:
        """Return the part of a run's config.json that describes its data set."""
        return {
            "dataset": self.name,
            "fingerprint": self.fingerprint,
            "split_hash": self.split_hash,
            "label_names": list(self.labels.names),
            "num_train": len(self.parts["train"]),
            **({"scaling": self.scaling()._asdict()} if self.labels.is_number else {}),
            "grid": self.grid,
            "volume_shape": list(self.volume_shape),
            "studies": {part: self.counts(part) for part in self.parts},
            "categories_sha256": self._categories_sha256(),
            "skipped": [list(study) for study in self.skipped],
            "warnings": [dataclasses.asdict(warning) for warning in self.warnings()],
        }


def _number_patients(patients: Sequence[str]) -> np.ndarray | None:
    """Number the patients of studies, each unknown one, "", apart; None where none is known to have several."""
    known = [patient for patient in patients if patient]
    if len(set(known)) == len(known):
        return None
    numbers: dict[str | int, int] = {}
    return np.array([numbers.setdefault(patient or row, len(numbers)) for row, patient in enumerate(patients)])


def _known(index: StudyIndex) -> splits.Known:
    listed = [index.listed.get(study_id, Listed()) for study_id in index.study_id]
    splits_given, folds = [one.split for one in listed], [one.fold for one in listed if one.fold is not None]
    return splits.Known(
        patients=index.patients(),
        sites=index.sites(),
        splits=splits_given if all(splits_given) else (),
        folds=folds if len(folds) == len(listed) else (),
    )


def _at_tested_site(index: StudyIndex, parts: dict[str, np.ndarray]) -> dict[str, str]:
    """Return the studies that the protocol left in no part, with the reason."""
    used = set(np.concatenate([*parts.values()]).tolist())
    reason = "of a patient of the tested site, at another one"
    return {study_id: reason for row, study_id in enumerate(index.study_id) if row not in used}


def load_dataset(
    config: Config, paths: DataPaths, *, dataset: str | None = None, label_names: Sequence[str] | None = None
) -> Dataset:
    """Load a data set; records that do not exist are built first.

    Args:
      config: the run's flags.
      paths: where records and raw studies are.
      dataset: another data set than the run's own, NAME/CONFIG, as an external test: all of its studies are in the part
        "test".
      label_names: label names of the trained model; None before training.

    Returns:
      The studies with their labels and parts.

    Raises:
      UserError: the records cannot be built, the categories do not fit the task, or the studies cannot be split.
    """
    from tfds_mosmed import catalog  # imported lazily: slow, as it imports TFDS, and unused by predict

    builder = catalog.load_builder(dataset or config.dataset, paths.data_dir, paths.manual_dir, paths.table)
    if not dataset:
        splits.check_published(config.protocol, builder.published_split())
    was_built = builder.is_built()
    # Another process may be building them, and every study has a time limit of its own.
    unlimited = paths.manual_dir is not None or not was_built
    with watchdog.current().resting() if unlimited else contextlib.nullcontext():
        builder.prepare(paths.manual_dir, paths.on_bad_study, table=paths.table)
    index = builder.index()
    labels = assign_labels(config.task, index.category, config.negative_categories, label_names)
    if dataset:
        parts = {"test": np.arange(len(index.study_id))}
    else:
        parts = splits.assign_parts(
            index.study_id,
            strata(config.task, index.category, labels.values),
            config.protocol,
            seed=config.split_seed,
            num_folds=config.num_folds,
            fold=config.fold,
            published=builder.published_split(),
            known=_known(index),
        )
    keys = StudyKeys.of_index(index)
    dropped = _at_tested_site(index, parts)
    if config.on_leak == "drop" and not dataset:
        parts, copies = leakage.drop_copies(keys, parts)
        dropped |= copies
    features: Any = builder.info.features
    grid_config: Any = builder.builder_config
    return Dataset(
        name=dataset or config.dataset,
        records=builder.open_records(),
        index=index,
        study_ids=list(index.study_id),
        categories=list(index.category),
        keys=keys,
        labels=labels,
        parts=parts,
        split_hash=splits.split_hash(parts, index.study_id),
        fingerprint=builder.fingerprint(),
        grid=str(grid_config.grid),
        volume_shape=features["volume"].shape,
        has_masks="lesion_mask" in features,
        skipped=builder.skipped(),
        left_out=builder.left_out(),
        dropped=dropped,
        was_built=was_built,
    )
