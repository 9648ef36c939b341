"""A scored slide in names and values, for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.explain.quality import share_in_words
from napari_her2.inference.presentation import trust_line
from napari_her2.inference.withheld import without_answer
from napari_her2.methods.catalogue import METHODS
from napari_her2.models.card import BOTH

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.inference.result import SlideResult

HEAD_WORDS = {BOTH: "both slides together", "H&E": "the H&E slide alone", "IHC": "the IHC slide alone"}


def scored_facts(result: SlideResult, reader: str, out: Path) -> tuple[tuple[str, str], ...]:
    """Return what is told of a result, the notice last.

    Parameters
    ----------
    result : SlideResult
        Of an answer that is withheld nothing is told but that, and why.
    reader : str
        Library that read the slide.
    out : Path
        Folder that holds the folder of the result.

    Returns
    -------
    tuple of (str, str)
        Name and value.
    """
    result = without_answer(result)
    rows: list[tuple[str, object]] = [("task", result.task), ("result", result.label)]
    if line := trust_line(result):
        rows.append(("doubt", line))
    spread, method = result.uncertainty, METHODS[result.method]
    bars = method.bars(result)
    for name, value in bars.shares.items():
        bar = "#" * round(20 * value)
        sd = f" ± {bars.number.format(bars.spread[name])}" if name in bars.spread else ""
        rows.append((bars.row.format(name=name), f"{bars.number.format(value)}{sd} {bar}"))
    if result.probabilities:
        rows.append(("margin", f"{result.margin:.3f}"))
    if result.head:
        rows.append(("answered by", HEAD_WORDS[result.head]))
    for head, score in result.head_scores.items():
        if head != result.head:
            rows.append((f"{head} alone", f"{result.named(score)} ({result.heads[head][score]:.3f})"))
    if spread is not None:
        over = f"standard deviation over {spread.draws} draws of {spread.bag_size} tiles"
        rows.append(("±", f"{over}: how much hangs on the tiles seen, not how sure the model is"))
    rows += _slide_rows(result)
    rows += method.facts(result)
    rows += [
        ("model", f"{result.model} (SHA-256 {result.model_sha256[:12]})"),
        ("training data", result.training_data),
        ("criteria", result.guideline),
        ("reader", reader),
        ("device", result.device),
        ("precision", result.precision),
        ("time", ", ".join(f"{name} {value:.1f} s" for name, value in result.seconds.items())),
    ]
    if result.regions:
        rows.append(("limited to", result.regions))
    rows += [("warning", text) for text in result.warnings]
    rows += [("written to", out / result.slide), ("notice", result.notice)]
    return tuple((name, str(value)) for name, value in rows)


def _slide_rows(result: SlideResult) -> list[tuple[str, object]]:
    method, rows = METHODS[result.method], list[tuple[str, object]]()
    for scored in result.slides:
        of = f" ({scored.stain})" if len(result.slides) > 1 else ""
        rows.append((f"seen{of}", method.seen(scored)))
        if scored.quality is not None:
            rows.append((f"quality{of}", share_in_words(scored.quality)))
        if limit := method.limit(scored):
            rows.append((f"limit{of}", limit))
    return rows
