"""``napari-her2 doubt``: what a model that exists has seen and can promise, from a table of cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_her2.commands.bars import drive
from napari_her2.commands.console import JSON_HELP, output, pairs_table, say, tell
from napari_her2.commands.score import DEVICE_HELP
from napari_her2.commands.training_extra import training


def doubt(
    model: Annotated[str, typer.Argument(help="Name of a model, or its file.", metavar="MODEL")],
    data: Annotated[
        Path,
        typer.Option(
            help="Manifest (CSV): its column split says which cases the model learnt from (train), which "
            "chose its epoch (validation), and which did neither (calibration); without it all are the last."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File of the new model (.safetensors).")],
    config: Annotated[
        str | None,
        typer.Option(help="Configuration of the training, by file or name: the cases are split as it did."),
    ] = None,
    method: Annotated[
        str, typer.Option(help="Training method of --config, where a file could be of several.")
    ] = "",
    fold: Annotated[
        int | None, typer.Option(min=0, help="Fold that the model is of, where --config makes several.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Manifest of further calibration cases, which the model never saw.")
    ] = None,
    keep_familiarity: Annotated[
        bool,
        typer.Option(
            "--keep-familiarity", help="Keep what the model has seen, and renew its sets of scores alone."
        ),
    ] = False,
    slides: Annotated[
        int, typer.Option(min=1, help="Training cases that are looked at, drawn by --seed.")
    ] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    any_stain: Annotated[
        bool, typer.Option("--any-stain", help="Take slides that do not look like their stain all the same.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file of that name.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Let a model tell what is unlike the cases it learnt from, and answer with sets that it can stand for.

    The weights stay as they are. Sets hold their promise for cases like those behind them alone: those of
    your own laboratory serve it best.
    """
    made = training("doubt_model")
    request = made.DoubtRequest(
        model=model,
        data=data,
        out=out,
        config=None if config is None else Path(config),
        method=method,
        fold=fold,
        calibration=calibration,
        keep_familiarity=keep_familiarity,
        slides=slides,
        seed=seed,
        device=device,
        any_stain=any_stain,
        force=force,
    )
    found = drive(made.doubt_model_steps(request), "doubt")
    if not as_json:
        output().print(pairs_table(found.facts))
        for remark in found.remarks:
            say(remark)
    tell(
        "model",
        f"The model was written to {found.path}",
        as_json=as_json,
        path=str(found.path),
        facts=dict(found.facts),
        remarks=list(found.remarks),
    )
