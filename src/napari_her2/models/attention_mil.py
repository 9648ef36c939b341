"""Attention MIL on the features themselves: one plain attention branch and a linear classifier.

Abdulsadig, Williams and Burlutskiy, Leveraging transfer learning and multiple instance learning for HER2
automatic scoring of H&E whole slide images, 2024 (arXiv:2411.05028). It is `napari_her2.models.abmil.ABMIL`
without layers in front and without a gate (equation 8 of Ilse et al.). For a bag of K tile features h_k::

    e_k = w · tanh(V h_k + b_V) + b_w
    a   = softmax(e) over the tiles
    z   = sum_k a_k h_k
    logits = W z + b

Differences from the paper
--------------------------
- Any number of tiles in a bag, and padded batches with a mask; the slide's bag holds all its tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_her2.models.abmil import ABMIL

if TYPE_CHECKING:
    from torch import nn

# Names of its weights in bundles and checkpoints, and here.
_NAMES = {"project.": "attend.project.", "attend.": "attend.score."}


class AttentionMIL(ABMIL):
    """Attention MIL, non-gated.

    Parameters
    ----------
    features : int, default 1024
        Length of a tile's feature vector, D.
    hidden : int, default 256
        Width of the attention branch.
    classes : int, default 4

    Examples
    --------
    >>> import torch
    >>> head = AttentionMIL(features=1024, hidden=256, classes=4)
    >>> sum(parameter.numel() for parameter in head.parameters())
    266757
    >>> output = head(torch.zeros(10, 1024))
    >>> output.logits.shape, output.evidence.shape
    (torch.Size([4]), torch.Size([10, 4]))
    """

    def __init__(self, features: int = 1024, hidden: int = 256, classes: int = 4) -> None:
        super().__init__(
            features=features, widths=(), hidden=hidden, classes=classes, gated=False, dropout=0.0
        )
        self.hidden = hidden
        self.register_state_dict_post_hook(_named_as_stored)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_named_as_here)  # type: ignore[no-untyped-call]


def _named_as_stored(_: nn.Module, state: dict[str, Any], prefix: str, *__: object) -> None:
    _rename(state, {f"{prefix}{here}": f"{prefix}{stored}" for stored, here in _NAMES.items()})


def _named_as_here(_: nn.Module, state: dict[str, Any], prefix: str, *__: object) -> None:
    _rename(state, {f"{prefix}{stored}": f"{prefix}{here}" for stored, here in _NAMES.items()})


def _rename(state: dict[str, Any], names: dict[str, str]) -> None:
    """Rename keys by their start; their order stays."""
    renamed = {}
    for key, value in state.items():
        start = next((name for name in names if key.startswith(name)), "")
        renamed[names.get(start, "") + key.removeprefix(start)] = value
    state.clear()
    state.update(renamed)
