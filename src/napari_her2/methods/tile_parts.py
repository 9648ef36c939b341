"""What differs between methods of tiles: the slides, what is computed of a tile, and how tiles are joined."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from napari_her2.methods.method import Method

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.explain.early import EarlyValues
    from napari_her2.explain.findings import Findings
    from napari_her2.inference.assemble import Answer
    from napari_her2.inference.job import ScoringJob
    from napari_her2.inference.kept_scoring import ReadSlide
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.terms import Terms
    from napari_her2.inference.tile_encoder import TileEncoder
    from napari_her2.methods.method import Takes
    from napari_her2.slide.reader import Slide
    from napari_her2.steps import Progress


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """The slides to score, each with the stain that it is scored as, and what speaks against them."""

    slides: tuple[tuple[Slide, str], ...]
    warnings: tuple[str, ...] = ()


class TileParts(Method):
    """The parts that differ from method to method; `napari_her2.methods.tiles.TileMethod` joins them.

    Attributes
    ----------
    stage : str
        What the progress calls the computing of tiles.
    """

    takes: ClassVar[Takes] = "tiles"
    stage: ClassVar[str] = "Embedding tiles"

    def given(self, job: ScoringJob) -> Given:
        """Say which slides are scored, and as what; by default the one slide as the stain of the model.

        Raises
        ------
        ModelError, ModelMisfit
            If the slides do not suit the method.
        """
        return Given(((job.slide, job.card.stain),))

    def encoder(self, job: ScoringJob) -> Generator[Progress, None, tuple[TileEncoder, tuple[str, ...]]]:
        """Make what turns tiles into numbers; by default the patch encoder of the model.

        Yields
        ------
        Progress

        Returns
        -------
        encoder : TileEncoder
        warnings : tuple of str
            What the result has to carry.
        """
        yield from ()
        return job.bundle.patch_encoder, ()

    @abstractmethod
    def numbers(self, terms: Terms, read: ReadSlide) -> tuple[NDArray[np.floating], ...]:
        """Return what the model makes of each tile by itself, which holds whatever other tiles there are.

        Parameters
        ----------
        terms : Terms
        read : ReadSlide
            With its embeddings.

        Returns
        -------
        tuple of (N, any) float
        """

    def alone(self, terms: Terms, read: ReadSlide) -> object:
        """Return what the model makes of all tiles of a slide, whatever the other slide of the case is.

        It is kept, and made again for the slide alone whose tiles changed; by default nothing.

        Parameters
        ----------
        terms : Terms
        read : ReadSlide
            With its `numbers`.

        Returns
        -------
        object
            On the CPU, and for `join` alone; None for nothing.
        """
        del terms, read
        return None

    @abstractmethod
    def join(self, terms: Terms, read: Sequence[ReadSlide]) -> Answer:
        """Join the numbers of the tiles to an answer.

        Parameters
        ----------
        terms : Terms
        read : sequence of ReadSlide
            In the order of `given`, with their `numbers` and what `alone` made of them. When it is done
            again, features are not there, nor are the numbers of a second slide that `alone` speaks for.

        Returns
        -------
        Answer
        """

    def beside(self, terms: Terms, read: Sequence[ReadSlide], other: ReadSlide) -> Findings:
        """Say what the model finds in tiles beside those that make the score, for smoother maps.

        Asked of methods with an empty ``no_overlap``. What is found is on the scale of the maps that
        `join` gives, and of tiles that are scored it is what stands there.

        Parameters
        ----------
        terms : Terms
        read : sequence of ReadSlide
            Tiles that make the score, with their numbers: of the slide, and of those in one bag with it.
        other : ReadSlide
            Tiles of the same slide, with theirs and without features.

        Returns
        -------
        Findings
            Of the other tiles.
        """
        raise NotImplementedError(f"{self.name} has no overlapping tiles")

    def so_far(self, terms: Terms, stain: str, features: NDArray[np.floating]) -> EarlyValues:
        """Say what is known of tiles by themselves while others are still to be computed.

        Asked where the answer cannot be withheld any more; else, and by default, it is only said that the
        model has looked at them.

        Parameters
        ----------
        terms : Terms
        stain : str
            What the slide is scored as.
        features : (n, D) float
            Of its encoder.

        Returns
        -------
        EarlyValues
        """
        from napari_her2.explain.early import looked_at

        del terms, stain
        return looked_at(len(features))

    def features(self, terms: Terms, read: ReadSlide) -> NDArray[np.floating]:
        """Return what the model takes or makes of each tile, (N, D); by default features of its encoder."""
        del terms
        return read.embeddings.features

    def remarks(self, result: SlideResult) -> tuple[str, ...]:
        """Warn of what a reader of the answer has to know first; nothing by default."""
        del result
        return ()
