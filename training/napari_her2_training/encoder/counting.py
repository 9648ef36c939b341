"""Tiles as a dry run sees them: counted, looked up in the cache, some of them read and encoded.

Of one slide a batch is encoded, with a stopwatch; nothing is kept, written or downloaded.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_her2.inference.cache import limit_bytes
from napari_her2.inference.embed import count_embedded, default_batch
from napari_her2.inference.encode import EncoderRunner
from napari_her2.models.encoder_folder import installed_encoder
from napari_her2_training.cohort.counting import Counted, count_slides
from napari_her2_training.cohort.embedding import tiles_to_learn
from napari_her2_training.cohort.manifest import STAINS
from napari_her2_training.encoder.make import frozen_encoder, make_encoder
from napari_her2_training.encoder.pretraining import start_well
from napari_her2_training.encoder_choice import ALEXNET, OF_MODEL, known_encoder
from napari_her2_training.findings import Enough, size

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from numpy.typing import NDArray

    from napari_her2.models.patch_encoder import PatchEncoder
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.reader import Slide
    from napari_her2.steps import Progress
    from napari_her2_training.cohort.manifest import Case, Stain
    from napari_her2_training.config_sections import DataConfig, EncoderConfig
    from napari_her2_training.findings import Findings

_BYTES_A_PLACE = 8
"""A tile's row and column in the cache."""


def count_tiles(
    cases: Sequence[Case],
    encoder: PatchEncoder | None,
    config: DataConfig,
    stain: Stain,
    findings: Findings,
    *,
    known: bool = True,
    times: int = 1,
) -> Generator[Progress, None, list[Counted]]:
    """Count the tiles that embedding slides would take, in place of `embed_cases`.

    Parameters
    ----------
    cases : sequence of Case
    encoder : PatchEncoder or None
        None where it cannot be had: nothing is timed.
    config : DataConfig
    stain : {"he", "ihc"}
    findings : Findings
    known : bool
        Whether it is the very encoder of the training, whose features the cache may hold.
    times : int
        How often all slides are embedded: once a fold where the encoder learns in each.
    """
    runner = None
    if encoder is not None and findings.reader is not None:
        with findings.noted():
            runner = EncoderRunner(encoder, findings.reader)
    fingerprint = runner.encoder.fingerprint() if runner is not None and known else ""
    seconds: list[float] = []

    def count(slide: Slide, case: Case) -> Counted:
        grid, keep = tiles_to_learn(slide, config, stain)
        taken, cached = int(keep.sum()), 0
        if runner is not None:
            if fingerprint:
                cached = count_embedded(slide, runner, grid, keep, fingerprint=fingerprint)
            if taken > cached and not seconds:
                seconds.append(seconds_a_tile(slide, grid, keep, runner))
        return Counted(case, taken, cached)

    found = yield from count_slides(
        cases, stain, count, findings, check=config.check_stains, identify=bool(fingerprint)
    )
    if found:
        width = 0 if runner is None else runner.encoder.spec.dim
        _add_tile_facts(
            found, stain, findings, width=width, each=seconds[0] if seconds else None, times=times
        )
    return found


def seconds_a_tile(slide: Slide, grid: TileGrid, keep: NDArray[np.bool_], runner: EncoderRunner) -> float:
    """Read and encode a batch of tiles of a slide; return what one takes."""
    batch = default_batch(runner.device, grid.tile_px)
    some = np.zeros_like(keep)
    some[tuple(np.argwhere(keep)[:batch].T)] = True
    began = time.perf_counter()
    tiles = slide.tiles(tile_px=grid.tile_px, mpp=grid.mpp, batch_size=batch, keep=some)
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


