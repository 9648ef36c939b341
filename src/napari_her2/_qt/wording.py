"""What messages of the core mean in the dock, where there are buttons instead of options."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_her2._qt.jobs import Failure

SCORE_ANYWAY = "Score anyway"
REPLACE_MODEL = "Replace it"

_FIT, _FORCE = "--override-fit", "--force"
_WORDS = (
    (f"override this ({_FIT})", f'press "{SCORE_ANYWAY}"'),
    (f"add it with {_FORCE} to replace that one", f'"{REPLACE_MODEL}" puts this one in its place'),
    (" or a smaller share of tissue (--min-tissue)", ""),
    ("(--tissue biopsy)", "(Tissue, above)"),
    ("Use --device auto", "Choose another device in Preferences"),
    ("(--device cpu)", "(device, in Preferences)"),
    ("(--mpp, or the field in the dock)", "(the field below the slide)"),
)


def for_dock(failure: Failure) -> Failure:
    """Return a failure whose message names the buttons of the dock instead of options.

    Parameters
    ----------
    failure : Failure
    """
    message = failure.message
    for option, button in _WORDS:
        message = message.replace(option, button)
    return replace(failure, message=message)


def can_be_overridden(failure: Failure) -> bool:
    """Whether a model was refused that the user may take all the same."""
    return _FIT in failure.message and not failure.details


def can_be_replaced(failure: Failure) -> bool:
    """Whether a model was refused because another one has its name."""
    return _FORCE in failure.message and not failure.details
