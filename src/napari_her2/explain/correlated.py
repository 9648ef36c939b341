"""The correlated representation of a slide, field by field and level by level, when it is asked for.

Dutta et al. 2025 (see `napari_her2.models.corr_a_net`) represent single fields of H&E. Here a slide is
covered by them without seams: a field is computed with a margin of its surroundings that is wider than
what a pixel of the network sees (`CorrANet.sees_px`), and the margin is cut off. Level 0 has the pixel size
that the network was trained on (1.84 µm for fields of 1024 px at 0.46 µm/px averaged to 256 px); each
further level has pixels twice as large, until the slide fits in one field.

Two things to know when looking at it:

- Zoomed out, the network sees coarser pixels than it was trained on: nuclei merge, and what the
  channels stand for changes with them. Only level 0 shows what the predictor was given.
- Squeeze-excitation weighs the channels by the mean of the field that it sees, so that neighbours are
  weighed differently and a slide would fall into tiles. Here one gate, from the mean over a sample of
  tissue fields, serves the whole slide and all levels; with it a field does not depend on where it is cut.
  The predictor keeps weighing each field by itself: `CorrelatedPyramid.gate_spread` says how much that
  differs on the slide at hand.

What the file does not hold is NaN, and the field says that it is damaged. Glass can be NaN too: the network
gives it values, which would be shown in as bright a colour as tissue and mean nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from napari_her2.errors import SlideError
from napari_her2.explain.field_store import CorrelatedField, FieldKey
from napari_her2.models.preprocessing import TilePreparation
from napari_her2.models.squeeze_excitation import SqueezeExcitation
from napari_her2.slide.area import read_area

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.models.corr_a_net import CorrANet
    from napari_her2.slide.macenko import StainTransform
    from napari_her2.slide.whole_slide import Slide

SAMPLE_FIELDS = 16
_SAMPLE_PIXELS = 4096


class CorrelatedPyramid:
    """Computes fields of the representation of one slide; keeps none of them.

    Parameters
    ----------
    slide : Slide
        Of H&E; states its µm/px.
    network : CorrANet
        Moved to ``device`` and put in evaluation mode.
    transform : StainTransform
        Of the slide.
    tile_px : int
        Side of the model's fields before they are averaged, pixels.
    mpp : float
        µm per pixel of these.
    field_px : int
        Side of a field, pixels of the representation; divides ``tile_px``.
    device : torch.device
    clear_glass : bool, default False
        Whether pixels outside of the tissue are left without a value.

    Attributes
    ----------
    channels : int
        d.
    field_px : int
    pixel_um : float
        µm per pixel of level 0; level n has 2 ** n times as many.
    level_shapes : tuple of tuple of int
        (height, width) of the levels, pixels. Each is exactly half of the one before, which may take the
        first a few pixels beyond the slide's lower and right edge.
    gate_spread : float or None
        How much the gate of single fields differs from that of the slide, relative: mean over channels of
        the standard deviation over the sampled fields. None before `fit`, and without attention.

    Raises
    ------
    SlideError
        If the slide states no µm/px.
    """

    def __init__(
        self,
        slide: Slide,
        network: CorrANet,
        *,
        transform: StainTransform,
        tile_px: int,
        mpp: float,
        field_px: int,
        device: torch.device,
        clear_glass: bool = False,
    ) -> None:
        own_mpp = slide.known_mpp
        self.slide = slide
        self.channels = network.channels
        self.field_px = field_px
        self.gate_spread: float | None = None
        self._device = device
        self._glass_is_clear = clear_glass
        self._network = network.to(device).eval()
        self._gate: Tensor | None = None
        self._mpp = mpp
        self._factor = tile_px // field_px
        self._margin_px = network.sees_px + 1
        self._side_px = field_px + 2 * self._margin_px
        plain = transform.is_identity
        self._prepare = TilePreparation(
            tile_px=self._side_px * self._factor,
            out_px=self._side_px,
            matrix=None if plain else transform.matrix,
            offset=None if plain else transform.offset,
        ).to(device)
        self.pixel_um = mpp * tile_px / field_px
        self._size_um = slide.shape[0] * own_mpp[0], slide.shape[1] * own_mpp[1]
        self.level_shapes = _level_shapes(self._size_um, self.pixel_um, field_px)

    @property
    def offset_um(self) -> tuple[float, float]:
        """(y, x) of the centre of the first pixel of level 0, where that of the slide's first pixel is 0."""
        mpp = self.slide.known_mpp
        return (self.pixel_um - mpp[0]) / 2, (self.pixel_um - mpp[1]) / 2

    def field(self, key: FieldKey) -> CorrelatedField:
        """Read and represent one field.

        Parameters
        ----------
        key : FieldKey

        Returns
        -------
        CorrelatedField

        Raises
        ------
        SlideError
            If the slide was closed.
        """
        hidden, damaged = self._hidden(key)
        values = self._represent(hidden)
        if damaged is not None:
            values[:, damaged] = np.nan
        self._cut_off(key, values)
        if self._glass_is_clear:
            self._clear_glass(key, values)
        return CorrelatedField(key, values, damaged is not None)

    def fit(self, fields: int = SAMPLE_FIELDS) -> Generator[int, None, NDArray[np.float32]]:
        """Look at fields spread over the tissue: sets the gate of the slide, and gives a sample of values.

        Parameters
        ----------
        fields : int
            How many at most.

        Yields
        ------
        int
            Fields done.

        Returns
        -------
        (N, d) float32
            Evenly spaced pixels of these fields, for colours that hold for the whole slide.

        Raises
        ------
        SlideError
            If all of these fields are damaged.
        """
        sampled: list[tuple[Tensor, NDArray[np.bool_]]] = []
        for done, key in enumerate(self.sample_keys(fields)):
            hidden, damaged = self._hidden(key)
            known = np.ones((self.field_px, self.field_px), np.bool_) if damaged is None else ~damaged
            if known.any():
                sampled.append((hidden, known))
            yield done + 1
        if not sampled:
            raise SlideError(
                f"{self.slide.path.name} is damaged wherever it was sampled: copy it again from its source."
            )
        self._fit_gate([hidden for hidden, _ in sampled])
        values = []
        for hidden, known in sampled:
            pixels = self._represent(hidden)[:, known].T.astype(np.float32)
            values.append(pixels[:: max(1, len(pixels) // _SAMPLE_PIXELS)])
        return np.concatenate(values)

    def sample_keys(self, fields: int) -> list[FieldKey]:
        """Fields of level 0 spread evenly over the tissue, over the slide where there is none."""
        grid = self.slide.tile_grid(self._factor * self.field_px, self._mpp)
        keep = self.slide.tissue().keep(grid, 0.5) if min(grid.shape) else np.zeros((0, 0), np.bool_)
        places = np.argwhere(keep)
        if not len(places):
            side = self.field_px
            places = np.argwhere(np.ones([-(-size // side) for size in self.level_shapes[0]]))
        chosen = np.rint(np.linspace(0, len(places) - 1, min(fields, len(places)))).astype(np.int64)
        return [FieldKey(0, int(row), int(col)) for row, col in places[chosen]]

    @torch.inference_mode()
    def _hidden(self, key: FieldKey) -> tuple[Tensor, NDArray[np.bool_] | None]:
        """Encode a field, (d, s, s) with its margin, and say where it is damaged, (f, f)."""
        size_um, margin = self.pixel_um * 2**key.level, self._margin_px
        corner = (
            (key.row * self.field_px - margin) * size_um,
            (key.col * self.field_px - margin) * size_um,
        )
        area = read_area(
            self.slide,
            origin_um=corner,
            size_px=self._side_px * self._factor,
            mpp=self._mpp * 2**key.level,
        )
        tiles = torch.from_numpy(area.rgb)[None].to(self._device)
        hidden: Tensor = self._network.encode_he(self._network.stem(self._prepare(tiles)))[0]
        if area.damaged is None:
            return hidden, None
        side = self._side_px
        blocks = area.damaged.reshape(side, self._factor, side, self._factor).any(axis=(1, 3))
        reach = 2 * margin + 1
        wide = cv2.dilate(blocks.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
        inside = wide[margin:-margin, margin:-margin]
        return hidden, inside if inside.any() else None

    @torch.inference_mode()
    def _fit_gate(self, hidden: list[Tensor]) -> None:
        attention = self._network.weigh_he
        if not isinstance(attention, SqueezeExcitation):
            return
        means = torch.stack([each.mean(dim=(1, 2)) for each in hidden])
        gates = attention.gate(means[:, :, None, None])
        self._gate = attention.gate(means.mean(dim=0)[None, :, None, None])[0]
        if len(gates) > 1:
            self.gate_spread = float(((gates - self._gate).square().mean(dim=0).sqrt() / self._gate).mean())

    @torch.inference_mode()
    def _represent(self, hidden: Tensor) -> NDArray[np.float16]:
        """Turn (d, s, s) behind the encoder into (d, f, f) float16."""
        batch, margin = hidden[None], self._margin_px
        if self._gate is None:
            batch = self._network.weigh_he(batch)
        else:
            batch = batch * self._gate[None, :, None, None]
        fused = self._network.fuse(batch)[0, :, margin:-margin, margin:-margin]
        values: NDArray[np.float16] = fused.clamp_max(_LARGEST).half().contiguous().cpu().numpy()
        return values

    def _cut_off(self, key: FieldKey, values: NDArray[np.float16]) -> None:
        """Leave nothing where there is no slide."""
        size_um = self.pixel_um * 2**key.level
        for axis, number in ((0, key.row), (1, key.col)):
            # A pixel counts where its centre lies on the slide.
            last = int(self._size_um[axis] / size_um + 0.5) - number * self.field_px
            if last < self.field_px:
                np.moveaxis(values, axis + 1, 0)[max(last, 0) :] = np.nan

    def _clear_glass(self, key: FieldKey, values: NDArray[np.float16]) -> None:
        """Leave nothing where there is no tissue; a slide on which none was found is shown whole."""
        tissue, mpp = self.slide.tissue(), self.slide.known_mpp
        if not tissue.mask.any():
            return
        size_um = self.pixel_um * 2**key.level
        rows, columns = (
            ((number * self.field_px + np.arange(self.field_px) + 0.5) * size_um / own / step).astype(
                np.int64
            )
            for number, own, step in zip((key.row, key.col), mpp, tissue.downsample, strict=True)
        )
        height, width = tissue.mask.shape
        inside = tissue.mask[np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))]
        values[:, ~inside] = np.nan


_LARGEST = float(np.finfo(np.float16).max)


def _level_shapes(
    size_um: tuple[float, float], pixel_um: float, field_px: int
) -> tuple[tuple[int, int], ...]:
    height, width = (max(1, int(np.ceil(size / pixel_um - 1e-6))) for size in size_um)
    count = 1
    while max(height, width) > field_px << (count - 1):
        count += 1
    step = 1 << (count - 1)
    height, width = (-(-side // step) * step for side in (height, width))
    return tuple((height >> level, width >> level) for level in range(count))
