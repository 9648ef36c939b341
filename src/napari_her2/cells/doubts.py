"""What makes a score uncertain: the other scores that it could be, each with the reason in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.cells.criteria import finding, near_findings
from napari_her2.cells.tallies import lost_by_blur, uncertainty

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_her2.cells.reading import CellReading
    from napari_her2.cells.tallies import Tallies, Tally


def doubts(reading: CellReading, found: Tallies) -> Iterator[tuple[str, str]]:
    """Scores under each uncertainty, with the sentence that says so where it is another score.

    A percentage close to the one that decides; the strength of stain, less uncertain with a calibration; an
    image that is not quite sharp; and lymphocytes and stromal cells: those left out count after all, or as
    many again are left out of the cells without staining, since not all of them can be told.

    Parameters
    ----------
    reading : CellReading
    found : Tallies

    Yields
    ------
    score, reason : str
        The score may be the one that it is anyway.
    """
    rules, tally = reading.rules, found.as_read

    def of(other: Tally) -> str:
        return finding(other.shares(), rules).score

    yield from near_findings(tally.shares(), rules)
    percent = f"{100 * uncertainty(reading):.0f} %"
    lead = f"Without a calibration the strength of the stain may be off by {percent} or more"
    if reading.calibration:
        lead = f"With a calibration the strength of the stain is uncertain by {percent}"
    for word, score in (("stronger", of(found.stronger)), ("weaker", of(found.weaker))):
        yield score, f"{lead}: if it were {word}, the score would be {score}."
    if found.sharp is not None:
        times, score = lost_by_blur(reading.blur_um), of(found.sharp)
        yield (
            score,
            f"The image is soft (blurred by {reading.blur_um:.2f} µm): in focus the membranes may be "
            f"{times:.1f} times as strong, and the score would be {score}.",
        )
    if tally.left_out:
        score, cells = finding(tally.shares(with_left_out=True), rules).score, f"{tally.left_out:,} cells"
        yield score, f"If the {cells} left out as lymphocytes and stroma counted, the score would be {score}."
        score = finding(tally.shares(fewer=tally.left_out), rules).score
        yield score, f"If {cells} more are lymphocytes or stroma, the score would be {score}."
