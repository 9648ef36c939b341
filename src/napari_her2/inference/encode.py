"""Tiles in, features out: precision, memory layout and shortage of memory are dealt with here.

`EncoderRunner` is what embedding uses: one runner for an encoder on a device, fed with uint8 batches.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from napari_her2.errors import JobFailed
from napari_her2.inference.precision import VARIABLE, name_of
from napari_her2.models.inference_graph import CANNOT, FUSED, for_inference, has_graph
from napari_her2.models.shortage import is_out_of_memory, release

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.inference.device import Device
    from napari_her2.models.inference_graph import InferenceGraph

MIN_COSINE = 0.999
MAX_RELATIVE_ERROR = 0.05
MIN_GRAPH_COSINE = 0.9999
MAX_GRAPH_ERROR = 0.002
"""Of a graph in float32 against the encoder as it is, where only the order of additions differs."""
_FLOAT16_MAX = float(np.finfo(np.float16).max)

_Module = TypeVar("_Module", bound=nn.Module)
_moving = threading.Lock()

# How well lower precision and graphs agree with the encoder as it is, in float32, by encoder and device: a
# slide scored again need not wait for it. None where it does not work at all.
_compared: dict[tuple[str, str, torch.dtype | None, bool], tuple[float, float] | None] = {}


class TileSpec(Protocol):
    """Sizes of tiles and of what comes out."""

    @property
    def tile_px(self) -> int:
        """Side of a tile, pixels."""

    @property
    def dim(self) -> int:
        """Numbers a tile."""


class TileEncoder(Protocol):
    """What turns tiles into numbers: an `nn.Module` as `napari_her2.models.patch_encoder.PatchEncoder`."""

    @property
    def spec(self) -> TileSpec:
        """Its sizes."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(B, t, t, 3) uint8 to (B, D) float."""

    @property
    def exact(self) -> bool:
        """Whether it gives scores, which are never computed in lower precision, rather than features."""

    def fingerprint(self) -> str:
        """Tell it from all others: whoever shares it gives the same numbers."""

    def to(self, device: torch.device) -> nn.Module:
        """Move it to a device."""

    def eval(self) -> nn.Module:
        """Enter evaluation mode."""


@dataclass(frozen=True, slots=True, eq=False)
class PendingFeatures:
    """Features that a GPU may still be computing; `result` waits for them."""

    features: tuple[torch.Tensor, ...]
    event: torch.cuda.Event | None = None

    def result(self) -> NDArray[np.float16]:
        """Wait for the features.

        Returns
        -------
        (B, D) float16

        Raises
        ------
        JobFailed
            If the encoder gave something that is not a number.
        """
        if self.event is not None:
            self.event.synchronize()
        features = np.concatenate([part.numpy() for part in self.features])
        if np.isnan(features).any():
            raise JobFailed(
                "The encoder gave values that are not numbers: its weights are damaged or do not belong "
                "to it. Check the model with `napari-her2 models verify`."
            )
        return features


