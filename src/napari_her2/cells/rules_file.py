"""Rules as a file: thresholds that a user writes down, or those of an earlier result."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from napari_her2.cells.rules import Rules
from napari_her2.errors import JobFailed
from napari_her2.outside import Reading, shown

if TYPE_CHECKING:
    from pathlib import Path

RULES_FILES = Reading(limit=64 << 20, advice="give the rules as JSON, or a result.json that holds them")
_KEY = "rules"


def rules_values(rules: Rules) -> dict[str, Any]:
    """Return rules for JSON; `rules_from` reads them again."""
    return {name: list(held) if isinstance(held, tuple) else held for name, held in asdict(rules).items()}


def read_rules(path: Path | str) -> Rules:
    """Read rules from a JSON file.

    Parameters
    ----------
    path : Path or str
        An object with any of the fields of `Rules`, all others being those of the specification; or a
        result.json, whose rules are taken.

    Returns
    -------
    Rules

    Raises
    ------
    JobFailed
        If the file cannot be read, or holds something else.
    """
    values = RULES_FILES.json_object(path)
    held = values.get(_KEY, values)
    if not isinstance(held, dict):
        raise RULES_FILES.refusal(path, "holds no rules")
    try:
        return rules_from(held)
    except ValueError as error:
        raise RULES_FILES.refusal(path, str(error)) from error
    except JobFailed as error:
        raise RULES_FILES.refusal(path, f"holds rules that cannot be ({error})") from error


def rules_from(values: dict[str, Any]) -> Rules:
    """Make rules of plain values.

    Parameters
    ----------
    values : dict
        Any of the fields of `Rules`.

    Raises
    ------
    ValueError
        If a field is unknown, or of another kind; the text goes on from the name of a file.
    JobFailed
        If a value cannot be.
    """
    usual = {of.name: getattr(Rules(), of.name) for of in fields(Rules)}
    if unknown := sorted(set(values) - set(usual)):
        raise ValueError(
            f"holds {shown(str(unknown[0]), 40)!r}, which is no rule (there are {', '.join(usual)})"
        )
    return Rules(**{name: _like(name, value, usual[name]) for name, value in values.items()})


def _like(name: str, value: object, usual: object) -> Any:  # noqa: ANN401 - a field of Rules
    """Return a value as the field has it."""
    if isinstance(usual, tuple):
        if isinstance(value, list) and all(map(_is_number, value)):
            return tuple(float(each) for each in value)
        raise ValueError(f"holds no list of numbers for {name}")
    if isinstance(usual, float):
        if _is_number(value):
            return float(value)  # type: ignore[arg-type]  # it is a number
        raise ValueError(f"holds no number for {name}")
    if type(value) is not type(usual):
        raise ValueError(f"holds {shown(str(value), 40)!r} for {name}, and not one like {usual!r}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
