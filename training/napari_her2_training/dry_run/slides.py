"""Slides as a dry run looks at them: opened, their tissue found, what would be taken from each counted.

Of one slide a batch is read and encoded, with a stopwatch; nothing is kept, and nothing is written.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from napari_her2.errors import SlideError
from napari_her2.inference.cache import limit_bytes
from napari_her2.inference.embed import count_embedded, default_batch
from napari_her2.inference.encode import EncoderRunner
from napari_her2.inference.result import Progress
from napari_her2.inference.unchanged import identified
from napari_her2.slide.reader import open_slide
from napari_her2_training.cohort.features import read_features
from napari_her2_training.cohort.manifest import STAINS
from napari_her2_training.cohort.tissue import check_scale, tissue_to_learn
from napari_her2_training.dry_run.findings import size
from napari_her2_training.encoder.make import OF_MODEL, frozen_encoder

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from napari_her2.models.encoders import PatchEncoder
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.reader import Slide
    from napari_her2_training.cohort.manifest import Case, Stain
    from napari_her2_training.config import EncoderConfig
    from napari_her2_training.dry_run.findings import Findings
    from napari_her2_training.running.machines import Machines

_BYTES_A_PLACE = 8
"""A tile's row and column in the cache."""
_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class Counted:
    """What would be taken from a slide.

    Parameters
    ----------
    taken : int
        Tiles, images or fields.
    cached : int
        Of them, embedded already.
    """

    taken: int
    cached: int = 0


