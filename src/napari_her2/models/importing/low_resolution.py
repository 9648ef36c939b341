"""A ConvNeXt of timm as a model of one small image of the whole slide (Chauhan et al., arXiv:2503.22069)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.models.convnext import VARIANTS, build_convnext
from napari_her2.models.importing.networks import network_like
from napari_her2.models.importing.renaming import HeadRead, matrix, refuse_strangers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

_WHAT = "a ConvNeXt of timm"
_CLASSIFIER = "head.fc"


def read_low_resolution(tensors: Mapping[str, Tensor]) -> HeadRead:
    """Read a ConvNeXt with its classifier.

    Raises
    ------
    ModelError
        Naming the tensors that do not fit.
    """
    last = {f"{_CLASSIFIER}.weight", f"{_CLASSIFIER}.bias"}
    body = {name: tensor for name, tensor in tensors.items() if name not in last}

    def without_classifier(variant: str) -> nn.Module:
        network = build_convnext(variant, 2)
        network.reset_classifier(0)  # type: ignore[operator]
        return network

    variant = network_like(body, VARIANTS, without_classifier, _WHAT)
    refuse_strangers({*body, *last}, tensors, _WHAT)
    classes, width = matrix(tensors[f"{_CLASSIFIER}.weight"], f"{_CLASSIFIER}.weight", _WHAT)
    return HeadRead(
        "LowResolution",
        {"classes": classes, "variant": variant},
        {f"network.{name}": tensor for name, tensor in tensors.items()},
        {f"network.{name}": name for name in tensors},
        found=(("network", f"ConvNeXt {variant}, {width} features"),),
    )
