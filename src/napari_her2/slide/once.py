"""What is costly to find and asked for by several threads: found once, whoever comes first."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

Value = TypeVar("Value")


class Once(Generic[Value]):
    """Values that are found once and kept; whoever asks meanwhile waits for the one who is at it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[Hashable, Value] = {}

    def get(self, key: Hashable, find: Callable[[], Value]) -> Value:
        """Return the value of a key.

        Parameters
        ----------
        key : hashable
        find : callable
            Finds the value where nobody has. What it raises is raised here, and the next to ask tries again.
        """
        if key not in self._found:  # what is known waits for nobody who looks for something else
            with self._lock:
                if key not in self._found:
                    self._found[key] = find()
        return self._found[key]
