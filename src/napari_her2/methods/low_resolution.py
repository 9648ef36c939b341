"""A slide scored from one small image of all its tissue, or from a few (Chauhan et al.).

The rule: the mean of the probabilities of eight views of the image, turned and mirrored; of several images
of a slide too large for one, their mean weighted by the tissue in each. It is ours. A slide with too little
tissue is not answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from napari_her2.errors import JobFailed
from napari_her2.methods.method import Method

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    import torch
    from torch import Tensor, nn

    from napari_her2.inference.images import ImageKind, SlideImages
    from napari_her2.inference.job import ScoringJob
    from napari_her2.inference.kept_scoring import KeptImages, KeptScoring
    from napari_her2.inference.regions import Regions
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide
    from napari_her2.models.card import ModelCard
    from napari_her2.models.familiarity import PlacedTiles
    from napari_her2.models.low_resolution import LowResolution
    from napari_her2.slide.thumbnail import Thumbnail
    from napari_her2.steps import Progress

MEMBRANE_UM = 0.64
"""Mean width of the membrane stain of a 1+ (40 biopsies; Scheel et al. 2018, PMC5848460)."""


class LowResolutionMethod(Method):
    """The whole slide at once, from an image of so few pixels that no membrane is visible."""

    name = "low-resolution"
    title = "Whole slide at low resolution"
    paper = "Chauhan et al. 2025, arXiv:2503.22069"
    takes = "image"
    architectures = ("LowResolution",)
    explanations = frozenset({"images seen"})
    no_overlap = "sees all tissue in images, of which no tiles are cut that could overlap"

    def sees(self, card: ModelCard) -> str:
        """Name the images; see `Method.sees`."""
        if self.any_scale(card):
            return f"the tissue as one image of {card.tile_px} px, at about {card.mpp:.3g} µm/px"
        return f"the tissue as images of {card.tile_px} px at {card.mpp:.3g} µm/px"

    def any_scale(self, card: ModelCard) -> bool:
        """Whether a model fits all tissue into one image; see `Method.any_scale`."""
        return card.arguments.get("mode") == "fit"

    def seen(self, scored: ScoredSlide) -> str:
        """Which images were seen: what is damaged was white in them, of which a warning says how much."""
        return f"{images_in_words(scored.thumbnails)} · {scored.tissue_mm2:.1f} mm² tissue"

    def limit(self, scored: ScoredSlide) -> str:
        """Warn of what no image of this resolution shows; see `Method.limit`."""
        return blind_spot(scored.thumbnails[0].mpp) if scored.stain == "IHC" else ""

    def score(self, job: ScoringJob) -> Generator[Progress, None, SlideResult]:
        """Score a slide; see `Method.score`."""
        return (yield from self._answered(job, None))

    def _answered(
        self, job: ScoringJob, looked_like: Mapping[str, PlacedTiles] | None
    ) -> Generator[Progress, None, SlideResult]:
        """Score a slide, or regions of it whose pixels are not looked at but known as those of the slide."""
        import torch

        from napari_her2.inference.assemble import Answer, assemble, with_familiarity, with_quality
        from napari_her2.inference.familiarity import Seen, placed_in, placed_steps
        from napari_her2.inference.familiarity_verdict import judged_placed
        from napari_her2.inference.head import refuse_nonsense
        from napari_her2.inference.image_fit import doubt_of
        from napari_her2.inference.images import choose_tissue, read_images
        from napari_her2.inference.kept_scoring import KeptImages, open_slide_or_none
        from napari_her2.inference.leaving_out import without_poor_tissue
        from napari_her2.inference.precision import FLOAT32
        from napari_her2.steps import Progress

        kind = _kind(job.card)
        yield Progress("Finding tissue", note=job.device.name)
        every = choose_tissue(job, kind)
        chosen, quality = yield from without_poor_tissue(job, every, whiten=kind.whiten)
        job.clock.lap("tissue")
        seen = yield from read_images(job, kind, chosen)
        job.clock.lap("read")
        probabilities, signed, features = yield from _predictions(job, seen.thumbnails)
        refuse_nonsense(job.card, probabilities, signed)
        scored = with_quality(_scored(job, seen, signed, chosen.looks_like), quality)
        job.clock.lap("model")
        known = Seen(job.slide, job.card.stain, features.numpy(), seen.tissue)
        if looked_like is None:
            placed: Mapping[str, PlacedTiles] = yield from placed_steps(job, known)
        else:
            placed = {**looked_like, **placed_in(job.bundle.familiarity, known.stain, known.features, None)}
        if job.kept is not None:
            slides = (open_slide_or_none(job.slide),)
            job.kept.append(KeptImages(job.terms, slides, (job.slide.slide_id,), placed=placed))
        least = job.options.min_familiarity
        familiar = judged_placed(job.bundle.familiarity, known.stain, placed, least)
        scored = with_familiarity(scored, familiar)
        held = [float(thumbnail.tissue.sum()) for thumbnail in seen.thumbnails]
        answer = Answer(
            _joined(probabilities, torch.tensor(held, dtype=torch.float64)).clamp_min(1e-300).log(),
            (scored,),
            regions=chosen.regions,
            min_tiles=1,
            precision=FLOAT32,
            doubt=doubt_of(job.card, seen.tissue_mm2, seen.thumbnails[0].mpp, any_scale=kind.any_scale),
            rule=rule_words(seen.thumbnails),
            warnings=(*job.slide.warnings, *seen.warnings),
        )
        return assemble(job, answer)

    def again(self, kept: KeptScoring, regions: Regions | None, *, pixels: bool = True) -> SlideResult:
        """Score the image of other regions, which is another image, of another scale: it is read anew.

        Without ``pixels`` its colours and sharpness are not looked at: they count as those of the slide.

        Raises
        ------
        JobFailed
            If the slide was closed.
        """
        from napari_her2.inference.job import ScoringJob
        from napari_her2.steps import finished

        slide, terms = kept.slides[0](), kept.anew()
        if slide is None:
            raise JobFailed("The slide was closed, and the image of a region is read from it: open it again.")
        job = ScoringJob(slide, None, terms.bundle, regions, terms.device, terms.options, terms.clock)
        known = None if pixels else cast("KeptImages", kept).placed
        return finished(self._answered(job, known))


def images_in_words(thumbnails: Sequence[Thumbnail]) -> str:
    """Count images and give their size: "1 image of 512 × 512 px at 6.1 µm/px".

    Parameters
    ----------
    thumbnails : sequence of Thumbnail
        At least one.

    Returns
    -------
    str
    """
    first, count = thumbnails[0], len(thumbnails)
    side = first.size_px
    return f"{count} {'image' if count == 1 else 'images'} of {side} × {side} px at {first.mpp:.3g} µm/px"


def blind_spot(mpp: float) -> str:
    """Say what cannot be seen at a resolution, and what follows for the score.

    Parameters
    ----------
    mpp : float
        µm per pixel.

    Returns
    -------
    str
        Empty where a pixel is finer than the membrane stain of a 1+.
    """
    if mpp <= MEMBRANE_UM:
        return ""
    times = mpp / MEMBRANE_UM
    return (
        f"A pixel of it is {mpp:.3g} µm wide, {times:.2g} times the membrane stain of a 1+ (about "
        f"{MEMBRANE_UM:.1f} µm): single membranes are not visible, only how much brown there is and where. "
        "0 against 1+ is the weak spot of such a model."
    )


def rule_words(thumbnails: tuple[Thumbnail, ...]) -> str:
    """Say how the score of a slide came about.

    Parameters
    ----------
    thumbnails : tuple of Thumbnail

    Returns
    -------
    str
        "mean of 8 views (turned and mirrored) of one image of 512 px at 6.1 µm/px"
    """
    from napari_her2.models.low_resolution import VIEWS

    first = thumbnails[0]
    each = f"{first.size_px} px at {first.mpp:.3g} µm/px"
    if len(thumbnails) == 1:
        return f"mean of {VIEWS} views (turned and mirrored) of one image of {each}"
    return (
        f"mean of {VIEWS} views (turned and mirrored) of each of {len(thumbnails)} images of {each}, "
        f"weighted by the tissue in them"
    )


def _kind(card: ModelCard) -> ImageKind:
    from napari_her2.inference.images import ImageKind
    from napari_her2.models.convnext import STRIDE

    mode, whiten = str(card.arguments["mode"]), bool(card.arguments["whiten"])
    return ImageKind(card.tile_px, mode, whiten, tile_px=STRIDE)


def _joined(probabilities: Tensor, held: Tensor) -> Tensor:
    """Mean of (K, C) probabilities of images, weighted by the tissue that they hold."""
    import torch

    weights = held / held.sum() if float(held.sum()) > 0 else torch.ones_like(held) / len(held)
    return (weights[:, None] * probabilities).sum(dim=0)


def _predictions(
    job: ScoringJob, thumbnails: tuple[Thumbnail, ...]
) -> Generator[Progress, None, tuple[Tensor, Tensor, Tensor]]:
    """Probabilities (K, C) float64, signed Grad-CAM (K, C, h, w) and features (K, D) of images.

    Each is the mean of the views of its image.
    """
    import torch

    from napari_her2.inference.head import RoomyDevice
    from napari_her2.models.low_resolution import VIEWS, unview, view
    from napari_her2.steps import Progress

    device, total = RoomyDevice(job.device, job.bundle), len(thumbnails) * VIEWS
    probabilities: list[Tensor] = []
    maps: list[Tensor] = []
    features: list[Tensor] = []
    for thumbnail in thumbnails:
        image = torch.from_numpy(thumbnail.rgb).permute(2, 0, 1)[None].float() / 255
        chances, signed, described = [], [], []
        for number in range(VIEWS):
            done = len(probabilities) * VIEWS + number
            yield Progress("Scoring", done, total, "views", note=job.device.name)
            turned = view(image, number)

            def explained(
                head: nn.Module, place: torch.device, turned: Tensor = turned
            ) -> tuple[Tensor, ...]:
                of_view = cast("LowResolution", head).explained(turned.to(place))
                return tuple(tensor.float().cpu() for tensor in of_view)

            logits, cams, pooled = device.run(explained)
            chances.append(torch.softmax(logits[0].double(), dim=-1))
            signed.append(unview(cams[0], number))
            described.append(pooled[0])
        probabilities.append(torch.stack(chances).mean(dim=0))
        maps.append(torch.stack(signed).mean(dim=0))
        features.append(torch.stack(described).mean(dim=0))
    yield Progress("Scoring", total, total, "views", note=job.device.name)
    return torch.stack(probabilities), torch.stack(maps), torch.stack(features)


def _scored(job: ScoringJob, seen: SlideImages, signed: Tensor, looks_like: str) -> ScoredSlide:
    from napari_her2.explain.image_cam import PLACES, WHITE, cam_maps
    from napari_her2.inference.assemble import scored_slide
    from napari_her2.inference.scored_slide import TileTable

    grid, index = seen.grid, seen.index
    return scored_slide(
        job.slide,
        stain=job.card.stain,
        looks_like=looks_like,
        table=TileTable(index, grid.origins_px0(index), attention=None, evidence=None),
        maps=cam_maps(grid, index, seen.thumbnails, signed.float().numpy(), job.card.classes),
        grid=grid,
        tissue=seen.tissue,
        share=seen.tissue.fraction(grid),
        tissue_mm2=seen.tissue_mm2,
        corrupt=seen.corrupt,
        damage=WHITE,
        thumbnails=seen.thumbnails,
        tiles_info=PLACES,
    )
