"""Preparation of tiles on the device: against NumPy with OpenCV's area resize, and against torchstain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_her2.errors import ModelError
from napari_her2.models.preprocessing import TilePreparation
from napari_her2.slide.macenko import HE_REFERENCE, fit_macenko, he_transform, ihc_transform

if TYPE_CHECKING:
    from pathlib import Path

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]
SIDE, OUT = 96, 24


def stained(count: int = 3, seed: int = 0) -> np.ndarray:
    """(count, 96, 96, 3) uint8: purple and pink at every strength, with bare and black pixels among them."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(1.5, 0.4, (count, SIDE, SIDE, 2))
    light = 240 * np.exp(-amounts @ np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]))
    light += rng.normal(0, 2, light.shape)
    tiles = np.clip(light, 0, 255).astype(np.uint8)
    tiles[:, :8, :8] = 255
    tiles[:, 8:16, :8] = 0
    return tiles


def prepared(tiles: np.ndarray, transform, device: str = "cpu", out_px: int = OUT) -> np.ndarray:
    preparation = TilePreparation(
        tile_px=tiles.shape[1], out_px=out_px, matrix=transform.matrix, offset=transform.offset
    ).to(device)
    return preparation(torch.from_numpy(tiles).to(device)).cpu().numpy()


def by_hand(tiles: np.ndarray, fit, out_px: int = OUT, io: float = 240.0) -> np.ndarray:
    """Unmix, rescale, mix and average as the paper writes it: concentrations, no matrix of the whole."""
    stains, reference = np.array(fit.stains).T, np.array(HE_REFERENCE.stains).T
    density = -np.log((tiles.reshape(-1, 3) + 1.0) / io)
    amounts = np.linalg.lstsq(stains, density.T, rcond=None)[0]
    amounts *= (np.array(HE_REFERENCE.max_concentrations) / fit.max_concentrations)[:, None]
    light = np.clip(io * np.exp(-reference @ amounts).T - 1, 0, 255).reshape(tiles.shape)
    small = [cv2.resize(tile, (out_px, out_px), interpolation=cv2.INTER_AREA) for tile in light]
    return np.stack(small).transpose(0, 3, 1, 2) / 255


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("out_px", [96, 48, 32, 24, 1])
def test_equals_unmixing_by_hand_and_area_resize(device: str, out_px: int) -> None:
    tiles = stained()
    fit = fit_macenko(tiles)
    assert fit.fallback is None
    result = prepared(tiles, he_transform(fit), device, out_px)
    assert result.dtype == np.float32
    assert result.shape == (3, 3, out_px, out_px)
    np.testing.assert_allclose(result, by_hand(tiles, fit, out_px), atol=2e-5)


