"""What a day's list is made of: models, their settings, and an item for each case and model."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from napari_her2.cells.rules_file import rules_from, rules_values
from napari_her2.cohort.day_cases import AUTO, CHOICES, cases_for
from napari_her2.cohort.entry import Entry
from napari_her2.cohort.sources import absolute
from napari_her2.errors import JobFailed
from napari_her2.inference.options import ScoringOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_her2.models.card import ModelCard

State = Literal["waiting", "running", "done", "failed", "skipped"]
STATES: tuple[State, ...] = get_args(State)
_PATHS = frozenset({"he", "ihc", "regions"})


@dataclass(frozen=True, slots=True)
class DayModel:
    """A model of a list.

    Parameters
    ----------
    name : str
        Of its card.
    source : str
        How it is loaded: its name, or its file.
    """

    name: str
    source: str

    @classmethod
    def of(cls, card: ModelCard, source: Path | str) -> DayModel:
        """Return a model by its card and what it was asked for by."""
        return cls(card.name, str(absolute(source)) if isinstance(source, Path) else source)

    @property
    def where(self) -> Path | str:
        """What `napari_her2.methods.catalogue.model_named` takes."""
        path = Path(self.source)
        return path if path.is_absolute() else self.source


@dataclass(frozen=True, slots=True)
class DaySettings:
    """How all slides of a list are scored.

    Parameters
    ----------
    options : ScoringOptions
    device, backend : str
        As for `score_cohort_steps`.
    case_slides : str
        How several slides of a case are answered (`napari_her2.cohort.day_cases.CHOICES`).
    """

    options: ScoringOptions = field(default_factory=ScoringOptions)
    device: str = "auto"
    backend: str = "auto"
    case_slides: str = AUTO

    def values(self) -> dict[str, Any]:
        """Return them for JSON; `settings_from` reads them again."""
        chosen = {of.name: getattr(self.options, of.name) for of in fields(ScoringOptions)}
        usual = ScoringOptions()
        given = {name: value for name, value in chosen.items() if value != getattr(usual, name)}
        rules = given.pop("rules", None)
        values = {name: _plain(value) for name, value in given.items()}
        if rules is not None:
            values["rules"] = rules_values(rules)
        written = {"options": values, "device": self.device, "backend": self.backend}
        return written if self.case_slides == AUTO else written | {"case_slides": self.case_slides}


@dataclass(frozen=True, slots=True)
class Item:
    """A case for one model.

    Parameters
    ----------
    entry, model : int
        Numbers in the list.
    state : str
        "waiting", "running", "done", "failed" or "skipped" (the model takes nothing of the case, or the case
        has a problem).
    reason : str
        Why it failed or was skipped; of one that is done, that an earlier run had finished it.
    started : float or None
        When it was begun the last time, seconds since 1970.
    seconds : float or None
        How long it took.
    folder : str
        Of its result, below the folder of the list; empty where there is none.
    lost : int
        How often the program ended while it was being scored.
    """

    entry: int
    model: int
    state: State = "waiting"
    reason: str = ""
    started: float | None = None
    seconds: float | None = None
    folder: str = ""
    lost: int = 0

    def again(self) -> Item:
        """Return it as it was before it was begun."""
        return Item(self.entry, self.model)

    def values(self) -> dict[str, Any]:
        """Return it for JSON, without what is as in a new one; `item_from` reads it again."""
        usual = asdict(self.again())
        return {
            name: value
            for name, value in asdict(self).items()
            if name in ("entry", "model") or value != usual[name]
        }


def planned(
    entries: Sequence[Entry], cards: Sequence[ModelCard], case_slides: str = AUTO
) -> tuple[Item, ...]:
    """Return an item for each case and model, case by case; what a model cannot take is skipped at once.

    Parameters
    ----------
    entries : sequence of Entry
    cards : sequence of ModelCard
    case_slides : str
        As of `DaySettings`.

    Raises
    ------
    ModelError
        If this version does not know the method of a model.
    """
    items = []
    taken = [cases_for(entries, card, case_slides) for card in cards]
    for number in range(len(entries)):
        for model in range(len(cards)):
            case = taken[model][number]
            if isinstance(case, str):
                items.append(Item(number, model, "skipped", case))
            else:
                items.append(Item(number, model))
    return tuple(items)


def entry_values(entry: Entry) -> dict[str, Any]:
    """Return a case for JSON, without what is as in a new one; `entry_from` reads it again."""
    usual = Entry(entry.name)
    values = {of.name: getattr(entry, of.name) for of in fields(Entry)}
    given = {name: value for name, value in values.items() if value != getattr(usual, name)}
    paths = {name: str(absolute(value)) for name, value in given.items() if name in _PATHS}
    return {"name": entry.name} | given | paths


def entry_from(values: Mapping[str, Any]) -> Entry:
    """Make a case of plain values.

    Raises
    ------
    ValueError
        If a field is unknown, or of another kind.
    """
    _check_names(values, Entry)
    kinds = {"mpp": float, "ihc_mpp": float, "stain_known": bool}
    for name, value in values.items():
        if type(value) is not kinds.get(name, str):
            raise ValueError(f"{name} is of another kind")
    paths = {name: Path(value) for name, value in values.items() if name in _PATHS}
    return Entry(**({**values} | paths))


def item_from(values: Mapping[str, Any], entries: int, models: int) -> Item:
    """Make an item of plain values.

    Raises
    ------
    ValueError
        If a field is unknown, of another kind, or a number leads nowhere.
    """
    _check_names(values, Item)
    kinds = {"state": str, "reason": str, "folder": str, "started": float, "seconds": float}
    for name, value in values.items():
        if type(value) is not kinds.get(name, int) and not (name in ("started", "seconds") and value is None):
            raise ValueError(f"{name} is of another kind")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is no number")
    item = Item(**values)
    if item.state not in STATES or not (0 <= item.entry < entries and 0 <= item.model < models):
        raise ValueError("it leads nowhere")
    folder = Path(item.folder)
    if folder.is_absolute() or ".." in folder.parts:
        raise ValueError("its result lies elsewhere")
    return item


def settings_from(values: Mapping[str, Any]) -> DaySettings:
    """Make settings of plain values.

    Raises
    ------
    ValueError
        If a field is unknown, or of another kind.
    """
    _check_names(values, DaySettings)
    options = dict(values["options"])
    _check_names(options, ScoringOptions)
    rules = options.pop("rules", None)
    usual = ScoringOptions()
    try:
        for name, value in options.items():
            # A part of its own (limits, for example) is made by the class of its usual value.
            if isinstance(value, dict):
                options[name] = type(getattr(usual, name))(**value)
        chosen = ScoringOptions(**options)
        if rules is not None:
            chosen = replace(chosen, rules=rules_from(rules))
    except (TypeError, JobFailed) as error:
        raise ValueError(f"its options cannot be ({error})") from error
    way = str(values.get("case_slides", AUTO))
    if way not in CHOICES:
        raise ValueError("its cases cannot be answered so")
    return DaySettings(chosen, str(values["device"]), str(values["backend"]), way)


def _check_names(values: Mapping[str, Any], kind: type) -> None:
    known = {of.name for of in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{unknown[0]:.40} is unknown")


def _plain(value: object) -> object:
    """Return a value of an option as JSON has it."""
    held = asdict(value) if hasattr(value, "__dataclass_fields__") else value  # type: ignore[call-overload]
    return json.loads(json.dumps(held))
