"""Reading of all studies of a cohort, as a build does it, without writing records."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from tfds_mosmed.building.cohort import CohortSummary, summarize
from tfds_mosmed.building.dicom_patients import add_patients
from tfds_mosmed.building.index import StudyIndex
from tfds_mosmed.building.prepare_studies import Preparation, prepare_studies
from tfds_mosmed.building.record_order import RecordFilter
from tfds_mosmed.inspection.listing import Cohort
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.progress import progress

GRID = Grid.parse("128x128x32")
Picture = TypeVar("Picture")


class Examined(NamedTuple):
    """Studies of a cohort that were read.

    Attributes:
      index: of those that can be used, in the order of the cohort.
      skipped: (study id, reason) of the others.
      pictures: of each study in the index, as the caller made them.
      summary: of all.
    """

    index: StudyIndex
    skipped: list[tuple[str, str]]
    pictures: list[Any]
    summary: CohortSummary


def examine(cohort: Cohort, picture: Callable[[dict[str, Any]], Picture]) -> Examined:
    """Read the studies of a cohort in worker processes.

    Args:
      cohort: the studies.
      picture: makes a picture of a record, of which nothing else is kept.

    Raises:
      UserError: if a process cannot be started.
    """
    record_filter, pictures = RecordFilter("skip"), []
    studies = add_patients(cohort.studies)
    preparation = Preparation(GRID, False, dict.fromkeys((study.study_id for study in studies), 0))
    with prepare_studies(studies, preparation, workers=None) as prepared:
        for study in progress(prepared, len(studies), "Reading"):
            if record_filter.accept(study) and study.record:
                pictures.append(picture(study.record))
    index, skipped = StudyIndex.from_rows(record_filter.rows), record_filter.skipped
    return Examined(index, skipped, pictures, summarize(index, skipped, cohort.left_out))
