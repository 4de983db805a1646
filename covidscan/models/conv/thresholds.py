"""Thresholds of the algorithms for CPUs: the shapes from which one is faster than another.

Measured on two cores: on 2026-11-24 and 25 of an AMD EPYC with AVX2, on 2026-11-26 and 30 of Intel Xeons with AVX-512.

| threshold                | measured   | JAX             |
|--------------------------|------------|-----------------|
| MAX_PATCH                | 2026-11-24 | 0.10.2          |
| MAX_ROWS_BY_SUMS         | 2026-11-24 | 0.10.2          |
| ROWS_BY_BLOCKS           | 2026-11-30 | 0.10.2          |
| MIN_WINOGRAD_CHANNELS    | 2026-11-25 | 0.10.2          |
| MIN_WINOGRAD_TILES       | 2026-11-25 | 0.10.2          |
| POOLED_SLAB_BYTES        | 2026-11-25 | 0.10.2          |
| WINOGRAD_SLAB_BYTES      | 2026-11-25 | 0.10.2 / 0.12.0 |
| MAX_WIDE_PATCH_VOXELS    | 2026-11-26 | 0.10.2, 0.12.0  |
"""

import jax

MAX_PATCH = 64  # taps x input channels up to which patches are stacked tap by tap
MAX_ROWS_BY_SUMS = 8  # examples up to which the gradient of a large dense kernel is a sum of outer products
# Examples with which products by a large dense kernel, and by its transpose, are computed in blocks.
ROWS_BY_BLOCKS, ROWS_BY_TRANSPOSED_BLOCKS = range(7, 33), range(2, 65)
# With fewer slice taps x channels or fewer tiles, the Winograd transforms cost more than they save.
MIN_WINOGRAD_CHANNELS, MIN_WINOGRAD_TILES = 32, 256
POOLED_SLAB_BYTES = 4 * 2**20  # of outputs before pooling that are computed at a time
# Before JAX 0.11 XLA divides a batch of products among threads only where each has about ten million multiplications:
# with 64 channels, in slabs of at least 27 MiB.
THREADS_SHARE_SMALL_PRODUCTS = jax.__version_info__ >= (0, 11)
WINOGRAD_SLAB_BYTES = (12 if THREADS_SHARE_SMALL_PRODUCTS else 30) * 2**20  # of transformed inputs at a time
MAX_WIDE_PATCH_VOXELS = 1024  # of a batch; the patches of more do not fit the caches
