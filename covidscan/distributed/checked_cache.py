"""Compilation cache that notices damaged entries. JAX stores no checksum: a flipped bit would be another program.

A power cut may also leave an entry cut or empty. JAX would warn of it at every start, and never write it again.
"""

import contextlib
import hashlib

_DIGEST_BYTES = hashlib.sha256().digest_size


def enable() -> None:
    """Have JAX store a digest with each entry of its compilation cache, and compile again what does not fit its digest.

    For a folder of this project's own: JAX without this cannot read these entries. JAX has no public interface for it;
    where a later version stores its entries in another way, they are not checked.
    """
    try:
        from jax._src.lru_cache import _CACHE_SUFFIX, LRUCache
    except ImportError:
        return
    get, put = LRUCache.get, LRUCache.put
    if get.__module__ == __name__:  # enabled before
        return

    def checked_get(cache: LRUCache, key: str) -> bytes | None:
        stored = get(cache, key)
        if stored is None:
            return None
        value, digest = stored[:-_DIGEST_BYTES], stored[-_DIGEST_BYTES:]
        if hashlib.sha256(value).digest() == digest:
            return value
        with contextlib.suppress(OSError):  # the folder may be read-only
            (cache.path / f"{key}{_CACHE_SUFFIX}").unlink()
        return None

    def checked_put(cache: LRUCache, key: str, value: bytes) -> None:
        put(cache, key, value + hashlib.sha256(value).digest())

    LRUCache.get, LRUCache.put = checked_get, checked_put  # type: ignore[method-assign]
