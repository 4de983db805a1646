"""Facts of the data sets: source, licence, setting, reference standard. They lie in facts.toml beside each builder."""

import tomllib
from pathlib import Path


def load_facts(dataset: str) -> dict[str, str]:
    """Load the facts of a data set.

    Args:
      dataset: NAME or NAME/CONFIG, as in "mosmed/128x128x32".

    Returns:
      The name of a fact, as in "licence", to its text. What is not known is left out; of an unknown data set, all.
    """
    path = Path(__file__).parent / dataset.partition("/")[0] / "facts.toml"
    return tomllib.loads(path.read_text()) if path.exists() else {}


def has_public_ids(dataset: str) -> bool:
    """Return whether the ids of a data set's studies identify nobody; names of a user's files may."""
    return "study_ids" in load_facts(dataset)


def forbidding_licence(dataset: str) -> str | None:
    """Return the licence of a data set if it forbids to pass on what is made from the studies, such as networks."""
    facts = load_facts(dataset)
    return facts["licence"] if facts.get("may_be_passed_on") == "no" else None
