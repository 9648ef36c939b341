"""Slides and results made by hand, for tests of what shows them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from napari_her2.explain.attention import ATTENTION, ATTENTION_RANKS, EVIDENCE
from napari_her2.explain.fields import REGION_CAM, SCORED_TILES, WEIGHT, WEIGHT_RANKS, field_maps
from napari_her2.explain.geometries import OnRequest
from napari_her2.explain.image_cam import CAM, PLACES, SIGNED_CAM
from napari_her2.explain.maps import TileMap, damage_map
from napari_her2.explain.overlays import PERCENTILE
from napari_her2.inference.doubt import Doubt, SlideFamiliarity
from napari_her2.inference.result import SlideResult
from napari_her2.inference.scored_slide import ScoredSlide, TileTable
from napari_her2.models.answer_sets import AnswerSet
from napari_her2.models.bags import BagUncertainty
from napari_her2.slide.frame import SlideFrame
from napari_her2.slide.grid import TileGrid
from napari_her2.slide.thumbnail import Thumbnail
from napari_her2.slide.tissue import TissueMask

CLASSES = ("0", "1+", "2+", "3+")


class HandSlide:
    """What the napari rooms use of a Slide, over an array."""

    backend = "by hand 1.0"
    vendor = "none"
    objective = 20.0
    icc_profile = None
    associated_images = ()

    def __init__(
        self, image: np.ndarray, mpp: tuple[float, float] | None = (0.5, 0.5), name: str = "case-1"
    ) -> None:
        self.image = image
        self.shape = image.shape[:2]
        self.level_shapes = (self.shape,)
        self.level_downsamples = ((1.0, 1.0),)
        self.mpp = mpp
        self.mpp_source = "given by the user" if mpp else "not stated"
        self.mpp_given = mpp is not None
        self.stated_scales = ()
        self.header_contradiction = ""
        self.name = name
        self.path = Path(f"/slides/{name}.svs")
        self.slide_id = f"id of {name}"
        self.fingerprint = f"fingerprint of {name}"
        self.identity = SimpleNamespace(known=self.fingerprint, head=f"head of {name}")
        self.warnings = ()
        self.slow_drive = ""
        self.frame = SlideFrame()
        self.closed = False

    def pyramid(self) -> list[np.ndarray]:
        return [self.image, self.image[::2, ::2]]

    def display(self) -> list[np.ndarray]:
        return self.pyramid()

    def read(self, level: int, y: int, x: int, height: int, width: int) -> np.ndarray:
        out = np.full((height, width, 3), 255, np.uint8)
        y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + height, self.shape[0]), min(x + width, self.shape[1])
        if y1 > y0 and x1 > x0:
            out[y0 - y : y1 - y, x0 - x : x1 - x] = self.image[y0:y1, x0:x1]
        return out

    def thumbnail(self, max_px: int = 1024) -> np.ndarray:
        return self.image

    def tissue(self, preset: str = "resection") -> TissueMask:
        return make_tissue(self.shape)

    def close(self) -> None:
        self.closed = True


def make_tissue(shape: tuple[int, int], downsample: float = 8.0) -> TissueMask:
    """Tissue in the middle of a slide."""
    mask = np.zeros((int(shape[0] / downsample), int(shape[1] / downsample)), bool)
    mask[2:-2, 2:-2] = True
    return TissueMask(mask, (downsample, downsample))


def make_slide(shape: tuple[int, int] = (400, 600), **options: object) -> HandSlide:
    """Pink everywhere, as pale H&E is."""
    image = np.full((*shape, 3), (230, 180, 205), np.uint8)
    return HandSlide(image, **options)


def make_result(slide: HandSlide | None = None, *, tile_px: int = 50, corrupt: int = 0) -> SlideResult:
    """Result of a slide at 0.5 µm/px, tiles of 25 µm, attention rising in the order of the tiles."""
    slide = slide or make_slide()
    grid = TileGrid(slide.shape, slide.mpp or (0.5, 0.5), tile_px, 0.5)
    rows, cols = grid.shape
    index = np.array([(r, c) for r in range(rows) for c in range(cols)], np.int64)
    lost, index = index[:corrupt], index[corrupt:]
    weight = np.arange(1, len(index) + 1, dtype=np.float32)
    attention = weight / weight.sum()
    evidence = np.stack([np.linspace(-2, 2, len(index)) * (c + 1) for c in range(4)], axis=1)
    evidence = evidence.astype(np.float32)
    raw = TileMap(ATTENTION, grid.paint(index, attention), grid)
    maps = [replace(raw.percentile(), info=ATTENTION_RANKS), raw]
    maps += [
        TileMap(EVIDENCE, grid.paint(index, evidence[:, c]), grid, name) for c, name in enumerate(CLASSES)
    ]
    maps.append(damage_map(grid, lost))
    scored = ScoredSlide(
        name=slide.name,
        path=slide.path,
        slide_id=slide.slide_id,
        fingerprint=slide.fingerprint,
        sha256_head=slide.identity.head,
        stain="H&E",
        table=TileTable(index, grid.origins_px0(index), attention, evidence),
        maps=tuple(maps),
        grid=grid,
        tissue_mm2=0.06,
        corrupt=lost,
    )
    return SlideResult(
        slides=(scored,),
        method="attention-mil",
        model="hand-model",
        model_sha256="0" * 64,
        task="H&E-based prediction of the HER2 IHC score",
        classes=CLASSES,
        probabilities={"0": 0.1, "1+": 0.2, "2+": 0.6, "3+": 0.1},
        score="2+",
        label="2+ (equivocal, ISH required)",
        abstained=False,
        uncertainty=BagUncertainty(
            np.array([0.1, 0.2, 0.6, 0.1], np.float32), np.array([0.02, 0.05, 0.1, 0.03], np.float32), 20, 100
        ),
        device="cpu (no CUDA or MPS device found)",
        seconds={"tissue": 0.1, "embed": 2.0},
        warnings=("The slide has few tiles.",),
        version="0",
    )


def with_doubt(
    result: SlideResult, verdict: str = "familiar", *, classes: tuple[str, ...] = (), **more: object
) -> SlideResult:
    """The same result with a verdict, and a set of 160 calibration cases; the label says what is withheld."""
    value = {"familiar": 0.4, "in part": 0.2, "unlike": 1e-5}.get(verdict, math.nan)
    strange = {"familiar": 0.01, "in part": 0.2, "unlike": 0.9}.get(verdict, math.nan)
    reason = "its colours and sharpness are strange" if verdict in ("in part", "unlike") else ""
    answer = AnswerSet(classes or (result.score,), 0.9, 160)
    doubt = Doubt(
        **({"answer": answer, "reason": reason, "familiarity": value, "min_familiarity": 0.01} | more),
        verdict=verdict,
    )
    label, why = result.label, ""
    if doubt.withheld:
        why = f"the slide is unlike what the model learnt from: {reason}"
        label = f"{result.label}, withheld: {why}" if doubt.shown_anyway else f"withheld: {why}"
    known = SlideFamiliarity(verdict, value, strange, reason=reason, by_space={"appearance": value})
    slides = tuple(replace(slide, familiarity=known) for slide in result.slides)
    return replace(result, slides=slides, doubt=doubt, label=label, reason=why, abstained=doubt.withheld)


def with_smooth(result: SlideResult) -> SlideResult:
    """The same result with smoother maps of attention and evidence, twice as fine: half of each value."""

    def of_slide(scored: ScoredSlide) -> ScoredSlide:
        smooth = []
        for of in scored.maps:
            if of.kind in ("attention", "evidence"):
                fine, info = of.grid.finer(2), replace(of.info, layer_name=f"{of.info.layer_name}, smooth")
                values = np.full(fine.shape, np.nan, np.float32)
                rows, cols = 2 * of.grid.shape[0], 2 * of.grid.shape[1]
                values[:rows, :cols] = np.kron(of.values, np.full((2, 2), 0.5, np.float32))
                smooth.append(replace(of, info=replace(info, ranking=None), values=values, grid=fine))
        return replace(scored, smooth=tuple(smooth))

    return replace(result, slides=tuple(map(of_slide, result.slides)))


def with_names(result: SlideResult, slide: str, classes: str) -> SlideResult:
    """The same result of slides, and with classes, of another name; classes get a number at their end."""
    named = {name: f"{classes}{number}" for number, name in enumerate(result.classes)}

    def of_slide(scored: ScoredSlide) -> ScoredSlide:
        maps = [replace(m, class_name=named.get(m.class_name, m.class_name)) for m in scored.maps]
        return replace(scored, name=slide, maps=tuple(maps))

    def by_class(values: dict[str, float]) -> dict[str, float]:
        return {named[name]: value for name, value in values.items()}

    return replace(
        result,
        slides=tuple(of_slide(scored) for scored in result.slides),
        classes=tuple(named.values()),
        probabilities=by_class(result.probabilities),
        score=named[result.score],
        heads={head: by_class(chances) for head, chances in result.heads.items()},
    )


def make_pair(he: HandSlide | None = None, ihc: HandSlide | None = None) -> SlideResult:
    """Result of a case: attention alone, no evidence, and the two slides disagreeing."""
    ihc = ihc or make_slide((500, 400), name="case-1-ihc")
    parts = []
    for slide, stain in ((he or make_slide(), "H&E"), (ihc, "IHC")):
        result = make_result(slide)
        table = replace(result.table, evidence=None)
        maps = tuple(tile_map for tile_map in result.maps if tile_map.kind != "evidence")
        parts.append(replace(result.slides[0], stain=stain, table=table, maps=maps, compared=10))
    says = {
        "fusion": {"0": 0.1, "1+": 0.2, "2+": 0.6, "3+": 0.1},
        "H&E": {"0": 0.5, "1+": 0.3, "2+": 0.1, "3+": 0.1},
        "IHC": {"0": 0.1, "1+": 0.1, "2+": 0.7, "3+": 0.1},
    }
    return replace(
        make_result(),
        slides=tuple(parts),
        method="wsmcl",
        task="HER2 score from the H&E and IHC slides of a case",
        uncertainty=None,
        head="fusion",
        heads=says,
    )


def make_field_result(slide: HandSlide | None = None, *, tile_px: int = 50) -> SlideResult:
    """Result of a model that scores each tile by itself: classes take turns, confidence rises."""
    result = make_result(slide, tile_px=tile_px)
    index, grid = result.table.index, result.grid
    count = len(index)
    probabilities = np.full((count, 4), 0.1, np.float32)
    probabilities[np.arange(count), np.arange(count) % 4] = 0.7
    confidence = np.linspace(0.5, 1, count, dtype=np.float32)
    table = replace(result.table, evidence=None, probabilities=probabilities, confidence=confidence)
    weights = tuple(
        replace(tile_map, info=WEIGHT_RANKS if tile_map.info.scale == PERCENTILE else WEIGHT)
        for tile_map in result.maps
        if tile_map.kind == "attention"
    )
    maps = (*field_maps(grid, index, probabilities, confidence, CLASSES), *weights)
    own = {"extras": (OnRequest(REGION_CAM),), "tiles_info": SCORED_TILES}
    return replace(
        result,
        slides=(replace(result.slides[0], table=table, maps=maps, **own),),
        method="corr-a-net",
        uncertainty=None,
        rule="mean of the probabilities of all tiles, weighted by the model's confidence in each",
        trust={"high": 0.2, "medium": 0.3, "low": 0.5},
    )


def without_attention(result: SlideResult) -> SlideResult:
    """The same result from a method that ranks no tiles."""
    slides = []
    for slide in result.slides:
        table = replace(slide.table, attention=None, evidence=None, confidence=None)
        maps = tuple(m for m in slide.maps if m.kind not in ("attention", "evidence", "confidence"))
        slides.append(replace(slide, table=table, maps=maps, extras=()))
    return replace(result, slides=tuple(slides), method="patches", uncertainty=None, trust={})


THREE = ("0", "Low", "High")


def make_image_result(slide: HandSlide | None = None, *, images: int = 1) -> SlideResult:
    """Result of a model of low resolution: images of 64 px at 5 µm/px, Grad-CAM of three classes.

    Grad-CAM of "Low" rises from -1 by rows to above 0, that of the others falls.
    """
    slide = slide or make_slide()
    grid = TileGrid(slide.shape, slide.mpp or (0.5, 0.5), 8, 5.0)
    index = np.argwhere(np.ones(grid.shape, bool)).astype(np.int64)
    rising = np.linspace(-1, 2, len(index)).astype(np.float32)
    maps = []
    for name in THREE:
        signed = rising if name == "Low" else -rising / 2
        for info, values in ((CAM, np.maximum(signed, 0)), (SIGNED_CAM, signed)):
            maps.append(TileMap(info, grid.paint(index, values), grid, name))
    rgb = np.full((64, 64, 3), 255, np.uint8)
    rgb[12:52, 2:62] = (150, 100, 60)
    thumbnails = tuple(
        Thumbnail(
            rgb=rgb - np.uint8(number),
            origin_px0=(-120.0, -20.0 + 640 * number),
            pixel_px0=(10.0, 10.0),
            mpp=5.0,
            tissue=rgb[..., 0] < 255,
            box_px0=(0.0, 0.0, 400.0, 600.0),
        )
        for number in range(images)
    )
    scored = ScoredSlide(
        name=slide.name,
        path=slide.path,
        slide_id=slide.slide_id,
        fingerprint=slide.fingerprint,
        sha256_head=slide.identity.head,
        stain="IHC",
        table=TileTable(index, grid.origins_px0(index), None, None),
        maps=tuple(maps),
        grid=grid,
        tissue_mm2=12.34,
        corrupt=np.empty((0, 2), np.int64),
        thumbnails=thumbnails,
        tiles_info=PLACES,
    )
    return replace(
        make_result(slide),
        slides=(scored,),
        method="low-resolution",
        classes=THREE,
        probabilities={"0": 0.2, "Low": 0.7, "High": 0.1},
        score="Low",
        label="1+/2+ (ISH unknown)",
        uncertainty=None,
        task="HER2 IHC score",
        rule="mean of 8 views (turned and mirrored) of one image of 64 px at 5 µm/px",
        warnings=(),
    )
