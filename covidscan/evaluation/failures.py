"""Evidence of a network in the studies that it got wrong, at which the report opens them."""

from collections.abc import Mapping

import jax
import numpy as np
from absl import logging

from covidscan.evaluation.evaluation_set import ScoredStudies
from covidscan.explanation.evidence import peaks
from covidscan.explanation.saliency import SaliencyMapper
from covidscan.metrics.results import Evaluation
from covidscan.metrics.thresholds import is_explained
from covidscan.report import slices
from covidscan.report.montage import ShownStudy
from covidscan.trained_models import ensemble
from tfds_mosmed.errors import UserError
from tfds_mosmed.progress import progress


def with_evidence(
    volumes: Mapping[str, ShownStudy], evaluation: Evaluation, scored: ScoredStudies
) -> dict[str, ShownStudy]:
    """Add the network's evidence to the failures that the report shows and in which no lesion is marked.

    It stays unknown where several networks predicted, as those of folds, where maps do not explain the task or the
    network exposes no features, and where the Grad-CAM does not fit into memory: a report without it is better than
    none.

    Args:
      volumes: study id -> study, on the network's grid.
      evaluation: whose failures they are.
      scored: the network.

    Returns:
      The same studies.
    """
    names = [each.study_id for each in slices.viewed(evaluation.failures, volumes)]
    unmarked = [name for name in names if not volumes[name].is_marked]
    found = dict(volumes)
    of_label = {}
    if evaluation.task == "multilabel":  # a failure is of the label that got the wrong answer
        of_label = {each.study_id: evaluation.label_names.index(each.category) for each in evaluation.failures}
    if not unmarked or len(scored.members) > 1 or not is_explained(evaluation.task):
        return found
    try:
        mapper = SaliencyMapper(ensemble.of_network(scored.members[0], scored.operating_point))
        for name in progress(unmarked, len(unmarked), "Locating the network's evidence in its failures"):
            volume, spacing_mm = np.asarray(volumes[name].volume), volumes[name].spacing_mm
            cam, _ = mapper.grad_cam(volume, of_label.get(name))
            found[name] = volumes[name]._replace(evidence=peaks(volume, spacing_mm, cam))
    except (UserError, jax.errors.JaxRuntimeError) as error:
        logging.warning("the failures in the report open at the slice with most dense lung: %s", error)
    return found
