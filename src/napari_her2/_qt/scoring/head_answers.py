"""Which head of a model of two slides answered, and what each slide says by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2._qt.parts.text import Markup, joined, markup
from napari_her2.models.card import BOTH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_her2.inference.result import SlideResult


def head_in_words(result: SlideResult) -> str:
    """Which head answered: "from both slides", "from the H&E slide alone"; "" where a model has one only."""
    if not result.head:
        return ""
    return "from both slides" if result.head == BOTH else f"from the {result.head} slide alone"


def heads_markup(result: SlideResult) -> Markup:
    """Tell what the slides of a pair say by themselves, with all probabilities, as a table.

    Whether they agree stands under it; that they do not is said by the warning of the result.

    Returns
    -------
    Markup
        Empty where there are no two slides.
    """
    single = {head: chances for head, chances in result.heads.items() if head != BOTH}
    if len(single) < 2:
        return Markup()
    rows = joined(_row(head, chances, result) for head, chances in single.items())
    table = markup('<table cellspacing="0" cellpadding="1">{}</table>', rows)
    if not result.agree:
        return markup("Each slide by itself:{}", table)
    score = result.named(next(score for head, score in result.head_scores.items() if head != BOTH))
    return markup("Each slide by itself (they agree on {}):{}", score, table)


def _row(head: str, chances: Mapping[str, float], result: SlideResult) -> Markup:
    top = max(chances, key=lambda name: chances[name])
    cells = []
    for name, value in chances.items():
        cell = "<b>{}: {}</b>" if name == top else "{}: {}"
        text = markup(cell, result.named(name), f"{value:.0%}")
        cells.append(markup('<td style="padding-left: 10px">{}</td>', text))
    return markup("<tr><td>{}</td>{}</tr>", head, joined(cells))
