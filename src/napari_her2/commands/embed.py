"""``napari-her2 embed``: features of every tissue tile, for other tools."""

from __future__ import annotations

from collections import Counter
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from napari_her2.commands.cohort import (
    RETRIES,
    RETRIES_HELP,
    SCHEDULER_HELP,
    SKIP_HELP,
    TLS_CA_HELP,
    TLS_CERT_HELP,
    TLS_KEY_HELP,
    drive_cohort,
    given_tls,
)
from napari_her2.commands.info import BACKEND_HELP, MPP_HELP
from napari_her2.commands.score import DEVICE_HELP, TISSUE_HELP
from napari_her2.slide.names import slide_name


def embed(
    slides: Annotated[list[Path], typer.Argument(help="Slide files.", metavar="SLIDE...")],
    encoder: Annotated[
        str,
        typer.Option(help="uni or another of `encoders list`, a model (its encoder), alexnet, or timm:NAME."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the HDF5 files, one a slide.")],
    weights: Annotated[Path | None, typer.Option(help="Weights of the encoder (.safetensors).")] = None,
    pretrained: Annotated[
        bool,
        typer.Option(
            "--pretrained",
            help="Public weights of the encoder; may download them. Installed ones need no option.",
        ),
    ] = False,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code", help="Run code of the encoder's publisher, where it needs that (Hibou)."
        ),
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
    scheduler: Annotated[str | None, typer.Option(help=SCHEDULER_HELP)] = None,
    tls_ca: Annotated[Path | None, typer.Option(help=TLS_CA_HELP)] = None,
    tls_cert: Annotated[Path | None, typer.Option(help=TLS_CERT_HELP)] = None,
    tls_key: Annotated[Path | None, typer.Option(help=TLS_KEY_HELP)] = None,
    retries: Annotated[int, typer.Option(min=0, help=RETRIES_HELP)] = RETRIES,
    skip_finished: Annotated[bool, typer.Option("--skip-finished", help=SKIP_HELP)] = False,
) -> None:
    """Write the features of each slide's tissue tiles as HDF5 that CLAM and TRIDENT read."""
    doubled = [name for name, count in Counter(map(slide_name, slides)).items() if count > 1]
    if doubled:
        raise typer.BadParameter(f"two slides are called {doubled[0]}: embed them into different folders.")
    from napari_her2.cohort.run import embed_cohort_steps
    from napari_her2.cohort.sources import EncoderSource

    source = EncoderSource(encoder, weights, pretrained, tile_px, trust_remote_code=trust_remote_code)
    if source.in_a_model and (weights or pretrained or tile_px):
        raise typer.BadParameter("a model brings its own weights and tile size: leave those options out.")
    if weights is not None and pretrained:
        raise typer.BadParameter("give --weights FILE or --pretrained, one of them.")
    if not source.in_a_model and source.contract is None and weights is None and not pretrained:
        raise typer.BadParameter(
            f"{encoder} needs weights: give --weights FILE or --pretrained, one of them."
        )
    steps = embed_cohort_steps(
        slides,
        source,
        out,
        scheduler=scheduler,
        tls=given_tls(scheduler, tls_ca, tls_cert, tls_key),
        retries=retries,
        skip_finished=skip_finished,
        tile_mpp=tile_mpp,
        mpp=mpp,
        tissue=tissue,  # type: ignore[arg-type]  # checked there
        min_tissue=min_tissue,
        batch_size=batch_size,
        cache=cache,
        device=device,
        backend=backend,
    )
    drive_cohort(steps, slides=len(slides))
