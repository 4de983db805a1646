"""Test whether a run's saliency maps lie on the lesions of its test studies.

python -m covidscan.localise --workdir=runs/full
python -m covidscan.localise --workdir=runs/full --shuffled_workdir=runs/shuffled   (trained with --shuffle_labels)

If an untrained network, or one trained on shuffled labels, has maps as good, they show the study and not what was
learned (Adebayo et al., NeurIPS 2018). Needs test studies with lesion masks; writes WORKDIR/explanations/.
"""

import dataclasses
import json
from typing import TYPE_CHECKING

from covidscan.cli import command, flags

if TYPE_CHECKING:
    from covidscan.evaluation.localisation import Localisation

COLUMNS = {"peak_in_lesion": "peak in lesion", "in_lesion": "in lesion", "in_lungs": "in lungs"}


def main() -> None:
    """Read the flags, compute the maps of each network, write and print their overlap with lesions."""
    # Imported lazily: JAX is slow to import, and --help does not need it.
    from etils import epath

    from covidscan.distributed import devices
    from covidscan.evaluation.evaluate import record_test_access
    from covidscan.evaluation.evaluation_set import load_evaluation_set
    from covidscan.evaluation.localisation import localise, shuffled_control
    from covidscan.runs.workdir import is_cross_validation, write_text
    from covidscan.trained_models import ensemble
    from tfds_mosmed.errors import UserError

    given = flags.FLAGS
    devices.enable_compilation_cache()
    if is_cross_validation(given.workdir):
        raise UserError(
            f"--workdir={given.workdir} is a cross-validation: localise one fold, --workdir={given.workdir}/fold_0"
        )
    trained = ensemble.load([given.workdir], given.checkpoint)
    if trained.info.task in ("multilabel", "regression"):
        raise UserError(
            f"--workdir={given.workdir}: it is of --task={trained.info.task}, and masks are of disease, the label of a "
            "study: give a run of another task"
        )
    elsewhere = any(given[name].present for name in ("data_dir", "manual_dir", "table"))
    paths = flags.data_paths() if elsewhere else None
    network = trained.members[0]
    evaluation_set = load_evaluation_set(network, "test", given.checkpoint, None, paths)
    shuffled = shuffled_control(trained, given.shuffled_workdir) if given.shuffled_workdir else None
    record_test_access([network], evaluation_set, [])
    result = localise(trained, shuffled, evaluation_set.dataset)
    folder = epath.Path(given.workdir) / "explanations"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "localisation.json", json.dumps(dataclasses.asdict(result), indent=2) + "\n")
    print(table(result))
    print(f"Written to {folder / 'localisation.json'}")


def table(result: "Localisation") -> str:
    """Format the overlaps as plain text."""
    from covidscan.report.console import text_table  # slow: not before --help

    rows = [("network", "map", "studies", *COLUMNS.values())]
    for network, maps in result.networks.items():
        for name, means in maps.items():
            values = [getattr(means, column) for column in COLUMNS]
            cells = ["-" if value is None else f"{value:.2f}" for value in values]
            rows.append((network, name.replace("_", " "), str(means.studies), *cells))
    if result.chance is None:
        chance = "No study's map has a positive part: chance is not known."
    else:
        chance = f"Chance: lesions are {result.chance:.2f} of the lungs."
    return f"{text_table(rows)}\n{chance}"


if __name__ == "__main__":
    flags.define_workdir()
    flags.define_data(of_run=True)
    flags.define_localise()
    command.run(main, needs=["workdir"])
