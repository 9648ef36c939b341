"""What became of a command, as a line of JSON on its standard output: fields for whoever started it.

With ``--json`` a command of training ends with one such line. Its ``kind`` is what came out ("model",
"table", "report", "check", "methods"), or the class of the error that ended it; ``message`` is for a person.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_her2.errors import JobFailed
from napari_her2.outside import Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

_LINE = Reading(nan=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command.

    Parameters
    ----------
    kind : str
        What came out, or the class of the error.
    message : str
        A sentence for a person.
    fields : mapping
        All that the command told.
    """

    kind: str
    message: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


def outcome_line(kind: str, message: str = "", **fields: object) -> str:
    """Return the line of JSON that tells an outcome."""
    return json.dumps({"kind": kind, "message": message, **fields}, ensure_ascii=False)


def read_outcome(text: str) -> Outcome | None:
    """Find the outcome in what a command printed; None where it told none."""
    for line in text.splitlines():
        if not line.startswith("{"):  # what libraries print
            continue
        try:
            parsed = _LINE.parsed_json(line, "the outcome")
        except JobFailed:
            continue
        if isinstance(parsed, dict) and isinstance(parsed.get("kind"), str):
            return Outcome(parsed["kind"], str(parsed.get("message") or ""), parsed)
    return None
