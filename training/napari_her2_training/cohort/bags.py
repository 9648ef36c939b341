"""Slides as bags of tile features, and the draw of training bags from them.

Abdulsadig et al. (arXiv:2411.05028): a slide uniformly at random, then K of its tiles without replacement;
classes are neither balanced nor weighted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_her2_training.measures.predictions import Predictions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from napari_her2.inference.device import Device


@dataclass(frozen=True, slots=True, eq=False)
class SlideBag:
    """All tiles of a slide.

    Parameters
    ----------
    case_id : str
    label : int
    features : (N, D) float16
    tumour : (N,) bool or None
        Which tiles are tumour, where that is known.
    precision : str
        In which the features were computed; empty where others computed them.
    """

    case_id: str
    label: int
    features: NDArray[np.float16]
    tumour: NDArray[np.bool_] | None = None
    precision: str = ""


def precision_of(bags: Iterable[SlideBag]) -> str | None:
    """Return the precision in which all features were computed; None where it is not known, or not one."""
    found = {bag.precision for bag in bags}
    return (found.pop() or None) if len(found) == 1 else None


def joined_bag(bags: Sequence[SlideBag]) -> SlideBag:
    """Return all tiles of the slides of a case as one bag, slide after slide in the order given.

    Parameters
    ----------
    bags : sequence of SlideBag
        Of one case; at least one.

    Returns
    -------
    SlideBag
        The very one that was given, where it is one. Tiles of slides without outlines count as no tumour
        where others have some.
    """
    first, *others = bags
    if not others:
        return first
    known = any(bag.tumour is not None for bag in bags)
    outlined = [np.zeros(len(bag.features), np.bool_) if bag.tumour is None else bag.tumour for bag in bags]
    return SlideBag(
        first.case_id,
        first.label,
        np.concatenate([bag.features for bag in bags]),
        np.concatenate(outlined) if known else None,
        precision_of(bags) or "",
    )


def draw_batch(
    bags: Sequence[SlideBag], *, bags_per_batch: int, size: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a batch of bags.

    Parameters
    ----------
    bags : sequence of SlideBag
    bags_per_batch, size : int
        Bags, and tiles a bag.
    rng : numpy Generator

    Returns
    -------
    features : (bags_per_batch, size, D) float32
    labels : (bags_per_batch,) int64
    tumour : (bags_per_batch, size) bool
        False where it is not known.
    """
    slides = rng.integers(0, len(bags), bags_per_batch)
    features, labels, tumour = [], [], []
    for bag in (bags[slide] for slide in slides):
        tiles = draw_tiles(len(bag.features), size, rng)
        features.append(bag.features[tiles])
        labels.append(bag.label)
        tumour.append(np.zeros(size, np.bool_) if bag.tumour is None else bag.tumour[tiles])
    return (
        torch.from_numpy(np.stack(features)).float(),
        torch.tensor(labels, dtype=torch.int64),
        torch.from_numpy(np.stack(tumour)),
    )


def draw_tiles(tiles: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw tile numbers without replacement, (size,) int64."""
    return rng.choice(tiles, size, replace=False)


def predict_bags(head: nn.Module, bags: Sequence[SlideBag], device: Device) -> Predictions:
    """Judge slides, each as one bag that holds all its tiles.

    Parameters
    ----------
    head : nn.Module
        A `napari_her2.models.aggregator.SlideAggregator`.
    bags : sequence of SlideBag
    device : Device
    """
    head.to(device.torch_device)
    with torch.inference_mode():
        given = (torch.from_numpy(bag.features).to(device.torch_device) for bag in bags)
        logits = torch.stack([head(features).logits for features in given])
    head.cpu()
    return predictions_of(bags, logits.cpu())


def predictions_of(bags: Sequence[SlideBag], logits: Tensor) -> Predictions:
    """Put together what was said of slides, given (slides, C) logits."""
    return Predictions(
        tuple(bag.case_id for bag in bags),
        np.array([bag.label for bag in bags], np.int64),
        torch.softmax(logits.double(), dim=-1).numpy(),
    )
