"""Mutations of files: cut, flipped, emptied, and JSON whose values are changed or left out."""

import json
import random
from collections.abc import Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 10**30, 1.5, -0.5, 1e-320, 1e308, float("nan"), float("inf")),
    *("", "x", "\ud800", "../..", [], {}, [None], {"a": 1}, ["a", "b", "c"]),
)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return damaged or edited content."""
    kinds = [_cut, _flip, _zeros, _longer, _no_utf8]
    if content[:1] in (b"{", b"["):
        kinds += [_changed_value] * 4 + [_removed, _removed, _nested, _duplicated]
    return chance.choice(kinds)(content, chance)


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def _flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 8))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _zeros(content: bytes, chance: random.Random) -> bytes:
    start = chance.choice((0, chance.randrange(len(content))))
    return content[:start] + bytes(len(content) - start)


def _longer(content: bytes, chance: random.Random) -> bytes:
    return content + chance.choice((b"}", b"\0" * 100, content, b"more"))


def _no_utf8(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + b"\xff\xfe" + content[at:]


def _nested(content: bytes, chance: random.Random) -> bytes:
    del content
    opening = chance.choice((b"[", b'{"a":'))
    return opening * 100_000


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


def _changed(content: bytes, chance: random.Random, change) -> bytes:
    try:
        tree = [json.loads(line) for line in content.splitlines()] if b"}\n{" in content else json.loads(content)
    except ValueError:
        return content[:-1]
    change(*chance.choice(list(_places([tree]))[1:]))
    lines = tree if b"}\n{" in content else [tree]
    return "\n".join(json.dumps(line) for line in lines).encode(errors="surrogatepass")


def _changed_value(content: bytes, chance: random.Random) -> bytes:
    return _changed(content, chance, lambda tree, key: tree.__setitem__(key, chance.choice(VALUES)))


def _removed(content: bytes, chance: random.Random) -> bytes:
    return _changed(content, chance, lambda tree, key: tree.__delitem__(key))


def _duplicated(content: bytes, chance: random.Random) -> bytes:
    def change(tree: Any, key: Any) -> None:
        tree.append(tree[key]) if isinstance(tree, list) else tree.__setitem__(f"{key} ", tree[key])

    return _changed(content, chance, change)
