"""Compilation cache that notices damaged entries. JAX stores no checksum: a flipped bit would be another program.

A power cut may also leave an entry cut or empty. JAX would warn of it at every start, and never write it again.
"""

import contextlib
import hashlib

from jax._src.lru_cache import _CACHE_SUFFIX, LRUCache

_DIGEST_BYTES = hashlib.sha256().digest_size
_get, _put = LRUCache.get, LRUCache.put


def _checked_get(cache: LRUCache, key: str) -> bytes | None:
    """Return an entry; one that is not as it was written is removed, so that its program is compiled again."""
    stored = _get(cache, key)
    if stored is None:
        return None
    value, digest = stored[:-_DIGEST_BYTES], stored[-_DIGEST_BYTES:]
    if hashlib.sha256(value).digest() == digest:
        return value
    with contextlib.suppress(OSError):  # the folder may be read-only
        (cache.path / f"{key}{_CACHE_SUFFIX}").unlink()
    return None


def _checked_put(cache: LRUCache, key: str, value: bytes) -> None:
    """Write an entry, followed by its digest."""
    _put(cache, key, value + hashlib.sha256(value).digest())


def enable() -> None:
    """Have JAX check the entries of its compilation cache."""
    LRUCache.get, LRUCache.put = _checked_get, _checked_put  # type: ignore[method-assign]
