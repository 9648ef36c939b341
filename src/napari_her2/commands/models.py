"""``napari-her2 models``: the models and their cards."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from napari_her2.commands.console import output, pairs_table, plain, plainly
from napari_her2.commands.flags import Command, Group
from napari_her2.commands.import_model import import_checkpoint
from napari_her2.errors import EncoderMissing
from napari_her2.models.bundle_card import read_card
from napari_her2.models.registry import model_file

if TYPE_CHECKING:
    from napari_her2.models.card import ModelCard

models_app = typer.Typer(
    name="models",
    cls=Group,
    add_completion=False,
    help="List, show, add, import and verify models.",
    pretty_exceptions_enable=False,
)


@models_app.callback(invoke_without_command=True)
def _default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        plainly(list_all)(debug=False)


def list_all() -> None:
    """List the models that can be used by name."""
    from napari_her2.methods.catalogue import available_models, method_of
    from napari_her2.models.card_doubt import doubt_words
    from napari_her2.models.registry import unreadable_models

    table = Table()
    for name in ("model", "version", "method", "stain", "scale", "comes", "doubt", "trained on"):
        table.add_column(name, overflow="fold")
    for entry in available_models():
        card = entry.card
        values = (entry.name, card.version, card.method, card.stain, f"{card.mpp:g} µm/px")
        doubt = doubt_words(card.familiarity, card.answer_sets) if method_of(card).needs_weights else ""
        table.add_row(*(plain(item) for item in (*values, entry.origin, doubt, card.training_data)))
    console = output()
    console.print(table)
    for broken in unreadable_models():
        console.print(plain(f"{broken.path.name} cannot be used: {broken.problem}"), markup=False)


def show(model: Annotated[str, typer.Argument(help="Name of a model, or its file.", metavar="NAME")]) -> None:
    """Show the card of a model."""
    from napari_her2.methods.catalogue import model_named

    try:
        bundle = model_named(model)
    except EncoderMissing as missing:  # what it is can be shown all the same
        card = read_card(model_file(model))
        output().print(pairs_table([*card_rows(card), ("missing", str(missing))]))
        return
    output().print(pairs_table([*card_rows(bundle.card), ("SHA-256", bundle.sha256)]))


def add(
    path: Annotated[Path, typer.Argument(help="Bundle (.safetensors).")],
    force: Annotated[bool, typer.Option("--force", help="Replace a model of the same name.")] = False,
) -> None:
    """Check a model and install it for you."""
    from napari_her2.models.registry import add_model

    entry = add_model(path, force=force)
    typer.echo(f"{entry.name} was added: {entry.path}")


def verify(
    model: Annotated[str, typer.Argument(help="Name of a model, or its file.", metavar="NAME")],
) -> None:
    """Read a model in full and check its hash, its card and every tensor."""
    from napari_her2.models.card_doubt import answer_sets_words, familiarity_words
    from napari_her2.models.registry import verify_model

    found = verify_model(model)
    recorded = "the recorded one" if found.recorded_sha256 else "none was recorded for a file"
    typer.echo(
        f"{found.card.name} is good: {found.parameters:,} weights, SHA-256 {found.sha256} ({recorded}); "
        f"familiarity: {familiarity_words(found.card.familiarity)}; "
        f"sets: {answer_sets_words(found.card.answer_sets)}"
    )


def card_rows(card: ModelCard) -> list[tuple[str, object]]:
    """Return the fields of a card as names and values."""
    from napari_her2.inference.class_words import class_names
    from napari_her2.methods.catalogue import method_of

    encoder, method = card.encoder, method_of(card)
    rows: list[tuple[str, object]] = [
        ("model", f"{card.name} {card.version}"),
        ("task", card.task),
        ("method", f"{method.title}: {method.name} ({card.architecture})"),
        ("paper", method.paper),
        ("stain", card.stain),
        ("sees", method.sees(card)),
        ("classes", ", ".join(class_names(card.classes, card.class_scores).values())),
        ("trained on", card.training_data),
        ("criteria", card.guideline),
        ("licence", card.licence),
        ("intended use", card.intended_use),
    ]
    if encoder is not None:
        name = f"{encoder.contract} ({encoder.name})" if encoder.contract else encoder.name
        words = f"{name}, {encoder.dim:,} features, weights {encoder.weights}"
        rows.insert(3, ("encoder", f"{words}, fetched from {encoder.hub}" if encoder.hub else words))
    if card.precision is not None:
        rows.insert(4, ("features", f"computed in {card.precision} when it learnt"))
    rows += [(name, f"{value:.4g}") for name, value in card.metrics.items()]
    if card.temperatures:
        temperatures = ", ".join(f"{value:.2f} ({name})" for name, value in card.temperatures.items())
        rows.append(("calibrated by", f"temperature {temperatures}"))
    if card.min_confidence is not None:
        rows.append(("answers from", f"a probability of {card.min_confidence:.0%} on"))
    if method.needs_weights:
        rows += doubt_rows(card)
    rows.append(("notice", card.notice))
    return rows


def doubt_rows(card: ModelCard) -> list[tuple[str, object]]:
    """Return what a model knows of its own doubt as names and values."""
    from napari_her2.models.card_doubt import answer_sets_words, familiarity_words
    from napari_her2.models.case_slides import EACH, in_words

    rows: list[tuple[str, object]] = []
    if card.case_slides != EACH:
        rows.append(("slides of a case", in_words(card.case_slides, card.case_rule)))
    rows.append(("familiarity", familiarity_words(card.familiarity)))
    if card.familiarity is not None:
        rows.append(("learnt from", card.familiarity.made_from))
    rows.append(("sets", answer_sets_words(card.answer_sets)))
    if card.answer_sets is not None:
        rows.append(("calibrated on", card.answer_sets.made_from))
    return rows


for _name, _command in (
    ("list", list_all),
    ("show", show),
    ("add", add),
    ("import", import_checkpoint),
    ("verify", verify),
):
    models_app.command(_name, cls=Command)(plainly(_command))
