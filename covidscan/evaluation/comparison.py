"""Comparison of two runs on the same studies, and the spread over several runs."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from covidscan.config import FREE_TO_CHANGE
from covidscan.data import leakage
from covidscan.evaluation.evaluation_set import EvaluationSet, ScoredStudies
from covidscan.evaluation.provenance import studies_flag
from covidscan.metrics import intervals, metrics_json, multilabel, paired_tests, regression, roc, thresholds
from covidscan.metrics.predictions import Predictions, label_text
from covidscan.metrics.provenance import Provenance
from covidscan.metrics.results import Comparison, Difference, Evaluation, Member, Metrics, Repeats
from covidscan.runs import checkpoints
from covidscan.runs.workdir import CROSS_VALIDATION, OUT_OF_FOLD, first_run, run_id
from tfds_mosmed import storage
from tfds_mosmed.errors import NOT_AS_WRITTEN, UserError, one_line

_SAME_STUDIES = "evaluate both runs on the same --split or --dataset, with the same --protocol and --split_seed"


class StoredEvaluation(NamedTuple):
    """An evaluation that was written before.

    Attributes:
      evaluation: its results.
      provenance: what they were made from.
      predictions: of the same studies.
      decision: (study,), the predicted labels.
    """

    evaluation: Evaluation
    provenance: Provenance
    predictions: Predictions
    decision: np.ndarray


def read_evaluation(folder: epath.PathLike, owner: str | None) -> StoredEvaluation | None:
    """Read an evaluation; None where there is none.

    Args:
      folder: of the evaluation.
      owner: id of the run that was evaluated.

    Raises:
      UserError: it is not as it was written.
    """
    stored = metrics_json.read(folder, owner)
    if stored is None:
        return None
    content = metrics_json.read_file(folder, "predictions.csv")
    try:
        text = content.decode()
        predictions = Predictions.from_csv(text, stored[0].task)
        return StoredEvaluation(*stored, predictions, predictions.read_decisions(text))
    except NOT_AS_WRITTEN as error:
        path, reason = epath.Path(folder) / "predictions.csv", one_line(error).removesuffix(": evaluate again")
        raise UserError(f"{path} is not as it was written ({reason}): evaluate again") from error


def compare(
    mine: Predictions,
    other: Predictions,
    my_decision: np.ndarray,
    other_decision: np.ndarray,
    other_name: str,
    name: str | None = None,
) -> Comparison:
    """Test whether two runs differ on the same studies, matched by study id.

    Predictions do not show whether the other run was trained on some of them: compare the split hashes first.

    Args:
      mine: of the evaluated run.
      other: of the run that it is compared with.
      my_decision: (study,), the labels predicted by `mine`, see `thresholds.decide`.
      other_decision: (study,), those predicted by `other`, at its own operating point.
      other_name: the other run, as the user named it.
      name: of the evaluated run; None: it is this run, in whose report the comparison is.

    Returns:
      "accuracy" (McNemar) and, for a yes-or-no question with two studies of each answer or more, "auroc" (DeLong).
      Severity is compared by its first question, graver than the first grade or not; classes by accuracy alone.
      Multilabel has "auroc:LABEL" (DeLong) of each label, "macro_auroc" (bootstrap), and "exact_match" (McNemar).
      Regression by its errors, see `regression.compare_errors`.

    Raises:
      UserError: the runs differ in task, labels or studies.
    """
    order = _match(mine, other, f"--compare={other_name}")
    if mine.task == "regression":
        found = regression.compare_errors(mine.label, mine.probability[:, 0], other.probability[order, 0])
        description = f"{name or 'This run'} minus {other_name}, on the same {len(order)} studies."
        description += "" if found else " They are too few for a test."
        return Comparison(other_name, len(order), found, description)
    metrics = _compare_aurocs(mine, other.probability[order])
    mcnemar = paired_tests.mcnemar(
        _right(mine.task, mine.label, my_decision), _right(mine.task, mine.label, other_decision[order])
    )
    metrics["exact_match" if mine.task == "multilabel" else "accuracy"] = _difference(mcnemar, "McNemar")
    question = {
        "severity": f" Both are of {mine.label_names[0]} against the other grades.",
        "multilabel": " A study is right where all of its labels are.",
    }.get(mine.task, "")
    first, second = ("this run", "the other") if name is None else (name, other_name)
    alone = "study is" if mcnemar.only_a == 1 else "studies are"
    description = (
        f"{name or 'This run'} minus {other_name}, on the same {len(order)} studies, each run at its own operating "
        f"point: {mcnemar.only_a} {alone} right in {first} alone, {mcnemar.only_b} in {second} alone.{question}"
    )
    return Comparison(other_name, len(order), metrics, description)


def _compare_aurocs(mine: Predictions, other: np.ndarray) -> dict[str, Difference]:
    """Compare areas under the ROC curve; other (study, label) are the probabilities of the other run."""
    if mine.task == "classes":
        return {}
    found: dict[str, Difference] = {}
    names = ["auroc"]
    if mine.task == "multilabel":
        found |= multilabel.compare_macro_aurocs(mine.label, mine.probability, other)
        names = [f"auroc:{name}" for name in mine.label_names]
    questions = (thresholds.dichotomies(mine.task, mine.label, one) for one in (mine.probability, other))
    for name, (positive, my_score), (_, other_score) in zip(names, *questions, strict=False):
        if 2 <= positive.sum() <= len(positive) - 2:  # DeLong's variance needs two studies of each answer
            found[name] = _difference(roc.delong_test(positive, my_score, other_score, mine.patient), "DeLong")
    return found


def _match(mine: Predictions, other: Predictions, flag: str) -> np.ndarray:
    """Return the index in the other run of each study, (study,); UserError where the runs do not fit."""
    if (mine.task, mine.label_names) != (other.task, other.label_names):
        there, here = (f"{run.task} ({', '.join(run.label_names)})" for run in (other, mine))
        raise UserError(f"{flag}: its task is {there}, this run's {here}: compare runs of one task")
    indices = {study_id: index for index, study_id in enumerate(other.study_id)}
    missing = [study_id for study_id in mine.study_id if study_id not in indices]
    if missing:
        raise UserError(f"{flag}: study {missing[0]} was evaluated here but not there: {_SAME_STUDIES}")
    mine_alone = set(mine.study_id)
    extra = [study_id for study_id in other.study_id if study_id not in mine_alone]
    if extra:
        raise UserError(f"{flag}: study {extra[0]} was evaluated there but not here: {_SAME_STUDIES}")
    order = np.asarray([indices[study_id] for study_id in mine.study_id])
    differ = (mine.label != other.label[order]).reshape(len(order), -1).any(axis=1)
    if differ.any():
        index = int(differ.argmax())
        here, there = label_text(mine, index), label_text(other, order[index])
        categories = "" if mine.task == "regression" else "with the same --negative_categories "
        raise UserError(
            f"{flag}: study {mine.study_id[index]} is {there} there and {here} here: compare runs {categories}on the "
            "same records"
        )
    return order


def _right(task: str, label: np.ndarray, decision: np.ndarray) -> np.ndarray:
    """Return which studies are predicted right: (study,), bool; of severity, whether graver than the first grade."""
    right = (decision > 0) == (label > 0) if task == "severity" else decision == label
    return right.reshape(len(label), -1).all(axis=1)


def _difference(test: paired_tests.McNemar | roc.DeLongTest, method: str) -> Difference:
    low, high = test.interval
    return Difference(float(test.difference), (float(low), float(high)), float(test.p_value), method)


def compare_with(evaluation_set: EvaluationSet, scored: ScoredStudies, other: str) -> Comparison:
    """Compare with another run on the same studies; see `read_other` and `compare`."""
    mine, theirs = scored.predictions, read_other("compare", other, evaluation_set)
    if mine.task == "regression":
        decision = theirs.decision
    else:
        decision = thresholds.decide(mine.task, mine.probability, scored.threshold)
    return compare(mine, theirs.predictions, decision, theirs.decision, other)


def check_is_another(workdir: str, evaluation_set: EvaluationSet) -> None:
    """Check that --compare names another run than the evaluated one; an ensemble may be compared with a member.

    Raises:
      UserError: it is the same, whatever its path.
    """
    if not evaluation_set.ensemble and os.path.realpath(workdir) == os.path.realpath(evaluation_set.workdir):
        raise UserError(f"--compare={workdir}: it is the evaluated run itself: name another run, or leave it out")


def read_other(flag: str, workdir: str, evaluation_set: EvaluationSet) -> StoredEvaluation:
    """Read the evaluation of another run on the same studies, at its best checkpoint.

    Args:
      flag: that named the run.
      workdir: of the run.
      evaluation_set: the studies.

    Raises:
      UserError: the run was not evaluated on them, or its parts are others, so that it may have been trained on them.
    """
    storage.check(workdir)
    if evaluation_set.checkpoint != "best":
        raise UserError(
            f"--{flag} takes the best checkpoint of the other run, and this one's is --checkpoint="
            f"{evaluation_set.checkpoint}: leave one of both flags out"
        )
    folder = evaluation_set.folder_of(workdir, "best")
    stored = read_evaluation(folder, run_id(workdir))
    if stored is None:
        pooled = evaluation_set.part == OUT_OF_FOLD
        if pooled != (epath.Path(workdir) / CROSS_VALIDATION).exists() and not evaluation_set.external:
            raise UserError(f"--{flag}={workdir}: compare runs with runs, cross-validations with cross-validations")
        raise UserError(
            f"--{flag}={workdir}: {folder} does not exist: "
            f"first python -m covidscan.evaluate --workdir={workdir}{studies_flag(evaluation_set)}"
            + (f" --tta={evaluation_set.tta}" if evaluation_set.tta else "")
        )
    if not evaluation_set.external and stored.provenance.split_hash != evaluation_set.dataset.split_hash:
        raise UserError(
            f"--{flag}={workdir}: its studies are split in another way than this run's, so it may have been trained on "
            "those evaluated here: train both with the same --protocol, --fold, --split_seed and --data_dir"
        )
    _check_same_records(flag, workdir, stored.provenance, evaluation_set)
    if is_outdated(stored.provenance, first_run(workdir)):
        raise UserError(
            f"--{flag}={workdir}: {folder} is of step {stored.provenance.checkpoint}, which was the best until it was "
            "trained on: evaluate it again"
        )
    return stored


def _check_same_records(flag: str, workdir: epath.PathLike, other: Provenance, evaluation_set: EvaluationSet) -> None:
    """Check that studies of the same names are the same ones: folders of files often have the same names in them."""
    dataset = evaluation_set.dataset
    if other.fingerprint == dataset.fingerprint:
        return
    if evaluation_set.external or not leakage.are_those_of(first_run(workdir), dataset.keys):
        raise UserError(
            f"--{flag}={workdir}: it was evaluated on other records of {dataset.name}, whatever their names: evaluate "
            "both with the same --data_dir, --manual_dir and --table"
        )


def is_outdated(stored: Provenance, workdir: epath.PathLike) -> bool:
    """Return whether an evaluation of the best checkpoint is of one that is no longer the best.

    Args:
      stored: provenance of the evaluation.
      workdir: of the run; of a cross-validation that of its first fold.
    """
    if stored.checkpoint_choice != "best":
        return False
    return checkpoints.best_step(workdir) not in (None, stored.checkpoint)


def summarize_repeats(
    evaluation_set: EvaluationSet, scored: ScoredStudies, metrics: Metrics, others: Sequence[str]
) -> Repeats:
    """Summarize this run's metrics with those of its repeats; see `summarize_runs` and `read_other`.

    Raises:
      UserError: a run differs in more than its seed, or was evaluated on other studies.
    """
    members = {str(evaluation_set.workdir): metrics}
    known = {run_id(evaluation_set.workdir)}
    mine = _without_seed(scored.members[0].run["config"])
    for other in others:
        stored = read_other("repeats", other, evaluation_set)
        theirs = _without_seed(stored.provenance.config)
        differing = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
        if differing:
            raise UserError(
                f"--repeats={other}: it differs from this run in more than its seed (--{', --'.join(differing)}): "
                "use --compare for runs of other flags"
            )
        if run_id(other) in known:
            raise UserError(f"--repeats={other}: names a run twice, or the evaluated one: give each run once")
        known.add(run_id(other))
        if set(stored.predictions.study_id) != set(evaluation_set.study_ids):
            raise UserError(f"--repeats={other}: it was evaluated on other studies: evaluate both on the same ones")
        members[str(epath.Path(other))] = stored.evaluation.metrics
    return summarize_runs(members, "runs")


def _without_seed(config: dict[str, Any]) -> dict[str, Any]:
    """Return a run's flags without those in which its repeats may differ."""
    return {name: value for name, value in config.items() if name not in ("seed", *FREE_TO_CHANGE)}


def summarize_runs(members: Mapping[str, Metrics], kind: str) -> Repeats:
    """Summarize folds, or runs of several seeds.

    Args:
      members: name of a run -> its metrics, of one task.
      kind: "folds" or "runs".

    Returns:
      The members and the spread of each metric; metrics defined in none are left out.
    """
    runs = [Member(run, {name: metric.value for name, metric in metrics.items()}) for run, metrics in members.items()]
    found = {}
    for name in dict.fromkeys(name for run in runs for name in run.metrics):
        values = [run.metrics.get(name) for run in runs]
        if any(value is not None for value in values):
            found[name] = intervals.spread(values)
    return Repeats(kind, runs, found)
