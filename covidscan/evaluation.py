"""Judging a trained network: load studies, check for leaks, use what validation chose, predict each once, report."""

import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath

from covidscan import choices, evidence, hosts, judge, leaks, openings, parallel, trained, verification
from covidscan.config import DataPaths
from covidscan.data import Studies, load_studies
from covidscan.judged import Answers, Judged
from covidscan.run_log import read_log
from covidscan.trained import Trained
from tfds_mosmed import catalog
from tfds_mosmed.errors import UserError


class Wishes(NamedTuple):
    """What a reader wants to know besides the figures.

    Attributes:
      metadata: CSV file with a column study_id; its other columns make subgroups.
      compare: workdir of another run, tested against this one on the same studies.
      repeats: workdirs of runs of the same experiment with other seeds, summed up with this one.
      verify: nothing is written; what stands is recomputed and compared.
    """

    metadata: str | None = None
    compare: str | None = None
    repeats: Sequence[str] = ()
    verify: bool = False


def evaluate(
    workdir: epath.PathLike,
    *,
    split: str = "test",
    checkpoint: str = "best",
    dataset: str | None = None,
    paths: DataPaths | None = None,
    wishes: Wishes = Wishes(),  # noqa: B008 - it cannot change
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
    parallel.keep_compiled_programs()
    network = trained.restore(workdir, checkpoint)
    judged = load_judged(network, split, checkpoint, dataset, paths)
    chosen = network.choices(lambda: own_studies(network))
    if wishes.verify:
        own = own_studies(network) if judged.external else judged.studies
        verification.verify_choices(network.workdir / choices.FILE, chosen, network.choose(own))
    if judged.part == "test":
        record_opening([network], judged)
    start = time.perf_counter()
    predictions = chosen.apply(network.predict(judged.studies, judged.studies.parts[judged.part]))
    seconds = time.perf_counter() - start
    if hosts.is_first():
        answers = Answers(predictions, chosen.threshold, dataclasses.asdict(chosen), [network], seconds)
        own = own_if_built(network) if judged.external else judged.studies
        report(judged, answers, wishes, evidence.baselines_and_shortcuts(judged, answers, own))


def own_studies(network: Trained, paths: DataPaths | None = None) -> Studies:
    """Load the data set that a run was trained on.

    Args:
      network: of the run.
      paths: where the data are; None: where they were when the run was trained.

    Raises:
      UserError: it is not there, or holds other studies now.
    """
    data, paths = network.run["data"], paths or DataPaths(**network.run["paths"])
    studies = load_studies(network.experiment.config, paths, label_names=data["label_names"])
    if studies.split_hash != data["split_hash"]:
        raise UserError(
            f"--data_dir={paths.data_dir} holds other studies of {studies.dataset} than the run was trained on; "
            "its parts are not the run's: use the --data_dir of the training"
        )
    return studies


def own_if_built(network: Trained) -> Studies | None:
    """Load the data set that a run was trained on where its records stand; an external test does not need them."""
    builder = catalog.load_builder(network.run["data"]["dataset"], network.run["paths"]["data_dir"])
    return own_studies(network) if builder.is_built() else None


def load_judged(network: Trained, split: str, checkpoint: str, dataset: str | None, paths: DataPaths | None) -> Judged:
    """Load what is judged; see `evaluate`.

    Raises:
      UserError: it does not fit the run, or studies of it trained or chose the network.
    """
    data = network.run["data"]
    if dataset in (None, network.run["config"]["dataset"]):
        studies = own_studies(network, paths)
        check_tested([network], studies)
        leak_check = leaks.check_parts(studies.marks, studies.parts, studies.dataset)
        return Judged(network.workdir, studies, split, False, checkpoint, leak_check)
    paths = paths or DataPaths(**network.run["paths"])
    studies = load_studies(network.experiment.config, paths, dataset=dataset, label_names=data["label_names"])
    if list(studies.volume_shape) != data["volume_shape"]:
        raise UserError(
            f"--dataset={studies.dataset} has volumes of {studies.volume_shape}, the run was trained on "
            f"{tuple(data['volume_shape'])}: choose a configuration of that grid"
        )
    return Judged(network.workdir, studies, "test", True, checkpoint, check_tested([network], studies))


def check_tested(members: Sequence[Trained], studies: Studies) -> str:
    """Check that no study that judges has made one of the networks; tells what was compared, or raises UserError."""
    tested = studies.marks.take(studies.parts["test"])
    for network in members:
        trained_on, known = network.run["data"]["dataset"], leaks.read(network.workdir)
        compared = leaks.check_tested(known, tested, trained_on=trained_on, dataset=studies.dataset)
    return compared


def record_opening(members: Sequence[Trained], judged: Judged) -> None:
    """Record in the workdir that test studies are about to be looked at; process 0 does."""
    if hosts.is_first():
        opening = openings.Opening(
            date=evidence.now(),
            dataset=judged.studies.dataset,
            checkpoint=members[0].step,
            command=shlex.join(["python", "-m", "covidscan.evaluate", *sys.argv[1:]]),
        )
        openings.record(judged.workdir, opening)


def report(judged: Judged, answers: Answers, wishes: Wishes, beside: dict[str, Any]) -> None:
    """Judge answers and write the evaluation, or compare it with the one that stands; process 0 does.

    Args:
      judged: the studies.
      answers: of the network or networks.
      wishes: what else to tell.
      beside: "baselines", "shortcuts" and "repeats" of `judge.judge`; what is missing is computed.

    Raises:
      UserError: a wish cannot be fulfilled, or what stands differs.
    """
    studies, (predictions, threshold, operating_point, members, _) = judged.studies, answers
    beside = {
        "subgroups": evidence.subgroups_of(judged, answers, wishes.metadata),
        "comparison": evidence.compared(judged, answers, wishes.compare) if wishes.compare else None,
        **beside,
    }
    result = judge.judge(predictions, threshold, operating_point, **beside)
    if wishes.repeats:
        result["repeats"] = evidence.repeated(judged, result["figures"], wishes.repeats)
    if wishes.verify:
        verification.verify(judged.folder, predictions.to_csv(threshold), result)
        print(f"{judged.folder}: predictions and figures are those of checkpoint and records")
        return
    rows = {studies.study_ids[row]: int(row) for row in studies.parts[judged.part]}
    shown = {name: studies.records[rows[name]] for name in judge.shown_studies(predictions, threshold, result)}
    curves = members[0].workdir / "curves.png"
    opened = [
        line
        for workdir in dict.fromkeys([judged.workdir, *(member.workdir for member in members)])
        for line in openings.read(workdir)
    ]
    judge.write_evaluation(
        judged.folder,
        predictions,
        threshold,
        result,
        evidence.context(judged, answers, opened),
        {name: (record["volume"], record["spacing_mm"]) for name, record in shown.items()},
        history=read_log(members[0].workdir),
        curves=curves,
    )
    print(
        f"{studies.dataset}, {judged.part}: checkpoint {judged.checkpoint} (step {members[0].step}) of {judged.workdir}"
    )
    print(judge.print_table(result))
    print(f"\nReport:          {judged.folder / 'report.html'}")
    print(f"Predictions:     {judged.folder / 'predictions.csv'}")
    print(f"Learning curves: {curves}")
