"""TransMIL as its repository saves it (Shao et al. 2021, arXiv:2106.00908).

It runs as published (``faithful``): always by landmarks, of which there are half as many as a token is wide,
with padding that takes part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.errors import ModelError
from napari_her2.models.importing.renaming import HeadRead, Renaming, matrix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_WHAT = "TransMIL"
KERNEL = 33
"""Tokens that the convolution along the sequence sees."""


def read_transmil(tensors: Mapping[str, Tensor]) -> HeadRead:
    """Read TransMIL.

    Raises
    ------
    ModelError
        Naming the tensors that do not fit.
    """
    names = Renaming()
    names.layer("_fc1.0", "embed.0")
    names.tensor("cls_token", "token", lambda token: token.reshape(-1))
    for theirs, ours in (("layer1", "first"), ("layer2", "second")):
        names.layer(f"{theirs}.norm", f"{ours}.norm")
        name_attention(names, f"{theirs}.attn", ours, along="along")
    for theirs, ours in (("proj", "wide"), ("proj1", "middle"), ("proj2", "narrow")):
        names.layer(f"pos_layer.{theirs}", f"position.{ours}")
    names.layer("norm", "norm")
    names.layer("_fc2", "classifier")
    renamed, origins = names.applied(tensors, _WHAT)
    width, features = matrix(renamed["embed.0.weight"], origins["embed.0.weight"], _WHAT)
    classes, _ = matrix(renamed["classifier.weight"], origins["classifier.weight"], _WHAT)
    heads = heads_of(renamed["first.along.weight"], origins["first.along.weight"], width, _WHAT)
    return HeadRead(
        "TransMIL",
        {
            "features": features,
            "width": width,
            "heads": heads,
            "landmarks": width // 2,
            "classes": classes,
            "attention": "nystrom",
            "faithful": True,
        },
        renamed,
        origins,
        found=(
            ("layer in front", f"{features} to {width}"),
            ("attention", f"{heads} heads, {width // 2} landmarks, as published"),
        ),
    )


def name_attention(names: Renaming, theirs: str, ours: str, *, along: str) -> None:
    """Name the tensors of an attention by landmarks; ``along`` is what its convolution is called here."""
    names.layer(f"{theirs}.to_qkv", f"{ours}.qkv", bias=False)
    names.layer(f"{theirs}.to_out.0", f"{ours}.project")
    names.layer(f"{theirs}.res_conv", f"{ours}.{along}", bias=False)


def heads_of(kernel: Tensor, name: str, width: int, what: str) -> int:
    """Return the heads of an attention, by its convolution along the sequence.

    Raises
    ------
    ModelError
        If it is not that of the published code.
    """
    shape = tuple(kernel.shape)
    if len(shape) != 4 or shape[1:] != (1, KERNEL, 1) or width % shape[0]:
        raise ModelError(
            f"The checkpoint is no {what}: {name} has shape {shape}, not (heads, 1, {KERNEL}, 1) with heads "
            f"that share {width} units. Choose the kind that it is."
        )
    return int(shape[0])