class Counter(Protocol):
    """Counts what a method would take from an open slide."""

    def __call__(self, slide: Slide, case: Case) -> Counted:
        """Raise SlideError where the training would."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """A slide, and what would be taken from it.

    Parameters
    ----------
    case : Case
    stain : {"he", "ihc"}
    counted : Counted
    """

    case: Case
    stain: Stain
    counted: Counted


def look_at_slides(
    cases: Sequence[Case],
    stain: Stain,
    count: Counter,
    findings: Findings,
    *,
    check: bool,
    may_be_empty: bool = False,
) -> Generator[Progress, None, list[Seen]]:
    """Open slides one after the other and count.

    Parameters
    ----------
    cases : sequence of Case
    stain : {"he", "ihc"}
    count : Counter
    findings : Findings
        A slide that cannot be opened, or holds nothing to take, becomes a fault that names its row.
    check : bool
        Whether a slide that does not look like its stain is a fault, as it is for the training.
    may_be_empty : bool
        Whether the method goes on where a slide holds nothing to take; then that is a warning.

    Yields
    ------
    Progress
        Before each slide, and while its identity is worked out. Closing the generator stops it.

    Returns
    -------
    list of Seen
        Those that were opened.
    """
    seen: list[Seen] = []
    stage = f"Looking at the {STAINS[stain]} slides"
    for number, case in enumerate(cases):
        yield Progress(stage, number, len(cases), "slides", case.case_id)
        where = f"Row {case.row} of the manifest, case {case.case_id}: "
        with findings.noted(where), open_slide(case.slide(stain)) as slide:
            if isinstance(count, TileCounter) and count.looks_up:
                yield from identified(slide)  # the cache is asked by it: every byte is read, the first time
            tissue_to_learn(slide, stain, check=check)
            counted = count(slide, case)
            if not counted.taken:
                nothing = f"no tissue was found on {slide.path.name}, or too little"
                if not may_be_empty:
                    raise SlideError(f"{nothing}; leave it out.")
                findings.warn(f"{where}{nothing}: it is not used.")
                continue
            seen.append(Seen(case, stain, counted))
    yield Progress(stage, len(cases), len(cases), "slides")
    return seen


def look_at_features(
    cases: Sequence[Case], stain: Stain, findings: Findings
) -> Generator[Progress, None, tuple[list[Seen], int]]:
    """Read files of features one after the other; return what they hold, and how long the vectors are."""
    seen: list[Seen] = []
    stage, width = f"Reading the features of the {STAINS[stain]} slides", 0
    for number, case in enumerate(cases):
        yield Progress(stage, number, len(cases), "slides", case.case_id)
        where = f"Row {case.row} of the manifest, case {case.case_id}: "
        with findings.noted(where):
            features = read_features(case.slide(stain))
            width = width or features.shape[1]
            if features.shape[1] != width:
                raise SlideError(
                    f"the {STAINS[stain]} features have length {features.shape[1]}, those before it {width}. "
                    f"Extract all slides of a stain with the same encoder."
                )
            seen.append(Seen(case, stain, Counted(len(features), len(features))))
    yield Progress(stage, len(cases), len(cases), "slides")
    return seen, width


class TileCounter:
    """Counts the tiles that embedding would take, and those that the cache holds.

    Parameters
    ----------
    tile_px : int
    mpp, min_tissue : float
    runner : EncoderRunner or None
        Where the encoder can be had: it is measured on the first slide that is not embedded yet.
    look_up : bool
        Whether it is the very encoder of the training, whose features the cache may hold.

    Attributes
    ----------
    seconds : float or None
        For a tile, read and encoded; None before anything was measured.
    """

    def __init__(
        self, *, tile_px: int, mpp: float, min_tissue: float, runner: EncoderRunner | None, look_up: bool
    ) -> None:
        self.tile_px, self.mpp, self.min_tissue = tile_px, mpp, min_tissue
        self.runner = runner
        self.seconds: float | None = None
        self._fingerprint = runner.encoder.fingerprint() if runner is not None and look_up else ""

    @property
    def looks_up(self) -> bool:
        """Whether the cache is asked what it holds of a slide."""
        return bool(self._fingerprint)

    def __call__(self, slide: Slide, case: Case) -> Counted:
        """Count the tiles of a slide."""
        grid = slide.tile_grid(self.tile_px, self.mpp)
        check_scale(slide, self.mpp)
        keep = slide.tissue("auto").keep(grid, self.min_tissue)
        taken, cached = int(keep.sum()), 0
        if self.runner is not None:
            if self._fingerprint:
                cached = count_embedded(slide, self.runner, grid, keep, fingerprint=self._fingerprint)
            if self.seconds is None and taken > cached:
                self.seconds = self._measure(slide, grid, keep, self.runner)
        return Counted(taken, cached)

    def _measure(self, slide: Slide, grid: TileGrid, keep: NDArray[np.bool_], runner: EncoderRunner) -> float:
        batch = default_batch(runner.device, grid.tile_px)
        some = np.zeros_like(keep)
        some[tuple(np.argwhere(keep)[:batch].T)] = True
        began = time.perf_counter()
        tiles = slide.tiles(tile_px=self.tile_px, mpp=self.mpp, batch_size=batch, keep=some)
        images = np.concatenate([found.images for found in tiles])
        if not len(images):
            return 0.0
        read = time.perf_counter() - began
        runner.run(images[:1])  # the first call of all loads and chooses kernels
        began = time.perf_counter()
        runner.run(images)
        encoded = time.perf_counter() - began
        # On a GPU the next batch is read while one is computed.
        on_cpu = runner.device.torch_device.type == "cpu"
        return (read + encoded if on_cpu else max(read, encoded)) / len(images)


def tile_counter(
    encoder: EncoderConfig,
    *,
    tile_px: int,
    mpp: float,
    min_tissue: float,
    seed: int,
    device: Machines | None,
    changes: bool,
    findings: Findings,
) -> TileCounter:
    """Make what counts and measures, with the encoder of a configuration where it is here.

    Parameters
    ----------
    encoder : EncoderConfig
    tile_px : int
    mpp, min_tissue : float
    seed : int
    device : Machines or None
        None measures nothing.
    changes : bool
        Whether the encoder learns before it embeds, so that the cache cannot hold what it will give.
    findings : Findings
        Weights that cannot be had become a fault; those that would be downloaded, a warning.

    Returns
    -------
    TileCounter
    """
    runner, real = None, not changes
    built: PatchEncoder | None = None
    with findings.noted():
        if encoder.weights == "pretrained" and not has_download(encoder.name):
            real = False
            findings.warn(_downloaded(encoder.name))
            # Random weights take as long, and open no network.
            built = frozen_encoder(replace(encoder, weights="random"), tile_px, seed)
        else:
            built = frozen_encoder(encoder, tile_px, seed)
    if built is not None:
        findings.facts["Encoder"] = f"{encoder.name}, {built.spec.dim:,} features a tile"
        if device is not None:
            with findings.noted():
                runner = EncoderRunner(built, device.reader)
    return TileCounter(tile_px=tile_px, mpp=mpp, min_tissue=min_tissue, runner=runner, look_up=real)


def has_download(name: str) -> bool:
    """Whether the public weights of an encoder are on this machine already. Nothing is downloaded.

    Parameters
    ----------
    name : str
        "alexnet", "resnet50-stem", "timm:NAME" or "model:NAME", whose weights are never downloaded.
    """
    if name.startswith(OF_MODEL):
        return True
    if not name.startswith("timm:"):
        kept = Path(torch.hub.get_dir()) / "checkpoints"
        return any(kept.glob(f"{name.removesuffix('-stem')}-*.pth"))
    from huggingface_hub import try_to_load_from_cache
    from timm.models import get_pretrained_cfg

    try:
        known = get_pretrained_cfg(name.removeprefix("timm:"))
    except RuntimeError:  # no such weights: building the encoder says so
        return False
    if known is None or not known.hf_hub_id:
        return False
    names = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(known.hf_hub_id, file), str) for file in names)


def warn_of_download(name: str, weights: str, findings: Findings) -> None:
    """Say that public weights would be downloaded, where they are asked for and not here yet."""
    if weights == "pretrained" and not has_download(name):
        findings.warn(_downloaded(name))


def _downloaded(name: str) -> str:
    known = {"alexnet": "AlexNet's ImageNet weights", "resnet50-stem": "A ResNet-50's ImageNet weights"}
    what = known.get(name, f"The weights of {name.removeprefix('timm:')}")
    return f"{what} are downloaded when training begins."


def tell_tiles(
    seen: Sequence[Seen],
    counter: TileCounter | None,
    findings: Findings,
    *,
    times: int = 1,
    dim: int | None = None,
) -> None:
    """Add facts and costs of embedding.

    Parameters
    ----------
    seen : sequence of Seen
        Slides of one stain.
    counter : TileCounter or None
        None where features come from files.
    findings : Findings
    times : int
        How often all slides are embedded: once a fold where the encoder learns in each.
    dim : int, optional
        Length of the features, where they come from files.
    """
    if not seen:
        return
    word = STAINS[seen[0].stain]
    taken, cached = sum(s.counted.taken for s in seen), sum(s.counted.cached for s in seen)
    whole = sum(s.counted.cached == s.counted.taken for s in seen)
    fewest = min(seen, key=lambda s: s.counted.taken)
    middle = np.median([s.counted.taken for s in seen])
    findings.facts[f"{word} slides"] = f"{len(seen):,}, {whole:,} of them embedded already"
    findings.facts[f"{word} tiles"] = (
        f"{taken:,}, {cached:,} of them embedded already; {middle:,.0f} a slide in the middle, at least "
        f"{fewest.counted.taken:,} (row {fewest.case.row})"
    )
    if times > 1:
        findings.facts[f"{word} slides"] = f"{len(seen):,}, embedded anew in each of {times} folds"
    if counter is None:
        findings.facts[f"{word} slides"] = f"{len(seen):,}, as files of features"
        findings.memory_bytes += taken * (dim or 0) * 2
        return
    todo = taken * times - cached
    seconds = 0.0 if todo == 0 else counter.seconds and counter.seconds * todo
    findings.spend("embedding", seconds, "the encoder could not be measured")
    if counter.runner is not None:
        width = counter.runner.encoder.spec.dim
        findings.memory_bytes += taken * width * 2
        kept = todo * (width * 2 + _BYTES_A_PLACE)
        findings.disk_bytes += kept
        if kept > limit_bytes():
            findings.warn(
                f"The embeddings take about {size(kept)}, more than the {size(limit_bytes())} that the cache "
                f"may hold: a training that is stopped would embed again. Set NAPARI_HER2_CACHE_GB."
            )


def refuse_small(seen: Sequence[Seen], least: int, what: str, advice: str, findings: Findings) -> None:
    """Add a fault for slides with fewer tiles than needed, naming their rows."""
    small = [s for s in seen if s.counted.taken < least]
    if small:
        named = ", ".join(
            f"row {s.case.row} (case {s.case.case_id}, {s.counted.taken})" for s in small[:_MOST_NAMED]
        )
        more = f" and {len(small) - _MOST_NAMED} more" if len(small) > _MOST_NAMED else ""
        findings.faults.append(f"{what}: {named}{more}. {advice}")


def median_taken(seen: Sequence[Seen]) -> int:
    """Return what is taken from a slide in the middle of all; 1 where there is none."""
    return int(np.median([s.counted.taken for s in seen])) if seen else 1
