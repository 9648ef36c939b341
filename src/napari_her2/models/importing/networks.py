"""Networks of timm as checkpoints: which of ours one is, told by the names and shapes of its tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_her2.errors import ModelError
from napari_her2.models.importing.renaming import refuse_strangers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor, nn


def network_like(
    tensors: Mapping[str, Tensor], candidates: Iterable[str], build: Callable[[str], nn.Module], what: str
) -> str:
    """Find the network whose tensors are those of a checkpoint.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Without those of its classifier.
    candidates : iterable of str
    build : callable
        Builds a candidate without its classifier; it is called without memory.
    what : str
        Kind of the checkpoint, for messages.

    Returns
    -------
    str

    Raises
    ------
    ModelError
        If it is none of them, naming what the nearest lacks or has too much.
    """
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    nearest: tuple[int, str, dict[str, tuple[int, ...]]] | None = None
    for candidate in candidates:
        with torch.device("meta"):
            wanted = {name: tuple(part.shape) for name, part in build(candidate).state_dict().items()}
        if wanted == given:
            return candidate
        apart = len(set(wanted.items()) ^ set(given.items()))
        if nearest is None or apart < nearest[0]:
            nearest = (apart, candidate, wanted)
    if nearest is None:
        raise ModelError(f"There is no network to read {what} as: update napari-her2.")
    _, candidate, wanted = nearest
    label = f"{what} (nearest: {candidate})"
    refuse_strangers(wanted, given, label)
    different = [
        f"{name} is {given[name]} instead of {shape}"
        for name, shape in wanted.items()
        if given[name] != shape
    ]
    raise ModelError(
        f"The tensors of the checkpoint do not fit {label}: {'; '.join(different[:12])}"
        f"{' and more' if len(different) > 12 else ''}. Choose the kind that it is."
    )
