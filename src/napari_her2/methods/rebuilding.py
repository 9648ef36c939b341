"""What a scoring kept, made again from what lies on disk, for a result that outlived the scoring itself."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from napari_her2.errors import Her2Error
from napari_her2.inference.device import choose_device
from napari_her2.inference.further import FurtherSlide
from napari_her2.inference.job import ScoringJob
from napari_her2.inference.kept_scoring import KeptScoring, NotComputed
from napari_her2.inference.loaded import loaded_bundle
from napari_her2.inference.unchanged import identified, unchanged
from napari_her2.methods.catalogue import method_of, model_named

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_her2.inference.asked import Asked, AskedSlide
    from napari_her2.inference.device import Device
    from napari_her2.inference.result import SlideResult
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.slide.reader import Slide
    from napari_her2.steps import Progress


def rebuilt(result: SlideResult, slides: Sequence[Slide]) -> Generator[Progress, None, KeptScoring]:
    """Make again what the scoring of a result kept; nothing is embedded or measured.

    Parameters
    ----------
    result : SlideResult
    slides : sequence of Slide
        Those of the result, in its order.

    Yields
    ------
    Progress

    Returns
    -------
    KeptScoring
        Of all tissue where the disk holds that, else of the regions that the result is of.

    Raises
    ------
    NotComputed
        If the disk does not hold what is needed, or model, slide or µm/px are no longer those of the result.
    SlideError, ModelError, JobFailed
        As of a scoring.
    """
    asked = result.asked
    if asked is None:
        raise NotComputed("This result is of an older version: press Score, then it follows the regions.")
    yield from identified(*slides)
    _refuse_others(asked, slides)
    device = choose_device(asked.device)
    bundle = _bundle(asked, device)
    method, kept = method_of(bundle.card), list[KeptScoring]()
    options = replace(asked.options, cache=True, overlap=0.0)  # the smoother maps are in the result
    drawn = None if asked.regions is None else [region.region() for region in asked.regions]
    given = list(zip(slides, asked.slides, strict=True))
    first, second = slides[0], next((slide for slide, of in given[1:] if not of.further), None)
    further = tuple(_further(slide, of) for slide, of in given if of.further)
    with unchanged(*slides):
        for regions in (None,) if drawn is None else (None, drawn):
            job = ScoringJob(
                first,
                second,
                bundle,
                regions,
                device,
                options,
                kept=kept,
                stored_only=True,
                further=further,
            )
            try:
                yield from method.score(job)
                break
            except NotComputed:
                if regions is drawn:
                    raise
    smooth = tuple(slide.smooth for slide in result.slides)
    return replace(kept[0], asked=asked, case=result.case, smooth=smooth)


def _further(slide: Slide, of: AskedSlide) -> FurtherSlide:
    drawn = None if of.regions is None else [region.region() for region in of.regions]
    return FurtherSlide(slide, of.further, drawn)


def _refuse_others(asked: Asked, slides: Sequence[Slide]) -> None:
    """Refuse slides that are not those of a result, or of another µm/px."""
    if [slide.fingerprint for slide in slides] != [each.fingerprint for each in asked.slides]:
        raise NotComputed("This result is of other slides than those that are open: press Score.")
    for slide, each in zip(slides, asked.slides, strict=True):
        if slide.mpp != each.mpp:
            raise NotComputed(
                f"The µm/px of {slide.name} has changed since it was scored: press Score to compute it again."
            )


def _bundle(asked: Asked, device: Device) -> ModelBundle:
    """Load the very model that scored, by its name, or from where its file was."""
    load = partial(loaded_bundle, device=device)
    for name in (asked.model, asked.model_path):
        if name is None:
            continue
        try:
            found = model_named(str(name), load)
        except Her2Error:  # another place is tried
            continue
        if found.sha256 == asked.model_sha256:
            return found
    raise NotComputed(
        f"The model {asked.model} that scored is not among the models any more: choose another one, and "
        f"press Score."
    )