@pytest.mark.parametrize("side", [260, 388])
def test_strips_that_do_not_divide_the_tile_leave_no_seam(side: int) -> None:
    tiles = np.resize(stained(2), (2, side, side, 3))
    fit = fit_macenko(tiles)
    np.testing.assert_allclose(
        prepared(tiles, he_transform(fit), out_px=side // 4), by_hand(tiles, fit, side // 4), atol=2e-5
    )


@pytest.mark.parametrize("device", DEVICES)
def test_without_a_transform_it_is_area_resize_alone(device: str) -> None:
    tiles = stained()
    expected = [
        cv2.resize(tile.astype(np.float64), (OUT, OUT), interpolation=cv2.INTER_AREA) for tile in tiles
    ]
    expected = np.stack(expected).transpose(0, 3, 1, 2) / 255
    bare = TilePreparation(tile_px=SIDE, out_px=OUT).to(device)
    np.testing.assert_allclose(bare(torch.from_numpy(tiles).to(device)).cpu().numpy(), expected, atol=1e-6)
    # IHC: whatever is in the tile, DAB keeps its strength.
    np.testing.assert_allclose(prepared(tiles, ihc_transform(), device), expected, atol=1e-6)


def test_equals_torchstain_within_a_grey_level(shared_data: Path) -> None:
    torchstain = pytest.importorskip("torchstain")
    image = cv2.imread(str(shared_data / "stain" / "he_source.png"))[:256, :256, ::-1].copy()
    normaliser = torchstain.normalizers.MacenkoNormalizer(backend="torch")
    expected, _, _ = normaliser.normalize(torch.from_numpy(image).permute(2, 0, 1), stains=False)
    result = prepared(image[None], he_transform(fit_macenko(image)), out_px=256)[0].transpose(1, 2, 0)
    # Theirs keeps the 1 that was added before the logarithm, and drops decimals.
    assert np.abs(np.rint(result * 255) - expected.numpy()).max() <= 1


def test_equals_the_image_that_the_slide_room_makes() -> None:
    tiles = stained()
    transform = he_transform(fit_macenko(tiles))
    result = prepared(tiles, transform, out_px=SIDE).transpose(0, 2, 3, 1) * 255
    assert np.abs(result - transform.apply(tiles)).max() <= 0.501


def test_a_tile_is_prepared_alike_alone_and_in_any_company() -> None:
    tiles = stained(5)
    tiles[1] = 255
    tiles[3] = 0
    transform = he_transform(fit_macenko(stained(2, seed=9)))
    together = prepared(tiles, transform)
    alone = np.concatenate([prepared(tile[None], transform) for tile in tiles])
    np.testing.assert_array_equal(together, alone)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_moving_pixels_moves_the_result(seed: int) -> None:
    tiles = stained(1)
    transform = he_transform(fit_macenko(tiles))
    order = np.random.default_rng(seed).permutation(SIDE * SIDE)
    moved = tiles.reshape(1, -1, 3)[:, order].reshape(tiles.shape)
    result = prepared(tiles, transform, out_px=SIDE).reshape(1, 3, -1)
    # Vectors of a processor and what is left over at their end round differently in the last digit.
    np.testing.assert_allclose(
        prepared(moved, transform, out_px=SIDE).reshape(1, 3, -1), result[..., order], atol=1e-5
    )


@settings(max_examples=40, deadline=None)
@given(
    tiles=arrays(np.uint8, (2, 8, 8, 3)),
    matrix=arrays(np.float64, (3, 3), elements=st.floats(-50, 50)),
    offset=arrays(np.float64, (3,), elements=st.floats(-300, 300)),
)
def test_any_tile_by_any_map_is_finite_and_in_range(tiles, matrix, offset) -> None:
    result = TilePreparation(tile_px=8, out_px=2, matrix=matrix, offset=offset)(torch.from_numpy(tiles))
    assert torch.isfinite(result).all()
    assert 0 <= result.min() <= result.max() <= 1


def test_autocast_takes_no_precision_away() -> None:
    tiles = stained(1)
    transform = he_transform(fit_macenko(tiles))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lower = prepared(tiles, transform)
    np.testing.assert_array_equal(lower, prepared(tiles, transform))


def test_its_result_can_enter_a_graph_and_its_map_is_no_weight() -> None:
    preparation = TilePreparation(tile_px=SIDE, out_px=OUT, matrix=np.eye(3) * 0.9, offset=np.zeros(3))
    assert not preparation.state_dict()
    weight = torch.ones(3, requires_grad=True)
    (preparation(torch.from_numpy(stained(1))) * weight.view(3, 1, 1)).sum().backward()
    assert weight.grad is not None


def test_no_tiles_give_no_images() -> None:
    assert TilePreparation(tile_px=8, out_px=4)(torch.zeros((0, 8, 8, 3), dtype=torch.uint8)).shape == (
        0,
        3,
        4,
        4,
    )


@pytest.mark.parametrize(
    "tiles",
    [
        torch.zeros((1, 96, 95, 3), dtype=torch.uint8),
        torch.zeros((1, 48, 48, 3), dtype=torch.uint8),
        torch.zeros((1, 3, 96, 96), dtype=torch.uint8),
        torch.zeros((96, 96, 3), dtype=torch.uint8),
        torch.zeros((1, 96, 96, 4), dtype=torch.uint8),
        torch.zeros((1, 96, 96, 3)),
    ],
)
def test_other_tiles_are_refused(tiles: torch.Tensor) -> None:
    with pytest.raises(ModelError, match="96 x 96 pixels"):
        TilePreparation(tile_px=SIDE, out_px=OUT)(tiles)


def test_impossible_preparations_are_refused() -> None:
    for tile_px, out_px in ((100, 24), (24, 96), (96, 0)):
        with pytest.raises(ValueError, match="whole factor"):
            TilePreparation(tile_px=tile_px, out_px=out_px)
    with pytest.raises(ValueError, match="both or neither"):
        TilePreparation(matrix=np.eye(3))
    with pytest.raises(ValueError, match="not \\(2, 3\\)"):
        TilePreparation(matrix=np.zeros((2, 3)), offset=np.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        TilePreparation(matrix=np.full((3, 3), np.nan), offset=np.zeros(3))
