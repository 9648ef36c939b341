"""Which head of a model of two slides answered, and what each slide says by itself."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_her2.inference.result import SlideResult

BOTH = "fusion"


def head_in_words(result: SlideResult) -> str:
    """Which head answered: "from both slides", "from the H&E slide alone"; "" where a model has one only."""
    if not result.head:
        return ""
    return "from both slides" if result.head == BOTH else f"from the {result.head} slide alone"


def heads_html(result: SlideResult) -> str:
    """Tell what the slides of a pair say by themselves, with all probabilities, as a table.

    Whether they agree stands under it; that they do not is said by the warning of the result.

    Returns
    -------
    str
        HTML; empty where there are no two slides.
    """
    single = {head: chances for head, chances in result.heads.items() if head != BOTH}
    if len(single) < 2:
        return ""
    rows = "".join(_row(head, chances, result) for head, chances in single.items())
    table = f'<table cellspacing="0" cellpadding="1">{rows}</table>'
    if not result.agree:
        return f"Each slide by itself:{table}"
    score = escape(result.named(next(score for head, score in result.head_scores.items() if head != BOTH)))
    return f"Each slide by itself (they agree on {score}):{table}"


def _row(head: str, chances: Mapping[str, float], result: SlideResult) -> str:
    top = max(chances, key=lambda name: chances[name])
    cells = []
    for name, value in chances.items():
        text = f"{escape(result.named(name))}: {value:.0%}"
        cells.append(f'<td style="padding-left: 10px">{f"<b>{text}</b>" if name == top else text}</td>')
    return f"<tr><td>{escape(head)}</td>{''.join(cells)}</tr>"
