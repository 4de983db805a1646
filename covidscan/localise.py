"""Ask whether a run's maps of evidence mean anything: do they lie on the lesions of its test studies?

python -m covidscan.localise --workdir=runs/full
python -m covidscan.localise --workdir=runs/full --shuffled_workdir=runs/shuffled   (trained with --shuffle_labels)

A map that an untrained network, or one trained on shuffled labels, draws as well shows the study and not what was
learned (Adebayo et al., NeurIPS 2018). Needs test studies with lesion masks; writes WORKDIR/explanations/.
"""

import json
from typing import Any

from covidscan.cli import command, flags

FIGURES = {"peak_in_lesion": "peak in lesion", "in_lesion": "map in lesion", "in_lungs": "map in lungs"}


def main() -> None:
    """Read the flags, draw the maps of each network, write and print what they hit."""
    # These import JAX: not before --help has been answered.
    from etils import epath

    from covidscan.distributed import devices
    from covidscan.evaluation.evaluate import record_test_access
    from covidscan.evaluation.evaluation_set import load_evaluation_set
    from covidscan.evaluation.maps_on_lesions import compare, shuffled_control
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
    paths = flags.data_paths() if given["data_dir"].present or given["manual_dir"].present else None
    network = trained.members[0]
    evaluation_set = load_evaluation_set(network, "test", given.checkpoint, None, paths)
    shuffled = shuffled_control(trained, given.shuffled_workdir) if given.shuffled_workdir else None
    record_test_access(network, evaluation_set)
    result = compare(trained, shuffled, evaluation_set.dataset)
    folder = epath.Path(given.workdir) / "explanations"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "localisation.json", json.dumps(result, indent=2) + "\n")
    print(table(result))
    print(f"Written to {folder / 'localisation.json'}")


def table(result: dict[str, Any]) -> str:
    """Lay the figures out in lines.

    Args:
      result: `maps_on_lesions.compare`'s.
    """
    head = f"{'network':<18}{'map':<22}{'studies':>8}" + "".join(f"{name:>16}" for name in FIGURES.values())
    lines = [
        f"{network:<18}{name.replace('_', ' '):<22}{figures['studies']:>8}"
        + "".join(f"{'-' if figures[key] is None else format(figures[key], '.2f'):>16}" for key in FIGURES)
        for network, maps in result["networks"].items()
        for name, figures in maps.items()
    ]
    return "\n".join([head, *lines, _chance(result["chance"])])


def _chance(share: float | None) -> str:
    if share is None:
        return "No study's map has anything in it: chance is not known."
    return f"Lesions take {share:.2f} of the lungs: what chance would hit."


if __name__ == "__main__":
    flags.define_workdir()
    flags.define_data()
    flags.define_localise()
    command.run(main)
