"""DSMIL as its repository saves it (Li et al. 2021, arXiv:2011.08939), in both spellings of its first stream.

With one output (one sigmoid, positive against negative) it becomes two logits of which the first is 0; both
then share the tile that the first stream finds best.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_her2.errors import ModelError
from napari_her2.models.importing.renaming import HeadRead, Renaming, as_two_logits, matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

_WHAT = "DSMIL"
_SPELLINGS = ("i_classifier.fc.0", "i_classifier.1")


def read_dsmil(tensors: Mapping[str, Tensor]) -> HeadRead:
    """Read DSMIL.

    Raises
    ------
    ModelError
        Naming the tensors that do not fit.
    """
    first = next((name for name in _SPELLINGS if f"{name}.weight" in tensors), _SPELLINGS[0])
    projects = any(name.startswith("b_classifier.v.") for name in tensors)
    conv = tensors.get("b_classifier.fcc.weight")
    sigmoid = conv is not None and conv.ndim == 3 and len(conv) == 1
    names = Renaming()
    for part in ("weight", "bias"):
        names.tensor(f"{first}.{part}", f"score.{part}", _twice if sigmoid else None)
    names.layer("b_classifier.q.0", "query.0")
    names.layer("b_classifier.q.2", "query.2")
    if projects:
        names.layer("b_classifier.v.1", "value.1")
    for part, make in (("weight", _square), ("bias", as_two_logits)):
        chosen: Callable[[Tensor], Tensor] | None = make if sigmoid else None
        names.tensor(f"b_classifier.fcc.{part}", part, chosen)
    renamed, origins = names.applied(tensors, _WHAT)
    classes, features = matrix(renamed["score.weight"], origins["score.weight"], _WHAT)
    hidden, _ = matrix(renamed["query.0.weight"], origins["query.0.weight"], _WHAT)
    if renamed["weight"].ndim != 3:
        raise ModelError(
            f"The checkpoint is no {_WHAT}: {origins['weight']} has shape {tuple(renamed['weight'].shape)} "
            f"instead of three axes. Choose the kind that it is."
        )
    return HeadRead(
        "DSMIL",
        {
            "features": features,
            "hidden": hidden,
            "classes": classes,
            "project_values": projects,
            "average": False,
        },
        renamed,
        origins,
        found=(
            ("queries", f"{hidden} units"),
            ("values", "projected" if projects else "the features themselves"),
        ),
        sigmoid=sigmoid,
    )


def _twice(row: Tensor) -> Tensor:
    return torch.cat([row, row])


def _square(weight: Tensor) -> Tensor:
    """(1, 1, D) to (2, 2, D): the second logit sees the vector of the second class."""
    square = weight.new_zeros(2, 2, weight.shape[-1])
    square[1, 1] = weight[0, 0]
    return square
