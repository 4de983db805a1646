"""Export of trained networks to a folder that needs JAX and flatbuffers alone, for CPU, CUDA and TPU.

python -m covidscan.export --workdir=runs/full --output=models/full
python -m covidscan.export --workdir=runs/seed0,runs/seed1 --output=models/both
python -m covidscan.export --workdir=runs/full --output=models/full_hub --hub_card
"""

from covidscan.cli import command, flags


def main() -> None:
    """Read the flags and export."""
    from covidscan.trained_models import export  # imported lazily: JAX is slow to import, and --help does not need it

    given = flags.FLAGS
    export.export(given.workdir, given.output, given.checkpoint, hub_card=given.hub_card, tta=given.tta or "")


if __name__ == "__main__":
    flags.define_networks()
    flags.define_output()
    command.run(main, needs=["workdir", "output"])
