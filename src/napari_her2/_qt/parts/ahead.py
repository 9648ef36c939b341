"""What the window will need is loaded in a thread, once a dock has been opened."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from napari_her2._napari.ahead import importing, made_units, making_layers, take_units
from napari_her2._napari.collecting import search_seldom
from napari_her2._qt.parts.jobs import Job
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator

    from pint import UnitRegistry


@cache
def load_ahead() -> Job:
    """Load ahead what layers need (`napari_her2._napari.ahead`); whoever asks again gets the same job.

    Returns
    -------
    Job
    """
    search_seldom()
    job = Job()
    job.returned.connect(_go_on)
    job.start(_loading)
    return job


def _loading() -> Generator[Progress, None, UnitRegistry | None]:
    for _ in importing():
        yield Progress("Loading")
    return made_units()


def _go_on(units: UnitRegistry | None) -> None:
    job = load_ahead()
    job.returned.disconnect(_go_on)
    take_units(units)
    job.start(_layers)


def _layers() -> Generator[Progress, None, None]:
    for _ in making_layers():
        yield Progress("Loading")
