"""A slide of H&E prepared for a model of fields: its stains brought to those that the model learnt from.

The stains of a slide are fitted once, whoever asks first: scoring, Grad-CAM or the representation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

from napari_her2.inference.encode import placed
from napari_her2.models.preprocessing import TilePreparation
from napari_her2.slide.macenko import IDENTITY, fit_slide, he_transform
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_her2.inference.device import Device
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.tile_models import FieldHead
    from napari_her2.slide.macenko import StainTransform
    from napari_her2.slide.reader import Slide


@dataclass(frozen=True, slots=True, eq=False)
class PreparedFields:
    """A model of fields and a slide, ready for each other.

    Parameters
    ----------
    head : FieldHead
        In evaluation mode, on its device.
    transform : StainTransform
        Of the slide.
    preparation : TilePreparation
        With that transform, on the same device.
    cache_salt : str
        Of scores of these fields.
    warnings : tuple of str
        What a result has to carry.
    """

    head: FieldHead
    transform: StainTransform
    preparation: TilePreparation
    cache_salt: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Stains:
    """What brings the stains of a slide to the reference, or why they stay as scanned."""

    transform: StainTransform
    fallback: str | None


_stains: WeakKeyDictionary[Slide, dict[float, _Stains]] = WeakKeyDictionary()


def prepared_fields(
    slide: Slide, bundle: ModelBundle, device: Device
) -> Generator[Progress, None, PreparedFields]:
    """Measure the stains of a slide, once, and put the model on its device.

    Parameters
    ----------
    slide : Slide
    bundle : ModelBundle
        Its head is a `FieldHead`.
    device : Device

    Yields
    ------
    Progress

    Returns
    -------
    PreparedFields
    """
    yield Progress("Measuring the stains", note=device.name)
    card, stains = bundle.card, slide_stains(slide, bundle.card.mpp)
    transform = stains.transform
    plain = transform.is_identity
    preparation = TilePreparation(
        tile_px=card.tile_px,
        out_px=cast("FieldHead", bundle.head).field_px,
        matrix=None if plain else transform.matrix,
        offset=None if plain else transform.offset,
    )
    warnings: tuple[str, ...] = ()
    if stains.fallback is not None:
        warnings = (
            f"The stains of the slide could not be normalised ({stains.fallback}): colours are as scanned.",
        )
    return PreparedFields(
        cast("FieldHead", placed(bundle.head, device.torch_device).eval()),
        transform,
        preparation.to(device.torch_device),
        f"fields {card.tile_px} {transform.matrix.tolist()} {transform.offset.tolist()}",
        warnings,
    )


def slide_stains(slide: Slide, mpp: float) -> _Stains:
    """Fit the stains of a slide at a scale, once.

    Parameters
    ----------
    slide : Slide
    mpp : float
        µm per pixel of the fields.
    """
    known = _stains.setdefault(slide, {})
    if mpp not in known:
        fit = fit_slide(slide, mpp=mpp)
        known[mpp] = _Stains(IDENTITY if fit.fallback is not None else he_transform(fit), fit.fallback)
    return known[mpp]
