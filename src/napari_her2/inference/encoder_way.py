"""How an encoder is computed on a device: in which precision, layer by layer or as a graph.

Both are taken only where they agree with the encoder as it is, in float32, on tiles made for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_her2.errors import JobFailed
from napari_her2.inference.precision import VARIABLE, name_of
from napari_her2.models.inference_graph import CANNOT, for_inference, has_graph
from napari_her2.models.shortage import is_out_of_memory, release

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.inference.device import Device
    from napari_her2.inference.tile_encoder import TileEncoder
    from napari_her2.models.inference_graph import InferenceGraph

MIN_COSINE = 0.999
MAX_RELATIVE_ERROR = 0.05
MIN_GRAPH_COSINE = 0.9999
MAX_GRAPH_ERROR = 0.002
"""Of a graph in float32 against the encoder as it is, where only the order of additions differs."""

# How well lower precision and graphs agree with the encoder as it is, in float32, by encoder and device: a
# slide scored again need not wait for it. None where it does not work at all.
_compared: dict[tuple[str, str, torch.dtype | None, bool], tuple[float, float] | None] = {}


@dataclass(frozen=True, slots=True)
class Way:
    """How an encoder is computed.

    Parameters
    ----------
    autocast : torch.dtype or None
        The lower precision; None: float32.
    graph : bool
        Whether as an `InferenceGraph`.
    note : str
        What a person should know: the precision, and why not a lower one.
    """

    autocast: torch.dtype | None = None
    graph: bool = False
    note: str = ""


def choose_way(encoder: TileEncoder, device: Device) -> tuple[Way, InferenceGraph | None]:
    """Take the device's lower precision where it agrees with float32, and the graph where it agrees too.

    Parameters
    ----------
    encoder : TileEncoder
        On the device, in evaluation mode; one that is `exact` is computed in float32, layer by layer.
    device : Device

    Returns
    -------
    Way
    InferenceGraph or None
        The graph, where it had to be made to be compared.

    Raises
    ------
    JobFailed
        If the user asked for a precision that does not suit the encoder.
    """
    wanted = device.autocast_dtype
    if encoder.exact:
        return Way(), None
    trial, problem = _Trial(encoder, device), ""
    if wanted is not None:
        if trial.graph_agrees(wanted):
            return Way(wanted, graph=True, note=name_of(wanted)), trial.graph
        problem = trial.disagreement(wanted)
        if not problem:
            return Way(wanted, note=name_of(wanted)), None
        if device.insisted:
            raise JobFailed(
                f"{name_of(wanted)} was asked for ({VARIABLE}), but {problem}: set it to auto or float32."
            )
    note = f"float32 ({problem})" if problem else ""
    return Way(graph=trial.graph_agrees(None), note=note), trial.graph


def computed(
    encoder: TileEncoder | InferenceGraph,
    batch: torch.Tensor,
    device: Device,
    autocast: torch.dtype | None,
) -> torch.Tensor:
    """Compute an encoder on a device.

    Parameters
    ----------
    encoder : TileEncoder or InferenceGraph
    batch : (B, t, t, 3) uint8
        Anywhere.
    device : Device
    autocast : torch.dtype or None

    Returns
    -------
    (B, D) float
    """
    batch = batch.to(device.torch_device, non_blocking=True)
    # Also where none is wanted: whoever calls may have autocast of their own.
    with torch.autocast(device.torch_device.type, dtype=autocast, enabled=autocast is not None):
        features: torch.Tensor = encoder(batch)
    return features


class _Trial:
    """Comparisons of an encoder with itself, each made once a process."""

    def __init__(self, encoder: TileEncoder, device: Device) -> None:
        self.graph: InferenceGraph | None = None
        self._encoder = encoder
        self._device = device

    def graph_agrees(self, wanted: torch.dtype | None) -> bool:
        if not has_graph(self._encoder, self._device.torch_device, wanted):
            return False
        least, most = (MIN_COSINE, MAX_RELATIVE_ERROR) if wanted else (MIN_GRAPH_COSINE, MAX_GRAPH_ERROR)
        found = self._agreement(wanted, graph=True)
        agrees = found is not None and found[0] >= least and found[1] <= most
        if not agrees:
            self.graph = None
        return agrees

    def disagreement(self, wanted: torch.dtype) -> str:
        """Why the encoder cannot be computed in a lower precision; empty where it can."""
        try:
            found = self._agreement(wanted, graph=False)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                return "memory was too short to try a lower precision"
            return f"{name_of(wanted)} does not work with this encoder here"
        assert found is not None
        cosine, relative = found
        # Both: a common factor leaves the cosine at 1, and a small part of a large vector the error small.
        if cosine >= MIN_COSINE and relative <= MAX_RELATIVE_ERROR:
            return ""
        return f"{name_of(wanted)} differs too much here: cosine {cosine:.4f}, error {relative:.1%}"

    def _agreement(self, wanted: torch.dtype | None, *, graph: bool) -> tuple[float, float] | None:
        """Compare with the encoder as it is, once; None: the graph does not work with it."""
        key = (self._encoder.fingerprint(), self._device.name, wanted, graph)
        if key not in _compared:
            try:
                _compared[key] = self._compare(wanted, graph=graph)
            except (*CANNOT, MemoryError) as error:
                release(self._device.torch_device)
                if not graph:
                    raise
                if isinstance(error, RuntimeError | MemoryError) and is_out_of_memory(error):
                    return None  # another time there may be more
                _compared[key] = None
        return _compared[key]

    def _compare(self, wanted: torch.dtype | None, *, graph: bool) -> tuple[float, float]:
        trial = torch.from_numpy(_trial_tiles(self._encoder.spec.tile_px))
        with torch.inference_mode():
            exact = computed(self._encoder, trial, self._device, None).float()
            other: TileEncoder | InferenceGraph = self._encoder
            if graph:
                made = for_inference(self._encoder, self._device.torch_device, wanted)
                assert made is not None
                other = self.graph = made
            return agreement(exact, computed(other, trial, self._device, wanted).float())


def agreement(exact: torch.Tensor, rough: torch.Tensor) -> tuple[float, float]:
    """How well two computations of the same features agree.

    Parameters
    ----------
    exact, rough : (B, D) float

    Returns
    -------
    tuple of float
        The smallest cosine similarity over the tiles, and the largest difference relative to the
        largest exact value. Values that are not finite give (0, inf).
    """
    if not bool(torch.isfinite(exact).all()) or not bool(torch.isfinite(rough).all()):
        return 0.0, float("inf")
    exact, rough = exact.cpu(), rough.cpu()  # not every device has float64
    peak = float(exact.abs().max())
    if peak == 0.0:
        return (1.0, 0.0) if not bool(rough.any()) else (0.0, float("inf"))
    cosine = torch.nn.functional.cosine_similarity(exact.double(), rough.double(), dim=1)
    # A tile without any activation has no direction; the relative error alone speaks for it.
    cosine[(exact.abs().amax(1) == 0) & (rough.abs().amax(1) == 0)] = 1.0
    return float(cosine.min()), float((exact - rough).abs().max()) / peak


def _trial_tiles(tile_px: int, count: int = 4) -> NDArray[np.uint8]:
    """Tiles with colours and texture like stained tissue, always the same ones: (count, t, t, 3) uint8."""
    rng = np.random.default_rng(0)
    palette = np.array([[240, 238, 240], [222, 160, 195], [130, 80, 150]], np.float64)
    side = -(-tile_px // 8)
    coarse = palette[rng.integers(0, 3, (count, side, side))]
    tiles = coarse.repeat(8, 1).repeat(8, 2)[:, :tile_px, :tile_px] + rng.normal(
        0, 8, (count, tile_px, tile_px, 3)
    )
    return np.clip(tiles, 0, 255).astype(np.uint8)
