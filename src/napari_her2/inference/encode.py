"""Tiles in, features out: memory layout, copies and shortage of memory are dealt with here.

`EncoderRunner` is what embedding uses: one runner for an encoder on a device, fed with uint8 batches.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import nn

from napari_her2.errors import JobFailed
from napari_her2.inference.encoder_way import choose_way, computed
from napari_her2.inference.precision import name_of
from napari_her2.models.inference_graph import FUSED, for_inference
from napari_her2.models.shortage import is_out_of_memory, release

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.inference.device import Device
    from napari_her2.inference.tile_encoder import TileEncoder
    from napari_her2.models.inference_graph import InferenceGraph

_FLOAT16_MAX = float(np.finfo(np.float16).max)

_Module = TypeVar("_Module", bound=nn.Module)
_moving = threading.Lock()


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
        try:
            with _moving:
                encoder.to(device.torch_device).to(memory_format=torch.channels_last)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise JobFailed(_memory_advice(device, "the encoder itself")) from error
        encoder.eval()
        self._way, self._graph = choose_way(encoder, device)

    @property
    def precision(self) -> str:
        """The precision that the encoder computes in."""
        return name_of(self._way.autocast)

    @property
    def graph(self) -> str:
        """Name of the graph that computes; empty where the encoder is computed as it is."""
        return FUSED if self._way.graph else ""

    @property
    def note(self) -> str:
        """What a person should know of the computation: precision, and shortage of memory."""
        how = f"{self._way.note or self.precision}, {self.graph}" if self.graph else self._way.note
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
        graph = self._made_graph() if self._way.graph else None
        return self.batch_limit if graph is None else min(self.batch_limit, graph.batch)

    def _made_graph(self) -> InferenceGraph:
        """Return the graph; it is made when it is first needed, which may be never."""
        if self._graph is None:
            self._graph = for_inference(self.encoder, self.device.torch_device, self._way.autocast)
        assert self._graph is not None
        return self._graph

    def _attempt(self, batch: torch.Tensor) -> torch.Tensor | None:
        """Encode, or learn that fewer tiles fit: then None, and `batch_limit` is smaller."""
        try:
            with torch.inference_mode():
                encoder = self._made_graph() if self._way.graph else self.encoder
                features = computed(encoder, batch, self.device, self._way.autocast)
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
