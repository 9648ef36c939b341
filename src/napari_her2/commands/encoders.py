"""``napari-her2 encoders``: patch encoders by name, and the weights of them that are here."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from napari_her2.commands.console import output, pairs_table, plain, plainly
from napari_her2.commands.flags import Command, Group

if TYPE_CHECKING:
    from napari_her2.models.encoder_contracts import EncoderContract
    from napari_her2.models.encoder_fetch import Offer
    from napari_her2.models.encoder_folder import InstalledEncoder

NAME_HELP = "An encoder, as `encoders list` or another program names it."

encoders_app = typer.Typer(
    name="encoders",
    cls=Group,
    add_completion=False,
    help="List, show, fetch and add patch encoders. Nothing is fetched unless you say so.",
    pretty_exceptions_enable=False,
)


@encoders_app.callback(invoke_without_command=True)
def _default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        plainly(list_all)(debug=False)


def list_all() -> None:
    """List the encoders that are known by name, and whether their weights are installed."""
    from napari_her2.models.encoder_contracts import ENCODERS
    from napari_her2.models.encoder_folder import encoders_folder, installed

    here = {found.name: found for found in installed()}
    table = Table()
    for name, justify in (("encoder", "left"), ("features", "right"), ("px", "right"), ("µm/px", "right")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for name in ("weights", "built by", "licence"):
        table.add_column(name, overflow="fold")
    for contract in ENCODERS.values():
        values = (
            contract.name, f"{contract.dim:,}", f"{contract.tile_px}", f"{contract.mpp:g}",
            state_words(contract, here.get(contract.name)), contract.built_by,
            ("gated, " if contract.gated else "") + contract.licence,
        )  # fmt: skip
        table.add_row(*(plain(value) for value in values))
    console = output()
    console.print(table)
    for name in sorted(here.keys() - ENCODERS.keys()):
        console.print(plain(f"{name}: weights that a model here asks for by their digest"), markup=False)
    console.print(
        plain(
            "Gating and licences are those of 2026: the page of an encoder decides (encoders show NAME). "
            f"Weights lie in {encoders_folder()}."
        ),
        markup=False,
    )


def show(name: Annotated[str, typer.Argument(help=NAME_HELP)]) -> None:
    """Show what is known of an encoder."""
    from napari_her2.models.encoder_contracts import contract_of
    from napari_her2.models.encoder_folder import how_to_get, installed_encoder

    contract = contract_of(name)
    found = installed_encoder(contract.name)
    output().print(pairs_table(contract_rows(contract, found)))
    if found is None and contract.built_by in ("timm", "transformers") and not contract.remote_code:
        typer.echo(how_to_get(contract.name))


def fetch(
    name: Annotated[str, typer.Argument(help=NAME_HELP)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Fetch without asking.")] = False,
    revision: Annotated[str, typer.Option(help="Another commit, branch or tag than the one meant.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace other weights of that name.")] = False,
) -> None:
    """Fetch the weights of an encoder from its hub, after saying how large they are."""
    from napari_her2.models.encoder_contracts import contract_of
    from napari_her2.models.encoder_fetch import look_up
    from napari_her2.models.encoder_folder import installed_encoder
    from napari_her2.number_words import size_in_words

    contract = contract_of(name)
    found = installed_encoder(contract.name)
    if found is not None and not revision and not force:
        typer.echo(f"{contract.name} is installed: {found.path}")
        return
    offer = look_up(contract, revision, force=force)
    typer.echo(
        f"{contract.title}: {offer.file} of {contract.hub} at {offer.revision[:12]}, "
        f"{size_in_words(offer.size)}. Licence: {contract.licence_words}."
    )
    if not yes and not _agreed():
        typer.echo("Nothing was fetched.")
        raise typer.Exit(1)
    kept = _fetched(offer, force=force)
    typer.echo(
        f"{kept.name} was fetched: {kept.path} (SHA-256 of the file {kept.source_sha256[:12]}, digest "
        f"{kept.digest[:12]})"
    )


def add(
    path: Annotated[
        Path, typer.Argument(help="Weights: .safetensors, or .bin, .pt, .pth with tensors alone.")
    ],
    name: Annotated[str, typer.Option(help=NAME_HELP)],
    force: Annotated[bool, typer.Option("--force", help="Replace other weights of that name.")] = False,
) -> None:
    """Take the weights of an encoder from a file, checked and converted to safetensors."""
    from napari_her2.models.encoder_folder import add_encoder

    kept = add_encoder(path, name, force=force)
    typer.echo(f"{kept.name} was added: {kept.path} (digest {kept.digest[:12]})")


def state_words(contract: EncoderContract, found: InstalledEncoder | None) -> str:
    """Say whether the weights of an encoder are here."""
    if found is not None:
        return "installed"
    if contract.remote_code:
        return "needs remote code: not run"
    if contract.built_by == "elsewhere":
        return "features made elsewhere are read"
    return "fetched by torchvision, if asked" if contract.built_by == "torchvision" else "not installed"


def contract_rows(contract: EncoderContract, found: InstalledEncoder | None) -> list[tuple[str, object]]:
    """Return what is known of an encoder as names and values."""
    cut = "" if contract.resized_px is None else f", of which the middle {contract.input_px} px are seen"
    low, high = contract.mpp_range
    unpinned = "none is pinned: the one that is fetched first holds"
    rows: list[tuple[str, object]] = [
        ("encoder", f"{contract.title}, called {contract.name}"),
        ("weights", state_words(contract, found)),
        ("built by", f"{contract.built_by} {contract.architecture}".strip()),
        ("arguments", ", ".join(f"{key}={value}" for key, value in contract.arguments.items()) or "none"),
        ("features", f"{contract.dim:,} ({contract.pooling})"),
        ("tiles", f"{contract.tile_px} px at {contract.mpp:g} µm/px ({low:g} to {high:g}){cut}"),
        ("normalisation", f"mean {contract.mean}, deviation {contract.std}"),
        ("page", contract.page or "none"),
        ("revision", contract.revision or (unpinned if contract.hub else "none")),
        ("licence", contract.licence_words),
    ]
    if found is not None:
        rows += [("file", found.path), ("digest", found.digest), ("taken from", found.source or "a training")]
        rows += [("fetched from", found.provenance)] if found.provenance else []
    return rows


def _agreed() -> bool:
    """Ask on a terminal; where there is none, --yes is needed."""
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on: add --yes to fetch it.")
    return typer.confirm("Fetch it?", default=False)


def _fetched(offer: Offer, *, force: bool) -> InstalledEncoder:
    from napari_her2.models.encoder_fetch import fetch_offer

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=offer.size)
        return fetch_offer(
            offer, force=force, report=lambda done, _: bar.update(task, completed=min(done, offer.size))
        )


for _name, _command in (("list", list_all), ("show", show), ("fetch", fetch), ("add", add)):
    encoders_app.command(_name, cls=Command)(plainly(_command))
