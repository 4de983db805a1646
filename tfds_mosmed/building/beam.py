"""Preparation as a Beam pipeline: the same records in the same order. Beam is imported only when it is used."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from tfds_mosmed.building.prepare_studies import Preparation, PreparedStudy
from tfds_mosmed.building.record_order import RecordFilter, order_key
from tfds_mosmed.building.sources import SourceHashes
from tfds_mosmed.building.study import Study


def examples(studies: Sequence[Study], preparation: Preparation, report_path: str) -> Any:
    """Return the pipeline that prepares studies.

    Args:
      studies: the studies to read; the workers must see the same files.
      preparation: the function from a study to its record.
      report_path: JSON file for the outcome of each study; bad studies do not stop the pipeline.

    Returns:
      A PTransform without input that yields (study id, record).
    """
    import apache_beam as beam
    from apache_beam import pvalue

    @beam.ptransform_fn
    def prepare_all(pipeline: Any) -> Any:
        prepared = (
            pipeline
            | "Studies" >> beam.Create(list(studies))
            | "Spread" >> beam.Reshuffle()
            | "Prepare" >> beam.Map(preparation.prepare)
            | "Keep" >> beam.Reshuffle()  # two branches follow, and no study must be prepared twice
        )
        reports = prepared | "WithoutVolumes" >> beam.Map(lambda study: study._replace(record=None))
        all_reports = reports | "ReportsToList" >> beam.combiners.ToList()
        _ = all_reports | "WriteReport" >> beam.Map(_write_report, report_path)
        first_ids = pvalue.AsSingleton(all_reports | "FirstOfSameVoxels" >> beam.Map(_first_ids))
        return prepared | "Records" >> beam.FlatMap(_record, first_ids)

    return prepare_all()


def read_report(report_path: str, studies: Sequence[Study]) -> Iterator[PreparedStudy]:
    """Yield the prepared studies without their records, in the order of `studies`, and delete the report."""
    path = epath.Path(report_path)
    by_id = {
        study_id: PreparedStudy(study_id, None, row, error, SourceHashes(*sources))
        for study_id, row, error, sources in json.loads(path.read_text())
    }
    path.unlink()
    for study in studies:
        yield by_id[study.study_id]


def _write_report(prepared: list[PreparedStudy], path: str) -> None:
    reports = [[study.study_id, study.row, study.error, study.sources] for study in prepared]
    epath.Path(path).write_text(json.dumps(reports))


def _first_ids(prepared: list[PreparedStudy]) -> set[str]:
    """Return the studies that become records: of those with the same voxels, the first in the records' order."""
    record_filter = RecordFilter("skip")
    for study in sorted(prepared, key=lambda study: order_key(study.study_id)):
        record_filter.accept(study)
    return {row["study_id"] for row in record_filter.rows}


def _record(study: PreparedStudy, first_ids: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    if study.record is not None and study.study_id in first_ids:
        yield study.study_id, study.record
