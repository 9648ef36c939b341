"""Work on layers in small steps, so that a window can draw and listen between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

Turns: TypeAlias = Callable[[Iterator[None]], None]
"""Carries steps out on the main thread: `at_once`, or one a turn of an event loop."""


def at_once(steps: Iterator[None]) -> None:
    """Carry all steps out before returning; where nobody waits at a window."""
    for _ in steps:
        pass
