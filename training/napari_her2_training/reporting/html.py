"""Pages of reports: a template filled in, written whole or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from napari_her2.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEMPLATES = Path(__file__).parent / "templates"


def write_page(path: Path, template: str, content: Mapping[str, Any]) -> Path:
    """Fill in a template and write the page.

    Parameters
    ----------
    path : Path
    template : str
        Its name among the templates: "report".
    content : mapping
        What it asks for; date and version are added.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    text = environment.get_template(f"{template}.html.j2").render(
        {**content, "written": datetime.now(UTC).strftime("%Y-%m-%d"), "version": version("napari-her2")}
    )
    with whole_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")
    return path
