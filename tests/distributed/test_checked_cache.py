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
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    compilation_cache.reset_cache()
    devices.enable_compilation_cache()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    yield tmp_path / "covidscan" / "xla"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_a_folder_that_other_programs_share_keeps_their_form(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    devices.enable_compilation_cache()
    assert LRUCache.get.__module__ == "jax._src.lru_cache"


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
