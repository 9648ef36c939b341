"""What was asked of a slide: kept with the answer, so that a later run can tell what is finished."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that an answer depends on; what only makes it faster (device, batches, cache) is left out.

    Parameters
    ----------
    slides : tuple of str
        Fingerprint of the slide, or of both slides of a case.
    model_sha256 : str
        Of the model, or of the encoder with its weights.
    options : mapping of str to str, float, bool or None
        What the user chose.
    version : str
        Of napari-her2: another one may answer otherwise.
    """

    slides: tuple[str, ...]
    model_sha256: str
    options: Mapping[str, str | float | bool | None]
    version: str

    def values(self) -> dict[str, Any]:
        """Return it for JSON; two requests agree when these do, also after a way through a file."""
        return {
            "slides": list(self.slides),
            "model_sha256": self.model_sha256,
            "options": dict(self.options),
            "version": self.version,
        }
