"""In what two results differ."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def differences(a: Any, b: Any, place: str = "result") -> list[str]:
    """Every place in which two results differ, down to the bits of their arrays."""
    if type(a) is not type(b):
        return [f"{place}: {type(a).__name__} and {type(b).__name__}"]
    if isinstance(a, np.ndarray):
        same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        return [] if same else [place]
    if is_dataclass(a):
        each = [(of.name, getattr(a, of.name), getattr(b, of.name)) for of in fields(a)]
    elif isinstance(a, dict):
        if list(a) != list(b):
            return [f"{place}: its keys"]
        each = [(key, a[key], b[key]) for key in a]
    elif isinstance(a, list | tuple):
        if len(a) != len(b):
            return [f"{place}: how many"]
        each = [(str(number), *pair) for number, pair in enumerate(zip(a, b, strict=True))]
    else:
        return [] if a == b or (a != a and b != b) else [f"{place}: {a!r} and {b!r}"]
    return [line for name, x, y in each for line in differences(x, y, f"{place}.{name}")]
