"""What the user wishes by an environment variable."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from collections.abc import Sequence


def wish(variable: str, choices: Sequence[str], what: str) -> str:
    """Return what an environment variable chooses.

    Parameters
    ----------
    variable : str
        Its name.
    choices : sequence of str
        The first one holds where it is not set, or empty.
    what : str
        Is chosen: "precision".

    Raises
    ------
    JobFailed
        If it says something else.
    """
    wanted = os.environ.get(variable, "").strip().lower() or choices[0]
    if wanted not in choices:
        raise JobFailed(f"There is no {what} {wanted!r:.40}: set {variable} to {', '.join(choices)}.")
    return wanted
