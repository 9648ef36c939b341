"""The head of a bundle over the features of a slide, on the device where its memory suffices."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from napari_her2.errors import JobFailed
from napari_her2.inference.encode import is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

    from napari_her2.inference.device import Device
    from napari_her2.models.bundle import ModelBundle


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
    try:
        output = _apply(bundle, bags, device.torch_device)
    except (RuntimeError, MemoryError) as error:
        if device.torch_device.type == "cpu" or not is_out_of_memory(error):
            raise
        output = None
    # Outside the handler, whose traceback keeps the memory of the failed attempt.
    output = output if output is not None else _apply(bundle, bags, torch.device("cpu"))
    if not bool(torch.isfinite(output.logits).all()):
        raise JobFailed(
            f"{bundle.card.name} gave values that are not numbers: check it with `napari-her2 models verify`."
        )
    return output


def _apply(bundle: ModelBundle, bags: tuple[Tensor | None, ...], device: torch.device) -> Any:  # noqa: ANN401
    head = bundle.head.to(device).eval()
    # Whoever calls may have autocast of their own: scores are never computed in lower precision.
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        return to_cpu(head(*(None if bag is None else bag.to(device) for bag in bags)))


def to_cpu(value: Any) -> Any:  # noqa: ANN401 - of the type that was given
    """Bring a tensor, or the tensors of a dataclass, to the CPU; floats become float32."""
    if isinstance(value, torch.Tensor):
        value = value.cpu()
        return value.float() if value.is_floating_point() else value
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{item.name: to_cpu(getattr(value, item.name)) for item in fields(value)})
    return value