def _add_tile_facts(
    found: Sequence[Counted],
    stain: Stain,
    findings: Findings,
    *,
    width: int,
    each: float | None,
    times: int,
) -> None:
    """Add facts and costs of embedding; a width of 0 tells nothing of memory and disk."""
    taken, cached = sum(one.taken for one in found), sum(one.cached for one in found)
    add_slide_facts(
        found, stain, findings, f"{sum(one.cached == one.taken for one in found):,} of them embedded already"
    )
    if times > 1:
        findings.facts[f"{STAINS[stain]} slides"] = f"{len(found):,}, embedded anew in each of {times} folds"
    todo = taken * times - cached
    findings.spend(
        "embedding", 0.0 if todo == 0 else each and each * todo, "the encoder could not be measured"
    )
    findings.memory_bytes += taken * width * 2
    kept = todo * (width * 2 + _BYTES_A_PLACE) if width else 0
    findings.disk_bytes += kept
    if kept > limit_bytes():
        findings.warn(
            f"The embeddings take about {size(kept)}, more than the {size(limit_bytes())} that the cache "
            f"may hold: a training that is stopped would embed again. Set NAPARI_HER2_CACHE_GB."
        )


def add_slide_facts(found: Sequence[Counted], stain: Stain, findings: Findings, how: str) -> None:
    """Add the facts of slides and tiles of a stain, and of how the slides are there."""
    taken, cached = sum(one.taken for one in found), sum(one.cached for one in found)
    fewest = min(found, key=lambda one: one.taken)
    middle = np.median([one.taken for one in found])
    findings.facts[f"{STAINS[stain]} slides"] = f"{len(found):,}, {how}"
    findings.facts[f"{STAINS[stain]} tiles"] = (
        f"{taken:,}, {cached:,} of them embedded already; {middle:,.0f} a slide in the middle, at least "
        f"{fewest.taken:,} (row {fewest.case.row})"
    )


def encoder_at_hand(
    config: EncoderConfig,
    tile_px: int,
    seed: int,
    findings: Findings,
    make: Callable[[EncoderConfig, int, int], PatchEncoder] = frozen_encoder,
) -> tuple[PatchEncoder | None, bool]:
    """Build the encoder of a configuration without downloading anything.

    Parameters
    ----------
    config : EncoderConfig
    tile_px, seed : int
    findings : Findings
        Weights that cannot be had become a fault; those that would be downloaded, a warning.
    make : callable
        What the training builds it with.

    Returns
    -------
    encoder : PatchEncoder or None
    known : bool
        Whether its weights are those of the training.
    """
    known = not warn_of_download(config.name, config.weights, findings)
    encoder: PatchEncoder | None = None
    with findings.noted():
        # Random weights take as long, and open no network.
        encoder = make(config if known else replace(config, weights="random"), tile_px, seed)
        findings.facts["Encoder"] = f"{config.name}, {encoder.spec.dim:,} features a tile"
    return encoder, known


def encoder_to_learn(
    config: EncoderConfig, tile_px: int, seed: int, findings: Findings | None
) -> PatchEncoder:
    """Build the encoder of a configuration as it is before it learns; see `encoder_at_hand`.

    Raises
    ------
    Enough
        It is only counted, and cannot be had.
    """
    encoder: PatchEncoder | None
    if findings is None:
        encoder = make_encoder(config, tile_px, seed)
    else:
        encoder, _ = encoder_at_hand(config, tile_px, seed, findings, make_encoder)
        if encoder is None:
            raise Enough
    if config.weights == "random" and not config.name.startswith(OF_MODEL):
        start_well(encoder, seed)
    return encoder


def warn_of_download(name: str, weights: str, findings: Findings) -> bool:
    """Warn where public weights are asked for that are not here yet; return whether they are not."""
    if weights != "pretrained" or has_download(name):
        return False
    contract = known_encoder(name)
    if contract is not None and name != ALEXNET:
        findings.warn(
            f"The weights of {contract.title} are fetched when training begins "
            f"({contract.licence_words}); `napari-her2 encoders fetch {name}` tells their size before."
        )
        return True
    known = {"alexnet": "AlexNet's ImageNet weights", "resnet50-stem": "A ResNet-50's ImageNet weights"}
    what = known.get(name, f"The weights of {name.removeprefix('timm:')}")
    findings.warn(f"{what} are downloaded when training begins.")
    return True


def has_download(name: str) -> bool:
    """Whether the public weights of an encoder are on this machine already. Nothing is downloaded.

    Parameters
    ----------
    name : str
        "alexnet", "resnet50-stem", "timm:NAME" or "model:NAME", whose weights are never downloaded.
    """
    if name.startswith(OF_MODEL):
        return True
    if known_encoder(name) is not None and name != ALEXNET:
        return installed_encoder(name) is not None
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
