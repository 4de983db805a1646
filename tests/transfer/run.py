"""Transfer benchmark: train a recipe with several seeds, evaluate on hard phantoms, a second hospital and real CT.

COVIDSCAN_REAL_CT=FOLDER python -m tests.transfer.run --recipe=varied --seeds=0,1,2,3 --data_dir=data --output=transfer

prints a table and writes it to OUTPUT/RECIPE/table.md. A command that was stopped continues when it is run again.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from covidscan.distributed.exits import RunAgain
from covidscan.metrics.predictions import Predictions
from tests.transfer import measures, tables
from tests.transfer.network import RECIPES, Network, Phantoms, find_real, load_phantoms
from tests.transfer.results import Comparison, SeedResult
from tfds_mosmed import storage
from tfds_mosmed.errors import UserError

HARD, EXTERNAL = "ct_phantom/hard_128x128x32", "ct_phantom/external_128x128x32"
SHOWN_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Data that all networks of a recipe are evaluated on.

    Attributes:
      hard: the hard phantoms.
      external: those of the second hospital.
      real: the real studies; none if there is no folder of them.
    """

    hard: Phantoms
    external: Phantoms
    real: Sequence[Path]

    def measure(self, network: Network, other: Network | None) -> SeedResult:
        """Train a network if it is not, evaluate it, and write its result.json.

        Args:
          network: the network.
          other: that of the same seed of another recipe, to compare it with.
        """
        training, run = network.train(), network.run
        hard = network.predict(self.hard)
        comparison = None
        if other:
            comparison = measures.compare(hard, other.stored_predictions(self.hard), other.recipe)
        hard_phantoms = measures.hard_phantoms(hard, self.hard.details)
        real = measures.real_studies(network.predict_real(self.real)) if self.real else None
        negatives = [path for path in self.real if path.parent.name != measures.COVID]
        insertions = None
        if negatives and hard_phantoms.threshold is not None:
            insertions = measures.insertions(*network.insert_lesions(negatives), hard_phantoms.threshold)
        trained_on = {run["data"]["dataset"]: run["data"]["fingerprint"]}
        packages = {name: run["package_versions"][name] for name in SHOWN_PACKAGES}
        result = SeedResult(
            recipe=network.recipe,
            seed=network.seed,
            training=training,
            dataset=run["data"]["dataset"],
            num_train=run["data"]["num_train"],
            fingerprints=trained_on | {each.dataset: each.fingerprint for each in (self.hard, self.external)},
            versions={"covidscan": run["code_version"], "python": run["python_version"], **packages},
            minutes=network.training_minutes(),
            hard=hard_phantoms,
            hospital=measures.hospital(network.predict(self.external)),
            real=real,
            insertions=insertions,
            comparison=comparison,
        )
        text = json.dumps(dataclasses.asdict(result), indent=1, ensure_ascii=False) + "\n"
        storage.write_whole(network.folder / "result.json", text.encode())
        return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one seed after another; the table is written after each."""
    given = _parse(arguments)
    root = os.environ.get("COVIDSCAN_REAL_CT")
    real = find_real(Path(root)) if root else []
    benchmark = Benchmark(load_phantoms(HARD, given.data_dir), load_phantoms(EXTERNAL, given.data_dir), real)
    networks, others = (
        [Network(recipe, seed, given.data_dir, given.output) for seed in given.seeds] if recipe else []
        for recipe in (given.recipe, given.against)
    )
    for other in others:
        other.stored_predictions(benchmark.hard)  # fails here if there are none, not after a training
    results = []
    for number, network in enumerate(networks):
        print(f"{given.recipe}, seed {network.seed}", file=sys.stderr, flush=True)
        results.append(benchmark.measure(network, others[number] if others else None))
        done = slice(number + 1)
        of_mean = _compare_means(benchmark.hard, networks[done], others[done])
        text = tables.table(results, of_mean)
        storage.write_whole(Path(given.output, given.recipe, "table.md"), f"{text}\n".encode())
    print(text)


def _compare_means(hard: Phantoms, networks: Sequence[Network], others: Sequence[Network]) -> Comparison | None:
    if not others:
        return None

    def mean(members: Sequence[Network]) -> Predictions:
        return measures.mean([member.stored_predictions(hard) for member in members])

    return measures.compare(mean(networks), mean(others), others[0].recipe)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.transfer.run", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    recipes = sorted(path.stem for path in RECIPES.glob("*.flags"))
    parser.add_argument("--recipe", required=True, choices=recipes, help="file of flags in tests/transfer/recipes")
    parser.add_argument("--seeds", type=_seeds, default=_seeds("0,1,2,3"), help="seeds, with commas between")
    parser.add_argument(
        "--against", choices=recipes, help="recipe that was measured before, with the same seeds and --output"
    )
    parser.add_argument("--data_dir", default="data", help="folder of the records; missing ones are built")
    parser.add_argument("--output", required=True, help="folder of the networks and results")
    return parser.parse_args(arguments)


def _seeds(text: str) -> list[int]:
    seeds = [int(part) for part in text.split(",")]
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError("give different numbers of at least 0")
    return seeds


if __name__ == "__main__":
    # Trainings are processes of their own: the predictions here must leave them the memory of an accelerator.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    except RunAgain as reason:
        print(reason, file=sys.stderr)
        sys.exit(reason.status)
