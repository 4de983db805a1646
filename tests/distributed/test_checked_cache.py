"""Compiled programs that are kept: one that is damaged is compiled again, without a word."""

import jax
import jax.numpy as jnp
import pytest
from jax._src import compilation_cache
from jax._src.lru_cache import LRUCache

from covidscan.distributed import devices


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A compilation cache of its own."""
    monkeypatch.setattr(LRUCache, "get", LRUCache.get)  # as it was, after the test
    monkeypatch.setattr(LRUCache, "put", LRUCache.put)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    compilation_cache.reset_cache()
    devices.enable_compilation_cache()
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


@pytest.mark.filterwarnings("error")
def test_a_damaged_program_is_compiled_and_stored_again(folder):
    def seven():
        jax.clear_caches()
        return float(jax.jit(lambda x: x * 3 + 1)(jnp.float32(2)))

    assert seven() == 7
    whole = {path: path.read_bytes() for path in folder.glob("*-cache")}
    assert whole
    damages = (
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:50] + bytes([data[50] ^ 1]) + data[51:],
        lambda data: bytes(len(data)),
        lambda data: data[:-32],  # as JAX alone writes it
    )
    for damage in damages:
        for path, data in whole.items():
            path.write_bytes(damage(data))
        assert seven() == 7
        assert all(path.read_bytes()[:4] == data[:4] for path, data in whole.items()), "they are written anew"
        kept = {path: path.stat().st_mtime_ns for path in whole}
        assert seven() == 7
        assert {path: path.stat().st_mtime_ns for path in whole} == kept, "the second time it is read"
