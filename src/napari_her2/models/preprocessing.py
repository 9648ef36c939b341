"""Pixels prepared on the device: stain normalised, averaged to a smaller size, on [0, 1].

Tiles arrive as uint8, which is a quarter of the bytes to move, and one fixed affine map of their logarithms
normalises all tiles of a slide alike: it is fitted once, elsewhere, and handed in as a matrix and an offset.
Without them (IHC, or a slide with nothing to fit) the logarithms are not taken at all.

Pixels are normalised at full size and averaged afterwards, without rounding to bytes between: averaging
first would mix stained and bare pixels, for which optical density is not additive.

On a CPU strips of rows go through all steps while they are in its cache, a fifth faster than whole tiles;
on a GPU several tiles go at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from napari_her2.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_CPU_ROWS = 128
_GPU_TILES = 8


class TilePreparation(nn.Module):
    """uint8 tiles of one slide to the pixels that a network takes.

    Parameters
    ----------
    tile_px : int
        Side of the tiles. It is fixed, since a tile of another size at the same field of view has another
        µm/px.
    out_px : int
        Side of what comes out; divides `tile_px`.
    matrix : (3, 3) array, optional
    offset : (3,) array, optional
        ``log(out + 1) = matrix @ log(in + 1) + offset`` on grey values of 0 to 255; both or neither. They are
        not part of a model's weights: each slide has its own.

    Raises
    ------
    ValueError
        For sizes that do not divide, or a map that is not finite.
    """

    def __init__(
        self,
        *,
        tile_px: int = 1024,
        out_px: int = 256,
        matrix: ArrayLike | None = None,
        offset: ArrayLike | None = None,
    ) -> None:
        super().__init__()
        if out_px < 1 or tile_px < out_px or tile_px % out_px:
            raise ValueError(f"{tile_px} px cannot be averaged to {out_px} px by a whole factor")
        if (matrix is None) != (offset is None):
            raise ValueError("a stain transform is a matrix and an offset: give both or neither")
        gain = np.eye(3) if matrix is None else np.asarray(matrix, np.float64)
        shift = np.zeros(3) if offset is None else np.asarray(offset, np.float64)
        if gain.shape != (3, 3) or shift.shape != (3,):
            raise ValueError(f"a stain transform is (3, 3) and (3,), not {gain.shape} and {shift.shape}")
        if not (np.isfinite(gain).all() and np.isfinite(shift).all()):
            raise ValueError("a stain transform must be finite")
        self.tile_px, self.out_px = tile_px, out_px
        self.normalises = not (np.array_equal(gain, np.eye(3)) and not shift.any())
        self.columns: Tensor
        self.shift: Tensor
        self.logarithms: Tensor
        columns = torch.tensor(gain.T.reshape(3, 3, 1, 1), dtype=torch.float32)
        base_two = torch.tensor(shift.reshape(3, 1, 1) / np.log(2), dtype=torch.float32)
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("shift", base_two, persistent=False)
        self.register_buffer("logarithms", torch.arange(1.0, 257.0).log2(), persistent=False)

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        """Prepare a batch.

        Parameters
        ----------
        tiles : (B, tile_px, tile_px, 3) uint8

        Returns
        -------
        (B, 3, out_px, out_px) float32
            On [0, 1].

        Raises
        ------
        ModelError
            If the tiles have another size or type.
        """
        size = self.tile_px
        if tiles.dtype != torch.uint8 or tiles.ndim != 4 or tuple(tiles.shape[1:]) != (size, size, 3):
            raise ModelError(
                f"The model takes RGB tiles of {size} x {size} pixels as bytes, not {tiles.dtype} of shape "
                f"{tuple(tiles.shape)}: read the tiles at {size} px."
            )
        factor = size // self.out_px
        on_cpu = tiles.device.type == "cpu"
        rows = max(_CPU_ROWS // factor, 1) * factor if on_cpu else size
        count = 1 if on_cpu else _GPU_TILES
        out = torch.empty((len(tiles), 3, self.out_px, self.out_px), dtype=torch.float32, device=tiles.device)
        for first in range(0, len(tiles), count):
            for top in range(0, size, rows):
                light = self._light(tiles[first : first + count, top : top + rows])
                bottom = min(top + rows, size)
                out[first : first + count, :, top // factor : bottom // factor] = avg_pool2d(light, factor)
        if self.normalises:
            out.sub_(1)
        return out.div_(255)

    def _light(self, tiles: Tensor) -> Tensor:
        """(B, h, w, 3) uint8 to (B, 3, h, w) float32 grey values, plus 1 where they are normalised."""
        planes = tiles.permute(0, 3, 1, 2)
        if not self.normalises:
            return planes.to(torch.float32, memory_format=torch.contiguous_format)
        # A table and powers of two: half the time of a logarithm and an exponential of each pixel.
        indices = planes.to(torch.int32, memory_format=torch.contiguous_format)
        logs = self.logarithms.index_select(0, indices.view(-1)).view(indices.shape)
        # Three multiply-adds, not a matrix product: tensor cores and autocast would round logarithms to
        # a precision of several grey levels.
        mixed = torch.addcmul(self.shift, self.columns[0], logs[:, 0:1])
        mixed.addcmul_(self.columns[1], logs[:, 1:2]).addcmul_(self.columns[2], logs[:, 2:3])
        return mixed.exp2_().clamp_(1, 256)
