"""Grad-CAM: where in a field a predictor found what speaks for a class.

Selvaraju et al., Grad-CAM, 2017 (arXiv:1610.02391), as Dutta et al. 2025 (Corr-A-Net, Eq. 10) use it. With
A the K maps that leave a layer, N their pixels and y the logit of the class::

    weight_k = sum over pixels of dy / dA_k / N
    map = ReLU(sum over k of weight_k A_k)

The layer is by default the one that the predictor names (`Predictor.cam_layer`); the tokens of a transformer
become maps by `Predictor.cam_maps`. A map shows regions that the model used, not regions that are
HER2-positive.

Values are raw, in logits: nothing is scaled to its own minimum and maximum, so that maps of different
fields of one model, layer and class compare. Whoever shows them sets the limits over all of them.

PyTorch's autograd does the gradients. The pass runs without a graph up to the layer and with one only from
there to the logits: whatever lies ahead (Corr-A-Net, nearly all of the predictor) costs the memory of plain
prediction, and whether its weights ask for gradients does not matter.

Differences from the paper
--------------------------
- Dutta et al. print no ReLU; Selvaraju et al. do, and it is taken.
- Which class is explained is not stated: any can be.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_her2.errors import ModelError
from napari_her2.models.predictors import Predictor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_her2.models.tile_models import FieldHead


def grad_cam(
    model: FieldHead | Predictor, fields: Tensor, class_index: int | Tensor, layer: str | None = None
) -> Tensor:
    """Grad-CAM of a class for each field.

    May run in several threads at once, and inside ``torch.inference_mode``. Leaves hooks, modes and
    gradients of the model as they were.

    Parameters
    ----------
    model : FieldHead or Predictor
    fields : (B, C, H, W) float
        What the model takes, on its device.
    class_index : int or (B,) int64
        The class to explain, one for all fields or each its own.
    layer : str, optional
        Name below the predictor, for ``get_submodule``; by default its `cam_layer`. Of a transformer, one
        that gives all tokens.

    Returns
    -------
    (B, h, w) float32
        At the layer's own resolution, at least 0; `upsample_maps` brings it to the field.

    Raises
    ------
    ModelError
        If there is no such class or layer, or the logits do not depend on that layer.
    """
    predictor = model if isinstance(model, Predictor) else model.predictor
    name = predictor.cam_layer if layer is None else layer
    watched = _Cut()
    # Inside inference mode no gradient exists; no_grad also puts back the mode that the cut switches on.
    with (
        torch.inference_mode(mode=False),
        torch.no_grad(),
        torch.autocast(fields.device.type, enabled=False),
        evaluating(model),
        watched.at(_find(predictor, name)),
    ):
        # A copy: indices made in inference mode would be refused too.
        classes = _chosen(class_index, len(fields), predictor.classes).to(fields.device).clone()
        logits = model(fields).logits
        activations = watched.activations
        if activations is None or not logits.requires_grad:
            raise _unused(name)
        score = logits.gather(1, classes[:, None]).sum()
        (slopes,) = torch.autograd.grad(score, activations, allow_unused=True)
        if slopes is None:
            raise _unused(name)
    with torch.no_grad(), torch.autocast(fields.device.type, enabled=False):
        maps = predictor.cam_maps(activations.detach()).float()
        weights = predictor.cam_maps(slopes).float().mean(dim=(2, 3))
        return torch.einsum("bk,bkhw->bhw", weights, maps).relu_()


def upsample_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring maps to another size, bilinearly.

    Parameters
    ----------
    maps : (B, h, w) float
    size : tuple of int
        (height, width).

    Returns
    -------
    (B, height, width) float
    """
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and each of its parts back into its own mode behind the block.

    Parameters
    ----------
    model : nn.Module
    """
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


class _Cut:
    """Cuts the pass at a layer: what leaves it becomes the leaf of a new graph, which begins there."""

    def __init__(self) -> None:
        self.activations: Tensor | None = None
        self._thread = threading.get_ident()

    @contextmanager
    def at(self, layer: nn.Module) -> Iterator[None]:
        handle = layer.register_forward_hook(self._cut)
        try:
            yield
        finally:
            handle.remove()

    def _cut(self, _module: nn.Module, _inputs: object, output: object) -> Tensor | None:
        # Another thread may be predicting with the same model.
        if threading.get_ident() != self._thread or not isinstance(output, Tensor):
            return None
        self.activations = output.detach().clone().requires_grad_()
        torch.set_grad_enabled(True)
        # A copy goes on, since what follows may work in place, which a leaf does not allow.
        return self.activations.clone()


def _chosen(class_index: int | Tensor, fields: int, classes: int) -> Tensor:
    """(fields,) int64."""
    chosen = torch.full((fields,), class_index) if isinstance(class_index, int) else class_index.long()
    if chosen.shape != (fields,):
        raise ModelError(
            f"Name one class, or one for each of the {fields} fields, not {tuple(chosen.shape)} of them."
        )
    if fields and not bool(((chosen >= 0) & (chosen < classes)).all()):
        raise ModelError(f"The model knows classes 0 to {classes - 1}: choose one of them to explain.")
    return chosen


def _find(predictor: Predictor, name: str) -> nn.Module:
    try:
        return predictor.get_submodule(name)
    except AttributeError:
        raise ModelError(
            f"{predictor.architecture} has no layer {name!r:.80}: leave it out to take {predictor.cam_layer}."
        ) from None


def _unused(name: str) -> ModelError:
    return ModelError(f"The scores do not come through {name!r:.80}: choose a layer that they depend on.")
