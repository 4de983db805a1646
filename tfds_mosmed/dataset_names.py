"""Names of the data sets and their configurations, checked without the builders: TFDS takes seconds to import."""

from tfds_mosmed.errors import UserError, did_you_mean

GRIDS = tuple(
    f"{size}{field}"
    for size in ("32x32x16", "64x64x32", "128x128x32", "256x256x40")
    for field in ("", "_full", "_fixed")
)
CONFIGS = {
    "ct_folder": GRIDS,
    "ct_phantom": (
        "demo",
        "demo_64x64x32_full",
        "tiny",
        *GRIDS,
        *(f"balanced_{grid}" for grid in GRIDS),
        *(f"{cases}_128x128x32" for cases in ("hard", "classes", "varied", "external")),
    ),
    "ct_table": GRIDS,
    "mosmed": (*GRIDS, *(f"sample_{grid}" for grid in GRIDS)),
}

ONE_STUDY_PER_PATIENT = ("mosmed", "ct_phantom")


def check_name(dataset: str) -> tuple[str, str]:
    """Split NAME/CONFIG into both.

    Raises:
      UserError: there is no such data set; the message names the closest ones, or all.
    """
    name, _, config = dataset.partition("/")
    if config in CONFIGS.get(name, ()):
        return name, config
    known = [f"{name}/{config}" for name, configs in CONFIGS.items() for config in configs]
    lacking = f"there is no data set {name!r}"
    choices = f"NAME/CONFIG, NAME one of {', '.join(CONFIGS)}, as in {known[0]}"
    if name in CONFIGS:
        lacking = f"{name} has no configuration {config!r}"
        choices = f"{name}/CONFIG, CONFIG one of {', '.join(CONFIGS[name])}"
    raise UserError(f"--dataset={dataset}: {lacking}.{did_you_mean(dataset, known) or f' Choose {choices}'}")
