"""Where a ConvNeXt begins to learn: from the weights of another one, or from random ones, measured.

Random weights, as timm draws them, learn next to nothing from a few hundred images of slides, for two reasons
that are mended here before the first step:

- Layer scale (Touvron et al. 2021, arXiv:2103.17239) begins at 1e-6, for trainings of many thousand steps:
  until it has grown the blocks do nothing. It begins at 1.
- Seen from afar slides are alike: each pooled feature varies by a few percent of its mean between slides.
  The last normalisation begins with the mean and the deviation over training images taken out, as Mishkin and
  Matas (All you need is a good init, 2016, arXiv:1511.06422) do for every layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_her2.models.timm_backbones import fetch
from napari_her2.models.weights_file import check_tensors, read_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from napari_her2.models.low_resolution import LowResolution
    from napari_her2.models.patch_classifier import PatchConvNeXt
    from napari_her2_training.low_resolution.config import ConvNeXtConfig

IMAGENET: Mapping[str, str] = {
    "tiny": "convnext_tiny.fb_in22k_ft_in1k",
    "small": "convnext_small.fb_in22k_ft_in1k",
    "base": "convnext_base.fb_in22k_ft_in1k",
    "atto": "convnext_atto.d2_in1k",
}
"""Weights of timm, by variant; their licences are Apache-2.0."""
HEAD_SCALE = 0.001
"""A new classifier on learnt weights begins this small, as in the published fine-tuning."""
MEASURED_IMAGES = 512
"""From so many training images random weights are measured at most."""
_CLASSIFIER = "head.fc."
_LAYER_SCALE = "gamma"
_LEAST_DEVIATION = 1e-3


def start_from(network: torch.nn.Module, config: ConvNeXtConfig) -> None:
    """Load the weights that training begins with; the classifier stays new.

    Parameters
    ----------
    network : nn.Module
        A ConvNeXt of timm.
    config : ConvNeXtConfig

    Raises
    ------
    ModelError
        If they cannot be had, or are those of something else.
    """
    if config.weights == "random":
        return
    if config.weights == "pretrained":
        import timm  # seconds to import: only for those who need it

        name = IMAGENET[config.variant]
        given = fetch(lambda: timm.create_model(name, pretrained=True).state_dict(), f"timm:{name}")
    else:
        name = Path(config.weights).name
        given = dict(read_weights(Path(config.weights).expanduser()).tensors)
    # Of timm, or of a bundle of ours.
    given = {key.removeprefix("head.network."): value for key, value in given.items()}
    wanted = network.state_dict()
    body = {key: value for key, value in given.items() if not key.startswith(_CLASSIFIER)}
    check_tensors({key: value for key, value in wanted.items() if key not in _own(wanted)}, body, name)
    network.load_state_dict(body | {key: wanted[key] * HEAD_SCALE for key in _own(wanted)})


def measure_start(model: LowResolution | PatchConvNeXt, batches: Iterable[Tensor]) -> None:
    """Make random weights ready to learn: layer scale, and the last normalisation by what images give.

    Parameters
    ----------
    model : LowResolution or PatchConvNeXt
        On the CPU.
    batches : iterable of (B, 3, S, S) float
        Training images, RGB in [0, 1]; two images or more.
    """
    network: Any = model.network
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(_LAYER_SCALE):
                parameter.fill_(1)
    model.eval()
    with torch.inference_mode():
        pooled = torch.cat([_pooled(model, images) for images in batches])
    deviation, mean = torch.std_mean(pooled, dim=0)
    deviation = deviation.clamp_min(_LEAST_DEVIATION)
    norm = network.head.norm
    with torch.no_grad():
        # What the normalisation gives is scaled and shifted by these two, so they can hold it all.
        norm.bias.copy_((norm.bias - mean) / deviation)
        norm.weight.div_(deviation)
    model.train()


def _pooled(model: LowResolution | PatchConvNeXt, images: Tensor) -> Tensor:
    """(B, D) that the classifier takes."""
    network: Any = model.network
    features = network.forward_features(model.normalise(images))
    pooled: Tensor = network.forward_head(features, pre_logits=True)
    return pooled


def _own(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    return tuple(key for key in state if key.startswith(_CLASSIFIER))
