"""The head of a bundle over the features of a slide, on the device where its memory suffices."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from napari_her2.errors import JobFailed
from napari_her2.inference.encode import is_out_of_memory, placed
from napari_her2.models.architectures import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Callable

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


def run_head(bundle: ModelBundle, device: Device, *bags: Tensor | None) -> Any:  # noqa: ANN401 - of the method
    """Apply the head to whole slides.

    Parameters
    ----------
    bundle : ModelBundle
    device : Device
    *bags : (N, D) float or None
        What the head takes, in its order.

    Returns
    -------
    object
        What the head gives, its tensors on the CPU and its floats in float32.

    Raises
    ------
    JobFailed
        If the logits are not numbers.
    """

    def apply(head: nn.Module, place: torch.device) -> Any:  # noqa: ANN401 - of the method
        return to_cpu(head(*(None if bag is None else bag.to(place) for bag in bags)))

    output = RoomyDevice(device, bundle).run(apply)
    refuse_nonsense(bundle.card, output.logits)
    return output


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
    """Bring a tensor, or the tensors of a dataclass, to the CPU; floats become float32."""
    if isinstance(value, torch.Tensor):
        value = value.cpu()
        return value.float() if value.is_floating_point() else value
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{item.name: to_cpu(getattr(value, item.name)) for item in fields(value)})
    return value
