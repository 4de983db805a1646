"""Judging a trained network: load studies, use what validation chose, predict each once, report."""

import dataclasses
import shlex
import sys
import time
from typing import Any

from etils import epath

from covidscan.config import DataPaths
from covidscan.distributed import devices, processes
from covidscan.evaluation import provenance, summary, verify
from covidscan.evaluation.evaluation_set import (
    EvaluationOptions,
    EvaluationSet,
    ScoredStudies,
    load_judged,
    own_if_built,
    read_table,
)
from covidscan.metrics.results import TestAccess
from covidscan.report import console, write
from covidscan.runs import operating_points, test_log
from covidscan.runs.log import read_log
from covidscan.runs.operating_points import OperatingPoint
from covidscan.trained_models import restore
from covidscan.trained_models.restore import RestoredModel


def evaluate(
    workdir: epath.PathLike,
    *,
    split: str = "test",
    checkpoint: str = "best",
    dataset: str | None = None,
    paths: DataPaths | None = None,
    wishes: EvaluationOptions = EvaluationOptions(),  # noqa: B008 - it cannot change
) -> None:
    """Evaluate a run on a split of its own data set, or on all of another one as an external test.

    All processes of a job predict; process 0 writes the evaluation.

    Args:
      workdir: the run; nothing else is needed.
      split: "train", "validation" or "test".
      checkpoint: "best" by validation AUROC, "latest" or a step.
      dataset: another data set, NAME/CONFIG, on the same grid; it is judged whole, `split` says nothing then.
      paths: where the data are; None: where they were when the run was trained.
      wishes: what else to tell.

    Raises:
      UserError: something that the user can mend is in the way.
    """
    devices.enable_compilation_cache()
    network = restore.restore(workdir, checkpoint)
    judged = load_judged(network, split, checkpoint, dataset, paths)
    wishes = settled(judged, wishes)
    chosen = choices_for(network, judged, wishes)
    if judged.part == "test":
        record_test_access(network, judged, wishes)
    start = time.perf_counter()
    predictions = chosen.apply(network.predict(judged.studies, judged.studies.parts[judged.part]))
    seconds = time.perf_counter() - start
    if processes.is_process_0():
        answers = ScoredStudies(predictions, chosen.threshold, dataclasses.asdict(chosen), [network], seconds)
        own = own_if_built(network) if judged.external else judged.studies
        report(judged, answers, wishes, provenance.baselines_and_shortcuts(judged, answers, own))


def settled(judged: EvaluationSet, wishes: EvaluationOptions) -> EvaluationOptions:
    """Complete the wishes, and look at what they name before a test study is looked at; all processes call it.

    Raises:
      UserError: a wish cannot be fulfilled.
    """
    if wishes.verify:
        table = read_table(judged.folder) or {"context": {"wishes": {}}}
        wishes = EvaluationOptions(**table["context"]["wishes"], verify=True)
    provenance.check_wishes(judged, wishes)
    return wishes


def choices_for(network: RestoredModel, judged: EvaluationSet, wishes: EvaluationOptions) -> OperatingPoint:
    """Give what is frozen for a checkpoint, or choose it; to verify, choose it again and compare.

    All processes call it.

    Raises:
      UserError: something else than the validation studies chose what is frozen.
    """

    def own():
        return network.own_dataset() if judged.external else judged.studies

    chosen = network.choices(own, freeze=not wishes.verify)
    if wishes.verify:
        verify.verify_choices(network.workdir / operating_points.FILE, chosen, network.choose(own()))
    return chosen


def record_test_access(network: RestoredModel, judged: EvaluationSet, wishes: EvaluationOptions) -> None:
    """Record in the workdir that test studies are about to be looked at; process 0 does."""
    if processes.is_process_0():
        config = network.experiment.config
        access = TestAccess(
            date=provenance.now(),
            dataset=judged.studies.dataset,
            checkpoint=network.step,
            command=shlex.join(["python", "-m", f"covidscan.{epath.Path(sys.argv[0]).stem}", *sys.argv[1:]]),
            verify=wishes.verify,
            fold=config.fold if config.protocol == "kfold" and not judged.external else None,
        )
        test_log.record(judged.workdir, access)


def report(judged: EvaluationSet, answers: ScoredStudies, wishes: EvaluationOptions, beside: dict[str, Any]) -> None:
    """Judge answers and write the evaluation, or compare it with the one that stands; process 0 does.

    Args:
      judged: the studies.
      answers: of the network or networks.
      wishes: what else to tell.
      beside: "baselines", "shortcuts" and "repeats" of `judge.judge`; what is missing is computed.

    Raises:
      UserError: what stands differs.
    """
    studies, (predictions, threshold, operating_point, members, _) = judged.studies, answers
    beside = {
        "subgroups": provenance.subgroups_of(judged, answers, wishes.metadata),
        "comparison": provenance.compared(judged, answers, wishes.compare) if wishes.compare else None,
        **beside,
    }
    result = summary.judge(predictions, threshold, operating_point, **beside)
    if wishes.repeats:
        result["repeats"] = provenance.repeated(judged, answers, result["figures"], wishes.repeats)
    if wishes.verify:
        verify.verify(judged.folder, provenance.computed_on(), predictions.to_csv(threshold), result)
        print(f"{judged.folder}: predictions and figures are those of checkpoint and records")
        return
    rows = {studies.study_ids[row]: int(row) for row in studies.parts[judged.part]}
    shown = {name: studies.records[rows[name]] for name in write.shown_studies(predictions, threshold, result)}
    curves = members[0].workdir / "curves.png"
    opened = [
        line
        for workdir in dict.fromkeys([judged.workdir, *(member.workdir for member in members)])
        for line in test_log.read(workdir)
    ]
    write.write_evaluation(
        judged.folder,
        predictions,
        threshold,
        result,
        provenance.context(judged, answers, wishes, opened),
        {name: (record["volume"], record["spacing_mm"]) for name, record in shown.items()},
        history=read_log(members[0].workdir),
        curves=curves,
    )
    print(
        f"{studies.dataset}, {judged.part}: checkpoint {judged.checkpoint} (step {members[0].step}) of {judged.workdir}"
    )
    print(console.evaluation_text(result))
    print(f"\nReport:          {judged.folder / 'report.html'}")
    print(f"Predictions:     {judged.folder / 'predictions.csv'}")
    print(f"Learning curves: {curves}")
