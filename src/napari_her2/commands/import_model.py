"""``napari-her2 models import``: a checkpoint of published code as a model that scores slides."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from napari_her2.commands.console import output, pairs_table, plain
from napari_her2.models.importing.kinds import KINDS

_KIND_HELP = f"What it is a checkpoint of: {', '.join(KINDS)}."


def import_checkpoint(
    path: Annotated[
        Path, typer.Argument(help="Checkpoint: .safetensors, .pt, .pth, .bin or .ckpt.", metavar="FILE")
    ],
    kind: Annotated[str, typer.Option("--kind", help=_KIND_HELP)],
    name: Annotated[str, typer.Option("--name", help="Name of the model: lower case letters, digits, - _ .")],
    classes: Annotated[
        str, typer.Option("--classes", help="In the order of its logits, with commas: 0,1+,2+,3+.")
    ],
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder", help="What makes its features: a name (uni), model:NAME, timm:NAME; none for pixels."
        ),
    ] = "",
    encoder_weights: Annotated[
        Path | None, typer.Option("--encoder-weights", help="File of its weights, kept beside the model.")
    ] = None,
    stain: Annotated[str, typer.Option("--stain", help="H&E, IHC or H&E+IHC.")] = "",
    mpp: Annotated[float | None, typer.Option("--mpp", help="µm per pixel of its tiles.")] = None,
    tile: Annotated[int | None, typer.Option("--tile", help="Side of its tiles, pixels.")] = None,
    class_scores: Annotated[
        str,
        typer.Option(
            "--class-scores", help="Scores of each class, where its name does not say: low=0|1+,high=2+|3+."
        ),
    ] = "",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="What else no file says: field_px=256, mode=fixed, whiten=true."),
    ] = None,
    licence: Annotated[str, typer.Option("--licence", help="Of its weights.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="Write this .safetensors instead of installing it for you.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a model of the same name.")] = False,
) -> None:
    """Make a model of a checkpoint of published code.

    Only tensors are read, nothing in the file is run. What the checkpoint does not say is asked for here.
    """
    from napari_her2.models.importing.answers import Answers
    from napari_her2.models.importing.asking import terms_of
    from napari_her2.models.importing.importer import inspect_checkpoint
    from napari_her2.models.importing.installing import import_model, named_encoder

    answers = Answers(name, classes, class_scores, stain, tile, mpp, tuple(set_ or ()), licence)
    found = inspect_checkpoint(path, kind)
    output().print(pairs_table(found.facts))
    with_encoder = named_encoder(encoder, tile, encoder_weights) if encoder else None
    terms = terms_of(found, answers, None if with_encoder is None else with_encoder.spec)
    card, written = import_model(found, terms, with_encoder, out=out, force=force)
    typer.echo(f"{card.name} was imported: {written}")
    usual = [
        f"{option} {value}"
        for option, given, value in (
            ("--stain", stain, card.stain),
            ("--tile", tile, card.tile_px),
            ("--mpp", mpp, f"{card.mpp:g}"),
        )
        if not given
    ]
    if usual:
        typer.echo(
            f"Nobody said otherwise, so it takes what is usual: {', '.join(usual)}. If it learnt from other "
            f"slides, import it again with those options and --force."
        )
    if with_encoder is not None and with_encoder.remark:
        typer.echo(plain(with_encoder.remark))
