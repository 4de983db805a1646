"""The one command of the comparisons: measures what is asked for, and writes results.json and the README's tables."""

import argparse
import sys

from tests.peers import auroc, preparation, results, steps, tables
from tests.peers.processes import ROOT
from tfds_mosmed.errors import UserError

MEASURES = ("steps", "preparation", "auroc")  # in this order: the time to an AUROC counts preparation


def main() -> None:
    """Measure, one after the other; each part is kept as soon as it is there."""
    parser = argparse.ArgumentParser(prog="bash tests/peers/run.sh", description=__doc__)
    parser.add_argument("measures", nargs="*", metavar="measure", help=f"of {', '.join(MEASURES)}; none means all")
    parser.add_argument("--cap", type=float, default=10.0, help="auroc: stop a peer at this many times our own time")
    asked = parser.parse_args()
    unknown = set(asked.measures) - set(MEASURES)
    if unknown:
        parser.error(f"no measure is called {', '.join(sorted(unknown))}: choose of {', '.join(MEASURES)}")
    if not asked.cap > 0:
        parser.error(f"--cap={asked.cap:g}: give a number above 0")
    wanted = asked.measures or MEASURES
    if "preparation" in wanted:
        preparation.real_study()  # told before the steps are timed, not after
    elif "auroc" in wanted:
        results.preparation_paths()
    for measure in [measure for measure in MEASURES if measure in wanted]:
        print(f"measuring {measure}", flush=True)
        if measure == "steps":
            found = steps.measure(before=results.found_before("steps"))
        elif measure == "preparation":
            found = preparation.measure()
        else:
            found = auroc.measure(asked.cap, results.preparation_paths(), results.found_before("auroc"))
        for so_far in found:
            tables.write_readme(ROOT / "README.md", results.keep(measure, so_far))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
