"""How often the studies that only judge were looked at: a line in WORKDIR/test_openings.jsonl each time.

Every look at test studies invites a change of the method for them; a reader should know how many there were.
"""

import json
from typing import TypedDict

from etils import epath

from covidscan.runs.workdir import write_text

FILE = "test_openings.jsonl"


class TestAccess(TypedDict):
    """One look at test studies.

    Attributes:
      date: ISO 8601.
      dataset: NAME/CONFIG of the studies.
      checkpoint: step of the network that predicted them.
      command: what was typed.
      verify: whether it computed a known evaluation again.
      fold: the fold of a cross-validation whose test part it was, or None.
    """

    date: str
    dataset: str
    checkpoint: int
    command: str
    verify: bool
    fold: int | None


def record(workdir: epath.PathLike, opening: TestAccess) -> None:
    """Add a line, before a test study is predicted; process 0 alone calls it."""
    path = epath.Path(workdir) / FILE
    before = path.read_text() if path.exists() else ""
    write_text(path, before + json.dumps(opening) + "\n")


def read(workdir: epath.PathLike) -> list[TestAccess]:
    """Give all openings so far, oldest first."""
    path = epath.Path(workdir) / FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
