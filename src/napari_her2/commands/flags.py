"""Commands whose flags need no pydantic: where typer meets an option without a value it loads that first.

It takes longer than all the rest of a short command.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


def _answered(params: Any) -> Any:  # noqa: ANN401 - options of click, or of typer's own copy of it
    """Let flags that click adds by itself (--help, --install-completion) be off instead of unknown."""
    for param in params:
        if getattr(param, "is_flag", False) and param.default is None:
            param.default = False
    return params


class Command(TyperCommand):
    """A command."""

    def get_params(self, ctx: Any) -> Any:  # noqa: ANN401
        """Return its options."""
        return _answered(super().get_params(ctx))


class Group(TyperGroup):
    """Commands under one name."""

    def get_params(self, ctx: Any) -> Any:  # noqa: ANN401
        """Return its own options."""
        return _answered(super().get_params(ctx))
