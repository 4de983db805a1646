"""Command of the benchmarks: takes the given measures, and writes results.json and the tables of the README here."""

import argparse
import sys

from tests.peers import auroc, preparation, results, steps, tables
from tests.peers.processes import README
from tfds_mosmed.errors import UserError

MEASURES = ("steps", "preparation", "auroc")  # in this order: the time to an AUROC counts preparation


def main() -> None:
    """Take the measures one after another; each part is stored as soon as it is finished."""
    parser = argparse.ArgumentParser(prog="bash tests/peers/run.sh", description=__doc__)
    parser.add_argument("measures", nargs="*", metavar="measure", help=f"{', '.join(MEASURES)}; default: all")
    parser.add_argument("--cap", type=float, default=10.0, help="auroc: stop a peer at this multiple of our own time")
    given = parser.parse_args()
    unknown = set(given.measures) - set(MEASURES)
    if unknown:
        parser.error(f"unknown measure {', '.join(sorted(unknown))}: choose from {', '.join(MEASURES)}")
    if not given.cap > 0:
        parser.error(f"--cap={given.cap:g}: give a number above 0")
    wanted = given.measures or MEASURES
    if "preparation" in wanted:
        preparation.real_study()  # fails here if there is none, not after hours of timing steps
    elif "auroc" in wanted:
        results.preparation_paths()
    for measure in [measure for measure in MEASURES if measure in wanted]:
        print(f"measuring {measure}", flush=True)
        if measure == "steps":
            found = steps.measure(before=results.found_before("steps"))
        elif measure == "preparation":
            found = preparation.measure()
        else:
            found = auroc.measure(given.cap, results.preparation_paths(), results.found_before("auroc"))
        for so_far in found:
            tables.write_readme(README, results.keep(measure, so_far))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
