"""Features of the tiles of a slide, and the refusal of slides of which too much is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.errors import SlideError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.inference.slide_record import SlideRecord
    from napari_her2.slide.reader import Slide

MOST_DAMAGED = 0.1
"""Above this share of unreadable tiles a file is not a slide with a flaw but a part of one."""


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """Features of the tiles of a slide.

    Parameters
    ----------
    features : (N, D) float16
    index : (N, 2) int64
        Grid (row, column), row by row.
    corrupt : (K, 2) int64
        Grid (row, column) of tiles that could not be read because the file is damaged there.
    cached : int
        How many of the N came from the cache.
    note : str
        What a person should know of the computation (precision, shortage of memory).
    problem : str
        Why the cache could not be used, empty where it could.
    precision : str
        In which they were computed: "float32", "bfloat16" or "float16".
    graph : str
        How, where not layer by layer (`napari_her2.models.inference_graph`), or not of tiles that the
        processor decoded (`napari_her2.inference.gpu_tiles`).
    """

    features: NDArray[np.float16]
    index: NDArray[np.int64]
    corrupt: NDArray[np.int64]
    cached: int
    note: str
    problem: str
    precision: str = ""
    graph: str = ""

    def warnings(self, slide: str) -> tuple[str, ...]:
        """Tell what a reader of the score should know, a sentence each; ``slide`` is its name."""
        found = []
        lost, asked = len(self.corrupt), len(self.corrupt) + len(self.index)
        if lost:
            found.append(
                f"{lost:,} of {asked:,} tiles ({lost / asked:.1%}) were left out because {slide} is damaged "
                f"there: copy the slide again from its source."
            )
        if self.problem:
            found.append(f"{self.problem[0].upper()}{self.problem[1:]}.")
        return tuple(found)


def refuse_ruins(slide: Slide | SlideRecord, embeddings: Embeddings) -> None:
    """Refuse to go on where much of the tissue could not be read, as in a file that was cut off.

    Parameters
    ----------
    slide : Slide or SlideRecord
    embeddings : Embeddings

    Raises
    ------
    SlideError
    """
    lost = len(embeddings.corrupt)
    asked = lost + len(embeddings.index)
    share = lost / max(1, asked)
    refuse_damage(slide, share, f"{lost:,} of {asked:,} tiles ({share:.0%})")


def refuse_damage(slide: Slide | SlideRecord, share: float, lost: str = "") -> None:
    """Refuse a slide of whose tissue much could not be read; see `refuse_ruins`.

    Parameters
    ----------
    slide : Slide or SlideRecord
    share : float
        Of the tissue, 0 to 1.
    lost : str, optional
        It in words.

    Raises
    ------
    SlideError
    """
    if share > MOST_DAMAGED:
        raise SlideError(
            f"{lost or f'{share:.0%} of the tissue'} of {slide.path.name} cannot be read because the file is "
            f"damaged or was cut off: copy it again from its source."
        )
