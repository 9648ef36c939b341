"""``napari-her2 embed``: features of every tissue tile, for other tools."""

from __future__ import annotations

from collections import Counter
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_her2.commands.console import FAILED, drive, in_words, output, pairs_table, say
from napari_her2.commands.info import BACKEND_HELP, MPP_HELP
from napari_her2.commands.score import DEVICE_HELP, TISSUE_HELP
from napari_her2.errors import Her2Error, JobFailed, SlideError

if TYPE_CHECKING:
    from napari_her2.inference.embed import Embeddings
    from napari_her2.models.encoders import PatchEncoder


def embed(
    slides: Annotated[list[Path], typer.Argument(help="Slide files.", metavar="SLIDE...")],
    encoder: Annotated[str, typer.Option(help="A model (its encoder), alexnet, or timm:NAME.")],
    out: Annotated[Path, typer.Option(help="Folder for the HDF5 files, one a slide.")],
    weights: Annotated[Path | None, typer.Option(help="Weights of the encoder (.safetensors).")] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Public weights of the encoder; may download them.")
    ] = False,
    tile_mpp: Annotated[
        float | None, typer.Option(help="µm/px of the tiles; by default that of the model, else 0.5.")
    ] = None,
    tile_px: Annotated[
        int | None, typer.Option(help="Side of the tiles, px; by default that of the encoder.")
    ] = None,
    mpp: Annotated[float | None, typer.Option(help=MPP_HELP)] = None,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    tissue: Annotated[str, typer.Option(help=TISSUE_HELP)] = "auto",
    min_tissue: Annotated[
        float, typer.Option(min=0, max=1, help="Least share of a tile that is tissue.")
    ] = 0.5,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Tiles computed together; by default what suits the device.")
    ] = None,
    cache: Annotated[bool, typer.Option(help="Keep embeddings on disk for the next run.")] = True,
    backend: Annotated[str, typer.Option(help=BACKEND_HELP)] = "auto",
) -> None:
    """Write the features of each slide's tissue tiles as HDF5 that CLAM and TRIDENT read."""
    doubled = [name for name, count in Counter(path.stem for path in slides).items() if count > 1]
    if doubled:
        raise typer.BadParameter(f"two slides are called {doubled[0]}: embed them into different folders.")
    from napari_her2.export.atomic import check_writable

    check_writable(out)
    network, scale = _find_encoder(encoder, weights, tile_px, pretrained=pretrained)
    options = {"device": device, "tissue": tissue, "min_tissue": min_tissue}
    options |= {"batch_size": batch_size, "cache": cache, "tile_mpp": tile_mpp or scale}
    failed = False
    for path in slides:
        try:
            rows = _embed_one(path, network, out, options, {"mpp": mpp, "backend": backend})
        except (Her2Error, OSError) as error:
            if len(slides) == 1:
                raise
            say(f"{path.name}: {in_words(error)}")
            failed = True
            continue
        output().print(pairs_table(rows, title=path.name))
    if failed:
        raise typer.Exit(FAILED)


def _find_encoder(
    name: str, weights: Path | None, tile_px: int | None, *, pretrained: bool
) -> tuple[PatchEncoder, float]:
    """Return the encoder, and the µm/px that it was made for (0.5 where nothing is known)."""
    from napari_her2.models.encoders import build_encoder
    from napari_her2.models.registry import load_model

    if name != "alexnet" and not name.startswith("timm:"):
        if weights or pretrained or tile_px:
            raise typer.BadParameter("a model brings its own weights and tile size: leave those options out.")
        bundle = load_model(name)
        return bundle.patch_encoder, bundle.card.mpp
    if (weights is None) == (not pretrained):
        raise typer.BadParameter(f"{name} needs weights: give --weights FILE or --pretrained, one of them.")
    source: Path | Literal["pretrained"] = weights if weights is not None else "pretrained"
    return build_encoder(name, weights=source, tile_px=tile_px), 0.5


def _embed_one(
    path: Path, encoder: PatchEncoder, out: Path, options: dict[str, Any], opening: dict[str, Any]
) -> list[tuple[str, object]]:
    from napari_her2 import __version__
    from napari_her2.export.features import FeatureSource, write_features
    from napari_her2.inference.device import choose_device
    from napari_her2.inference.embed import embed_steps, refuse_ruins
    from napari_her2.inference.fit import check_grid
    from napari_her2.slide.reader import open_slide

    chosen = choose_device(options["device"])
    if options["tissue"] not in ("auto", "resection", "biopsy"):
        raise JobFailed(f"There is no tissue preset {options['tissue']!r}: use auto, resection or biopsy.")
    with open_slide(path, **opening) as slide:
        grid = slide.tile_grid(encoder.spec.tile_px, options["tile_mpp"])
        check_grid(grid, slide)
        keep = slide.tissue(options["tissue"]).keep(grid, options["min_tissue"])
        if not keep.any():
            raise SlideError(f"No tissue was found on {slide.name}: try another tissue preset (--tissue).")
        steps = embed_steps(
            slide,
            encoder,
            grid,
            keep,
            chosen,
            cache=options["cache"],
            batch_size=options["batch_size"],
        )
        embeddings = drive(steps, path.name)
        refuse_ruins(slide, embeddings)
        target = out / f"{slide.name}.h5"
        source = FeatureSource(
            slide.name, slide.fingerprint, encoder.spec.name, encoder.fingerprint(), __version__
        )
        write_features(target, embeddings, grid, source)
        rows: list[tuple[str, object]] = [("reader", slide.backend), ("device", chosen.name)]
        return rows + _rows(embeddings, target) + [("warning", text) for text in slide.warnings]


def _rows(embeddings: Embeddings, target: Path) -> list[tuple[str, object]]:
    count, dim = embeddings.features.shape
    rows: list[tuple[str, object]] = [
        ("features", f"{count:,} tiles x {dim:,}, {embeddings.cached:,} from the cache"),
        ("precision", embeddings.note or "float32"),
        ("written to", target),
    ]
    if len(embeddings.corrupt):
        rows.append(
            ("warning", f"{len(embeddings.corrupt):,} tiles were left out: the file is damaged there")
        )
    if embeddings.problem:
        rows.append(("warning", embeddings.problem))
    return rows
