"""What a command or the dock puts in place of what a configuration says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_her2_training.encoder_choice import with_encoder

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Instead:
    """Values in place of those of a configuration; each that is empty leaves its own.

    Parameters
    ----------
    encoder, weights : str
        Encoder, with the tiles that it takes, and its weights; see `encoder_choice.with_encoder`.
    case_slides, case_rule : str
        [cases] slides and rule.
    """

    encoder: str = ""
    weights: str = ""
    case_slides: str = ""
    case_rule: str = ""

    def into(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Put them into a configuration given as nested mappings."""
        found = with_encoder(values, self.encoder, self.weights) if self.encoder or self.weights else values
        own = {"slides": self.case_slides, "rule": self.case_rule}
        chosen = {key: value for key, value in own.items() if value}
        given = found.get("cases", {})
        return {**found, "cases": {**given, **chosen}} if chosen and isinstance(given, dict) else found

    def flags(self) -> list[str]:
        """Return them as options of the command line."""
        given = {
            "--encoder": self.encoder,
            "--weights": self.weights,
            "--case-slides": self.case_slides,
            "--case-rule": self.case_rule,
        }
        return [word for option, value in given.items() if value for word in (option, value)]


AS_IT_IS = Instead()
