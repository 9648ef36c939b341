"""A model of fields made ready for a slide, as Grad-CAM and the representation need it, without Qt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from napari_her2._napari.torch_import import load_torch
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_her2._napari.settings import Settings
    from napari_her2.inference.device import Device
    from napari_her2.inference.prepared import PreparedFields
    from napari_her2.methods.method import Explanation
    from napari_her2.models.card import ModelCard
    from napari_her2.slide.reader import Slide


@dataclass(frozen=True, slots=True, eq=False)
class ReadyFields:
    """A model and a slide, ready for each other.

    Parameters
    ----------
    card : ModelCard
    device : Device
    fields : PreparedFields
    warnings : tuple of str
    """

    card: ModelCard
    device: Device
    fields: PreparedFields
    warnings: tuple[str, ...]


def preparing_fields(
    slide: Slide, model: str, settings: Settings, explanation: Explanation
) -> Generator[Progress, None, ReadyFields]:
    """Load a model, find the tissue of a slide, and measure its stains.

    Parameters
    ----------
    slide : Slide
    model : str
        Name of the model.
    settings : Settings
    explanation : str
        What is asked of the model.

    Raises
    ------
    ModelError
        If the model cannot be explained so, or was not made for the slide.
    """
    yield Progress("Loading the model")
    load_torch()
    from napari_her2.inference.device import choose_device
    from napari_her2.inference.fit import refuse_or_warn, slide_stain
    from napari_her2.inference.loaded import loaded_bundle
    from napari_her2.inference.prepared import prepared_fields
    from napari_her2.methods.catalogue import model_named, refuse_unexplained

    device = choose_device(settings.device)
    bundle = model_named(model, partial(loaded_bundle, device=device))
    card = bundle.card
    refuse_unexplained(card, explanation)
    yield Progress("Finding tissue", note=device.name)
    stain = slide_stain(slide, slide.tissue(), "auto")
    warnings = refuse_or_warn(slide, card, stain, wanted=card.stain, override=False)
    fields = yield from prepared_fields(slide, bundle, device)
    return ReadyFields(card, device, fields, warnings + fields.warnings)
