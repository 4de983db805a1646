"""Sizes of the default network: what they resolve, and that the network of earlier runs is the same."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from covidscan import models
from covidscan.config import Config
from covidscan.models import lung_resnet
from covidscan.models.conv import lanes

LUNGS_MM = 300  # width of a typical box of both lungs with its margin


def _sown(grid, **settings):
    """Shapes of the parameters, and of what the network sows, for a grid (slices, rows, columns)."""
    model = models.create("lung_resnet", 2, **settings)
    shape = jax.ShapeDtypeStruct((1, *grid, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), shape)[1]


def _count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_tokens_and_maps_have_the_detail_of_the_grid_and_sizes_rise():
    counts = []
    for size in ("tiny", "small", "base", "large"):
        assert models.create("lung_resnet", 2, size=size).width == lung_resnet.SIZES[size].width
        made = _sown((40, 256, 256), size=size)
        cells = made["lesions"]["logits"][0].shape
        assert cells == (1, 40, 64, 64)
        assert LUNGS_MM / cells[3] <= 5
        counts.append(_count(made["params"]))
    assert all(3 * smaller < larger for smaller, larger in itertools.pairwise(counts))
    assert set(Config.__dataclass_fields__["size"].metadata["choices"]) == set(lung_resnet.SIZES)
    assert _sown((32, 128, 128), size="tiny")["lesions"]["logits"][0].shape == (1, 32, 32, 32)


def test_a_configuration_without_a_size_is_the_network_of_earlier_runs():
    values = Config().to_json()
    del values["size"]
    made = _sown((32, 128, 128), size=Config.from_json(values).size)
    assert _count(made["params"]) == 733_918
    assert made["params"]["Conv3D_0"]["kernel"].shape == (1, 1, 1, 48, 32)  # 4 x 4 pixels of 3 windows, linear
    assert made["lesions"]["logits"][0].shape == (1, 32, 16, 16)


def test_a_token_sees_six_by_six_pixels_through_a_layer_that_is_not_linear():
    model = models.create("lung_resnet", 2, size="tiny", width=8)
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(1, 2, 16, 16, 3)), jnp.float32)
    params = _sown((2, 16, 16), size="tiny", width=8)["params"]
    variables = {"params": jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params)}

    @jax.jit
    def stem(x):
        is_stem = lambda module, _: module.name == "Conv3D_0"  # noqa: E731
        _, made = model.apply(variables, x, mutable=["features"], capture_intermediates=is_stem)
        tokens = lanes.unfolded(made["intermediates"]["Conv3D_0"]["__call__"][0], 8)  # all 8 columns x 8 channels
        # Before the normalisation, whose statistics are those of all voxels.
        return tokens[0, 0, 4, 4].sum(), (tokens, made["features"]["shown"][0])

    gradient, (tokens, shown) = jax.grad(stem, has_aux=True)(x)
    _, rows, columns = np.nonzero(np.abs(gradient[0]).sum(-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 11, 6, 11)
    assert tokens.shape[1:4] == (2, 8, 8)  # of 2 x 2 pixels
    assert LUNGS_MM / 256 * 2 <= 3  # at 256x256x40
    assert shown["step"].tolist() == [1, 4, 4]  # of the lesion map
    assert LUNGS_MM / 256 * shown["step"][2] <= 5
    assert float(shown["values"].min()) == 0  # a rectifier's


def test_later_blocks_are_skipped_more_often_and_none_in_prediction(monkeypatch):
    rates = []
    monkeypatch.setattr(
        lung_resnet.Dropout, "__call__", lambda self, x, train: rates.append((self.whole, self.rate, train)) or x
    )
    _sown((8, 32, 32), size="base")
    blocks = [rate for whole, rate, _ in rates if whole][: sum(lung_resnet.SIZES["base"].depths)]
    np.testing.assert_allclose(blocks, np.linspace(0, 0.2, 8))
    assert rates
    assert not any(train for _, _, train in rates)
