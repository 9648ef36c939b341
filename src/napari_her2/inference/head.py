"""The head of a bundle over the features of a slide, on the device where its memory suffices."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from napari_her2.errors import JobFailed
from napari_her2.inference.encode import placed
from napari_her2.models.architectures import ARCHITECTURES
from napari_her2.models.shortage import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from napari_her2.inference.device import Device
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.card import ModelCard

_Found = TypeVar("_Found")


class RoomyDevice:
    """A device, and the CPU from the first time on that its memory does not suffice.

    Parameters
    ----------
    device : Device
    bundle : ModelBundle
        Whose head is to compute.
    """

    def __init__(self, device: Device, bundle: ModelBundle) -> None:
        self._bundle = bundle
        self._device = device.torch_device

    def run(self, compute: Callable[[nn.Module, torch.device], _Found]) -> _Found:
        """Compute with the head, which is given with its device.

        Parameters
        ----------
        compute : callable
        """
        if self._device.type != "cpu":
            try:
                return self._on_device(compute)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the handler, whose traceback keeps the memory of the failed attempt.
            self._device = torch.device("cpu")
        return self._run(compute, head_on_cpu(self._bundle))

    def _on_device(self, compute: Callable[[nn.Module, torch.device], _Found]) -> _Found:
        return self._run(compute, placed(self._bundle.head, self._device))

    def _run(self, compute: Callable[[nn.Module, torch.device], _Found], head: nn.Module) -> _Found:
        # Whoever calls may have autocast of their own: scores are never computed in lower precision.
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            return compute(head.eval(), self._device)


def run_head(bundle: ModelBundle, device: Device, compute: Callable[[Any, torch.device], _Found]) -> _Found:
    """Compute with the head over the tiles of whole slides.

    Parameters
    ----------
    bundle : ModelBundle
    device : Device
    compute : callable
        Takes the head and where it is; what it gives is brought to the CPU, floats in float32.
    """

    def on_cpu(head: nn.Module, place: torch.device) -> _Found:
        found: _Found = to_cpu(compute(head, place))
        return found

    return RoomyDevice(device, bundle).run(on_cpu)


def tile_numbers(
    bundle: ModelBundle, device: Device, features: NDArray[np.floating], *before: object
) -> tuple[NDArray[np.float32], ...]:
    """Return what the head makes of each tile by itself (`SlideAggregator.tiles`).

    Parameters
    ----------
    bundle : ModelBundle
    device : Device
    features : (N, D) float
    *before
        What the head takes ahead of the features.

    Returns
    -------
    tuple of (N, any) float32
    """
    held = torch.from_numpy(features)

    def made(head: Any, place: torch.device) -> tuple[Tensor, ...]:  # noqa: ANN401 - of the method
        parts: tuple[Tensor, ...] = head.tiles(*before, held.to(place))
        return parts

    return tuple(part.numpy() for part in run_head(bundle, device, made))


def head_on_cpu(bundle: ModelBundle) -> nn.Module:
    """Return the head on the CPU: a copy where it is elsewhere, since others may be using it there.

    Parameters
    ----------
    bundle : ModelBundle
    """
    weights = bundle.head.state_dict()
    if all(tensor.device.type == "cpu" for tensor in weights.values()):
        return bundle.head
    head = ARCHITECTURES[bundle.card.architecture].build(bundle.card)
    head.load_state_dict({name: tensor.cpu() for name, tensor in weights.items()})
    return head.requires_grad_(False).eval()


def refuse_nonsense(card: ModelCard, *numbers: Tensor) -> None:
    """Refuse what is not a number.

    Parameters
    ----------
    card : ModelCard
    *numbers : Tensor

    Raises
    ------
    JobFailed
    """
    if not all(bool(torch.isfinite(each).all()) for each in numbers):
        raise JobFailed(
            f"{card.name} gave values that are not numbers: check it with `napari-her2 models verify`."
        )


def to_cpu(value: Any) -> Any:  # noqa: ANN401 - of the type that was given
    """Bring a tensor, or the tensors of a tuple or a dataclass, to the CPU; floats become float32."""
    return on_device(value, torch.device("cpu"))


def on_device(value: Any, place: torch.device) -> Any:  # noqa: ANN401 - of the type that was given
    """Bring a tensor, or the tensors of a tuple or a dataclass, to a device; floats become float32."""
    if isinstance(value, tuple):
        return tuple(on_device(part, place) for part in value)
    if isinstance(value, torch.Tensor):
        value = value.to(place)
        return value.float() if value.is_floating_point() else value
    if is_dataclass(value) and not isinstance(value, type):
        moved = {item.name: on_device(getattr(value, item.name), place) for item in fields(value)}
        return replace(value, **moved)
    return value
