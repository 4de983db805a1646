"""JSON objects with a checksum in them, by which it is noticed if they were edited, damaged, or belong elsewhere."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

CHECKSUM = "sha256"


def checksum(content: Any) -> str:
    """Return the SHA-256 of what a JSON file holds."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sign(content: Mapping[str, Any], owner: str | None = None) -> dict[str, Any]:
    """Return a JSON object with its checksum in it.

    Args:
      content: the object.
      owner: what it belongs to, such as the id of a run; None: nothing in particular.
    """
    return {**content, CHECKSUM: checksum(content if owner is None else [owner, content])}


def check_signed(content: dict[str, Any], name: str, owner: str | None = None) -> dict[str, Any]:
    """Return what was signed; earlier versions did not sign, or not for an owner.

    Raises:
      ValueError: it was edited, or signed for another owner; the message says so of `name`.
    """
    signed = {key: value for key, value in content.items() if key != CHECKSUM}
    if content.get(CHECKSUM) not in (None, checksum(signed), checksum([owner, signed])):
        raise ValueError(f"{name} was edited, or is of another run")
    return signed