class EncoderRunner:
    """Runs one encoder on one device.

    Parameters
    ----------
    encoder : TileEncoder
        Moved to the device, in channels_last layout and evaluation mode.
    device : Device
    max_batch : int, default 1024
        Tiles computed at once at most; larger batches are cut.

    Attributes
    ----------
    note : str
        What a person should know: the precision used, and whether memory was short. May change with `run`.
    precision : str
        "float32", "bfloat16" or "float16": what the encoder computes in. It depends on the encoder, the
        device and what the user wants, never on the tiles or on timing, so that a resumed run gives the same
        features. Encoders that are `exact` compute in float32.
    graph : str
        Name of the `InferenceGraph` that computes; empty where the encoder is computed as it is.
    batch_limit : int
        Tiles computed at once at most, as learnt: halved whenever memory runs out.

    Raises
    ------
    JobFailed
        If the encoder itself does not fit into the memory of the device, or the user asked for a precision
        that does not suit it.
    """

    def __init__(self, encoder: TileEncoder, device: Device, *, max_batch: int = 1024) -> None:
        self.encoder = encoder
        self.device = device
        self.batch_limit = max(1, max_batch)
        self._memory_note = ""
        self._autocast: torch.dtype | None = None
        self._with_graph = False
        self._graph: InferenceGraph | None = None
        try:
            with _moving:
                encoder.to(device.torch_device).to(memory_format=torch.channels_last)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise JobFailed(_memory_advice(device, "the encoder itself")) from error
        encoder.eval()
        self._precision_note = self._choose_precision()

    @property
    def precision(self) -> str:
        """The precision that the encoder computes in."""
        return name_of(self._autocast)

    @property
    def graph(self) -> str:
        """Name of the graph that computes; empty where the encoder is computed as it is."""
        return FUSED if self._with_graph else ""

    @property
    def note(self) -> str:
        """What a person should know of the computation: precision, and shortage of memory."""
        how = (
            f"{self._precision_note or self.precision}, {self.graph}" if self.graph else self._precision_note
        )
        return "; ".join(part for part in (how, self._memory_note) if part)

    def run(self, images: NDArray[np.uint8] | torch.Tensor) -> NDArray[np.float16]:
        """Encode tiles.

        Parameters
        ----------
        images : (B, t, t, 3) uint8

        Returns
        -------
        (B, D) float16

        Raises
        ------
        JobFailed
            If not even one tile fits into memory.
        """
        return self.submit(images).result()

    def submit(self, images: NDArray[np.uint8] | torch.Tensor) -> PendingFeatures:
        """Start encoding tiles; on a GPU this returns before it is done, so that reading can go on.

        Parameters
        ----------
        images : (B, t, t, 3) uint8
            An array, which the caller may use again at once on a GPU, and after `PendingFeatures.result` on
            a CPU; or a tensor on the device.

        Returns
        -------
        PendingFeatures
        """
        if len(images) == 0:
            return PendingFeatures((torch.empty(0, self.encoder.spec.dim, dtype=torch.float16),))
        on_cuda = self.device.torch_device.type == "cuda"
        if isinstance(images, torch.Tensor):
            batch = images
        else:
            # PyTorch wants memory that it could write to, though nothing here does.
            batch = torch.from_numpy(np.require(images, np.uint8, ["C", "W"]))
            if on_cuda:
                batch = batch.pin_memory()
        parts: list[torch.Tensor] = []
        start = 0
        while start < len(batch):
            part = batch[start : start + self._at_once()]
            features = self._attempt(part)
            if features is not None:
                parts.append(features)
                start += len(part)
        if not on_cuda:
            return PendingFeatures(tuple(part.cpu() for part in parts))
        return _copy_back(parts)

    def _at_once(self) -> int:
        graph = self._made_graph() if self._with_graph else None
        return self.batch_limit if graph is None else min(self.batch_limit, graph.batch)

    def _made_graph(self) -> InferenceGraph:
        """Return the graph; it is made when it is first needed, which may be never."""
        if self._graph is None:
            self._graph = for_inference(self.encoder, self.device.torch_device, self._autocast)
        assert self._graph is not None
        return self._graph

    def _attempt(self, batch: torch.Tensor) -> torch.Tensor | None:
        """Encode, or learn that fewer tiles fit: then None, and `batch_limit` is smaller."""
        try:
            with torch.inference_mode():
                encoder = self._made_graph() if self._with_graph else self.encoder
                features = self._forward(encoder, batch, self._autocast)
                return features.float().clamp_(-_FLOAT16_MAX, _FLOAT16_MAX).half()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise JobFailed(_memory_advice(self.device, "a single tile")) from error
        # Outside the handler: only now are the frames that hold the failed attempt's tensors gone.
        self.batch_limit = max(1, len(batch) // 2)
        self._memory_note = f"memory was short: {self.batch_limit} tiles at once"
        release(self.device.torch_device)
        return None

    def _forward(
        self, encoder: TileEncoder | InferenceGraph, batch: torch.Tensor, autocast: torch.dtype | None
    ) -> torch.Tensor:
        batch = batch.to(self.device.torch_device, non_blocking=True)
        # Also where none is wanted: whoever calls may have autocast of their own.
        with torch.autocast(self.device.torch_device.type, dtype=autocast, enabled=autocast is not None):
            features: torch.Tensor = encoder(batch)
        return features

    def _choose_precision(self) -> str:
        """Use the device's lower precision where it agrees with float32, and the graph where it agrees too.

        Returns what to tell.
        """
        wanted = self.device.autocast_dtype
        if self.encoder.exact:
            return ""
        problem = ""
        if wanted is not None:
            if self._graph_agrees(wanted):
                self._autocast, self._with_graph = wanted, True
                return name_of(wanted)
            problem = self._disagreement(wanted)
            if not problem:
                self._autocast = wanted
                return name_of(wanted)
            if self.device.insisted:
                raise JobFailed(
                    f"{name_of(wanted)} was asked for ({VARIABLE}), but {problem}: set it to auto or float32."
                )
        self._with_graph = self._graph_agrees(None)
        return f"float32 ({problem})" if problem else ""

    def _graph_agrees(self, wanted: torch.dtype | None) -> bool:
        if not has_graph(self.encoder, self.device.torch_device, wanted):
            return False
        least, most = (MIN_COSINE, MAX_RELATIVE_ERROR) if wanted else (MIN_GRAPH_COSINE, MAX_GRAPH_ERROR)
        found = self._agreement(wanted, graph=True)
        agrees = found is not None and found[0] >= least and found[1] <= most
        if not agrees:
            self._graph = None
        return agrees

    def _disagreement(self, wanted: torch.dtype) -> str:
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
        key = (self.encoder.fingerprint(), self.device.name, wanted, graph)
        if key not in _compared:
            try:
                _compared[key] = self._compare(wanted, graph=graph)
            except (*CANNOT, MemoryError) as error:
                release(self.device.torch_device)
                if not graph:
                    raise
                if isinstance(error, RuntimeError | MemoryError) and is_out_of_memory(error):
                    return None  # another time there may be more
                _compared[key] = None
        return _compared[key]

    def _compare(self, wanted: torch.dtype | None, *, graph: bool) -> tuple[float, float]:
        trial = torch.from_numpy(_trial_tiles(self.encoder.spec.tile_px))
        with torch.inference_mode():
            exact = self._forward(self.encoder, trial, None).float()
            other: TileEncoder | InferenceGraph = self.encoder
            if graph:
                made = for_inference(self.encoder, self.device.torch_device, wanted)
                assert made is not None
                other = self._graph = made
            return agreement(exact, self._forward(other, trial, wanted).float())


def placed(module: _Module, device: torch.device) -> _Module:
    """Move what computes to a device: one thread at a time, for several may share it.

    Parameters
    ----------
    module : nn.Module
    device : torch.device

    Returns
    -------
    nn.Module
        The same one.
    """
    with _moving:
        module.to(device)
    return module


def encode(encoder: TileEncoder, images: NDArray[np.uint8], device: Device) -> NDArray[np.float16]:
    """Encode tiles once; for a stream of batches keep an `EncoderRunner`.

    Parameters
    ----------
    encoder : TileEncoder
    images : (B, t, t, 3) uint8
    device : Device

    Returns
    -------
    (B, D) float16
    """
    return EncoderRunner(encoder, device).run(images)


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


def _copy_back(parts: list[torch.Tensor]) -> PendingFeatures:
    """Queue the copies from the GPU into pinned memory, without waiting for them."""
    copies = []
    for part in parts:
        copy = torch.empty(part.shape, dtype=part.dtype, pin_memory=True)
        copies.append(copy.copy_(part, non_blocking=True))
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(parts[0].device))
    return PendingFeatures(tuple(copies), event)


def _memory_advice(device: Device, what: str) -> str:
    if device.torch_device.type == "cpu":
        return (
            f"The memory of this machine is too short for {what}: close other programs, "
            f"or use a smaller model."
        )
    return (
        f"The memory of {device.name} is too short for {what}: close other programs that use it, "
        f"choose a smaller model, or choose the device cpu."
    )


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
