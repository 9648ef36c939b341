"""A case of a day's list: its slides, how they came together, and what a model takes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path  # noqa: TC003 - dataclass
from typing import TYPE_CHECKING

from napari_her2.cohort.score_job import Case
from napari_her2.methods.catalogue import method_of

if TYPE_CHECKING:
    from napari_her2.models.card import ModelCard


@dataclass(frozen=True, slots=True)
class Entry:
    """A case.

    Parameters
    ----------
    name : str
        Of the case.
    he, ihc : Path or None
        Its slides; a single one whose stain nobody knows stands as ``he``.
    mpp, ihc_mpp : float or None
        µm per level-0 pixel of each, where the files do not say it.
    mpp_source, ihc_mpp_source : str
        How these are known, in words; empty of those that a table gives.
    regions : Path or None
        GeoJSON, on the first slide.
    stain_known : bool
        Whether it is known that ``he`` is an H&E slide.
    because : str
        Why its slides belong together: "names", "pattern", "table"; empty for a single slide.
    place : str
        Folder of its own for its results, where another slide has the same name; empty where none has.
    note : str
        What should be known of it.
    problem : str
        Why it cannot be scored; empty where it can.
    case_id : str
        Of the case, as a table names it: rows of one are slides of one case. Empty where none does.
    """

    name: str
    he: Path | None = None
    ihc: Path | None = None
    mpp: float | None = None
    ihc_mpp: float | None = None
    regions: Path | None = None
    stain_known: bool = True
    because: str = ""
    place: str = ""
    note: str = ""
    problem: str = ""
    case_id: str = ""
    mpp_source: str = ""
    ihc_mpp_source: str = ""

    @property
    def slides(self) -> tuple[Path, ...]:
        """Its slides, the H&E slide first."""
        return tuple(path for path in (self.he, self.ihc) if path is not None)

    @property
    def scales(self) -> tuple[float | None, ...]:
        """The µm/px given for each of `slides`."""
        given = ((self.he, self.mpp), (self.ihc, self.ihc_mpp))
        return tuple(mpp for path, mpp in given if path is not None)

    @property
    def scale_sources(self) -> tuple[str, ...]:
        """How the µm/px given for each of `slides` is known; empty where a table gives it."""
        given = ((self.he, self.mpp_source), (self.ihc, self.ihc_mpp_source))
        return tuple(source for path, source in given if path is not None)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that it names."""
        return self.slides if self.regions is None else (*self.slides, self.regions)

    def with_note(self, *notes: str) -> str:
        """Return its note with more added."""
        return "; ".join(text for text in (self.note, *notes) if text)

    def swapped(self) -> Entry:
        """Return the case with the stains of its slides the other way round."""
        return replace(
            self,
            he=self.ihc,
            ihc=self.he,
            mpp=self.ihc_mpp,
            ihc_mpp=self.mpp,
            mpp_source=self.ihc_mpp_source,
            ihc_mpp_source=self.mpp_source,
            stain_known=True,
            because="you" if len(self.slides) == 2 else "",
        )

    def case_for(self, card: ModelCard) -> Case | str:
        """Return what a model takes of the case.

        Parameters
        ----------
        card : ModelCard

        Returns
        -------
        Case or str
            A sentence where it takes none of it.

        Raises
        ------
        ModelError
            If this version does not know the method of the model.
        """
        if self.problem:
            return self.problem
        if method_of(card).takes_pair:
            he = self.he, self.mpp, self.mpp_source
            alone = self.ihc, self.ihc_mpp, self.ihc_mpp_source
            first, scale, source = he if self.he is not None else alone
            if first is None:
                return _NO_SLIDE
            both = self.he is not None and self.ihc is not None
            ihc, ihc_scale, ihc_source = alone if both else (None, None, "")
            return Case(
                first, ihc, self.regions, scale, ihc_scale, mpp_source=source, ihc_mpp_source=ihc_source
            )
        takes_ihc = card.stain == "IHC" and (self.ihc is not None or self.stain_known)
        path, scale = (self.ihc, self.ihc_mpp) if takes_ihc else (self.he, self.mpp)
        source = self.ihc_mpp_source if takes_ihc else self.mpp_source
        if path is None:
            return (
                f"{card.name} takes an {card.stain} slide, and the case has none."
                if self.slides
                else _NO_SLIDE
            )
        # Regions are drawn on the first slide: those of another would lie on nothing.
        regions = self.regions if path == self.slides[0] else None
        return Case(path, None, regions, scale, mpp_source=source)


_NO_SLIDE = "The row names no slide: give one under he or ihc."
