"""The preparation as a Beam pipeline: the same records in the same order. Beam is imported when it is used."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from tfds_mosmed.building.prepare_studies import Preparation, PreparedStudy
from tfds_mosmed.building.record_order import order_key
from tfds_mosmed.building.study import Study


def examples(studies: Sequence[Study], preparation: Preparation, report_path: str) -> Any:
    """Make the pipeline.

    Args:
      studies: what to read; the workers must see the same files.
      preparation: how.
      report_path: a JSON file that tells what became of each study; bad studies do not stop the pipeline.

    Returns:
      A PTransform from nothing to (study id, record).
    """
    import apache_beam as beam
    from apache_beam import pvalue

    @beam.ptransform_fn
    def prepare_all(pipeline: Any) -> Any:
        outcomes = (
            pipeline
            | "Studies" >> beam.Create(list(studies))
            | "Spread" >> beam.Reshuffle()
            | "Prepare" >> beam.Map(preparation.of)
            | "Keep" >> beam.Reshuffle()  # what follows branches; no study is to be prepared twice
        )
        reports = outcomes | "WithoutVolumes" >> beam.Map(lambda outcome: outcome._replace(record=None))
        everything = reports | "ReportsToList" >> beam.combiners.ToList()
        _ = everything | "WriteReport" >> beam.Map(_write_report, report_path)
        firsts = pvalue.AsSingleton(everything | "FirstOfSameVoxels" >> beam.Map(_first_ids))
        return outcomes | "Records" >> beam.FlatMap(_record, firsts)

    return prepare_all()


def read_report(report_path: str, studies: Sequence[Study]) -> Iterator[PreparedStudy]:
    """Yield the outcomes, without the records, in the order of the studies, and delete the report."""
    path = epath.Path(report_path)
    by_id = {report[0]: PreparedStudy(report[0], None, *report[1:]) for report in json.loads(path.read_text())}
    path.unlink()
    for study in studies:
        yield by_id[study.study_id]


def _write_report(outcomes: list[PreparedStudy], path: str) -> None:
    epath.Path(path).write_text(json.dumps([[o.study_id, o.row, o.error] for o in outcomes]))


def _first_ids(outcomes: list[PreparedStudy]) -> set[str]:
    """The studies that become records: of those with the same voxels, the first in the records' order."""
    first_with: dict[str, str] = {}
    for outcome in sorted(outcomes, key=lambda outcome: order_key(outcome.study_id)):
        if outcome.row is not None:
            first_with.setdefault(outcome.row["voxels_sha256"], outcome.study_id)
    return set(first_with.values())


def _record(outcome: PreparedStudy, firsts: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    if outcome.record is not None and outcome.study_id in firsts:
        yield outcome.study_id, outcome.record
