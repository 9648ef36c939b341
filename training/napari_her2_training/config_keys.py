"""The keys of a configuration: what each may be, and the check of a section against them."""

from __future__ import annotations

import difflib
from dataclasses import MISSING, field, fields
from typing import TYPE_CHECKING, Any

from napari_her2.errors import JobFailed
from napari_her2.outside import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

_REQUIRED = object()
_MOST = 2**53  # beyond it a whole number is none as a decimal one


def key(
    default: object = _REQUIRED,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    prefixes: tuple[str, ...] = (),
) -> Any:  # noqa: ANN401 - a dataclass field, of the type of its annotation
    """Describe a key of a section.

    Parameters
    ----------
    default : object
        None given: the key must be there.
    low, high, above : float, optional
        Range of a number; ``above`` is not in it.
    choices : tuple of str
        The texts allowed.
    prefixes : tuple of str
        Texts that begin with one of these and go on are allowed too.
    """
    rules = {"low": low, "high": high, "above": above, "choices": choices, "prefixes": prefixes}
    if default is _REQUIRED:
        return field(metadata=rules)
    return field(default=default, metadata=rules)


def read_section(name: str, kind: type, values: Mapping[str, object]) -> Any:  # noqa: ANN401 - of that kind
    """Read a section into its dataclass.

    Parameters
    ----------
    name : str
    kind : type
        A dataclass whose fields are each a `key`.
    values : mapping
        All sections, by their names; one that is not there has its defaults.

    Returns
    -------
    object
        Of that kind.

    Raises
    ------
    JobFailed
        Naming the key and what is wrong with it.
    """
    given = values.get(name, {})
    known = {item.name: item for item in fields(kind)}
    checked: dict[str, object] = {}
    for key, value in given.items():  # type: ignore[attr-defined]
        if key not in known:
            raise JobFailed(f"[{name}] has no key {shown(key, 60)!r}{near(key, known)}.")
        checked[key] = _value(f"[{name}] {key}", str(known[key].type), known[key].metadata, value)
    try:
        return kind(**checked)
    except TypeError as error:  # a key without default that is not there
        missing = [key for key, item in known.items() if item.default is MISSING and key not in checked]
        raise JobFailed(f"[{name}] {' and '.join(missing)} must be given.") from error


def _value(key: str, kind: str, rules: Mapping[str, Any], value: object) -> object:
    if kind == "str":
        if not isinstance(value, str):
            raise JobFailed(f"{key} must be a text, not {value!r:.80}.")
        begun = any(value.startswith(prefix) and value != prefix for prefix in rules["prefixes"])
        if rules["choices"] and value not in rules["choices"] and not begun:
            options = ", ".join(
                repr(choice)
                for choice in (*rules["choices"], *(f"{start}NAME" for start in rules["prefixes"]))
            )
            raise JobFailed(f"{key} must be one of {options}, not {value!r:.80}.")
        return value
    if kind == "bool":
        if not isinstance(value, bool):
            raise JobFailed(f"{key} must be true or false, not {value!r:.80}.")
        return value
    whole = kind == "int"
    word = f"{_range_word(rules)}{'whole ' if whole else ''}number{_range_end(rules)}"
    fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not fits or not -_MOST <= value <= _MOST or not _within(value, rules):  # type: ignore[arg-type, operator]
        raise JobFailed(f"{key} must be a {word}, not {value!r:.80}.")
    return value if whole else float(value)  # type: ignore[arg-type]


def _within(value: float, rules: Mapping[str, Any]) -> bool:
    low, high, above = rules["low"], rules["high"], rules["above"]
    return (
        (low is None or value >= low) and (high is None or value <= high) and (above is None or value > above)
    )


def _range_word(rules: Mapping[str, Any]) -> str:
    return "positive " if rules["above"] == 0 else ""


def _range_end(rules: Mapping[str, Any]) -> str:
    low = None if rules["low"] is None else f"of at least {rules['low']:g}"
    high = None if rules["high"] is None else f"at most {rules['high']:g}"
    ends = " and ".join(end for end in (low, high) if end)
    return f" {ends}" if ends else ""


def near(name: str, known: Mapping[str, object]) -> str:
    """Say which name may have been meant, else all there are; the rest of a sentence."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else f"; it may have {', '.join(known)}"
