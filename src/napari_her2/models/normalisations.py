"""Normalisations of colour that weights were trained with, by name; facts without torch."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Normalisation(NamedTuple):
    """Mean and standard deviation of RGB on [0, 1], as used when the weights were trained."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NORMALISATIONS: Mapping[str, Normalisation] = MappingProxyType(
    {
        "none": Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        "imagenet": IMAGENET,
        # The next two exceed 1 although pixels do not: the public scripts of the paper apply them to pixels
        # on [0, 1] all the same, so weights trained with them need them as they are.
        "pcam": Normalisation((1.0294, 0.5995, 1.3757), (0.8379, 1.0470, 0.8024)),
        "ihc": Normalisation((1.4128, 1.4503, 1.5884), (0.5338, 0.6164, 0.6477)),
    }
)
