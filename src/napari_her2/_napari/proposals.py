"""Tumour regions for the IHC slide, proposed from what a model used on the H&E slide of the case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_her2._napari.tags import slide_tag
from napari_her2.errors import JobFailed
from napari_her2.explain.proposal import WORDS, carried, proposed_regions, proposing_maps, within_slide

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2._napari.pairing import Pairing
    from napari_her2._napari.session import Session
    from napari_her2.explain.maps import TileMap
    from napari_her2.inference.regions import Region

LEAST_BESIDE = 0.01
"""Share of the proposed area beside the slide from which on it is worth a word."""


@dataclass(frozen=True, slots=True, eq=False)
class ProposedRegions:
    """What is proposed for a slide.

    Parameters
    ----------
    regions : tuple of Region
        On the slide, in level-0 pixels; tumour, if a person accepts them.
    tiles, held : float
        Share of the scored tiles that they are drawn around, and of the map that these hold, 0 to 1.
    beside : float
        Share of their area that lies beside the slide, and is cut off.
    aligned : bool
        Whether the two slides were aligned at all.
    """

    regions: tuple[Region, ...]
    tiles: float
    held: float
    beside: float
    aligned: bool

    def in_words(self, title: str) -> str:
        """Say what is proposed, for a person; ``title`` is what the map is called."""
        count = len(self.regions)
        words = (
            f"{count} region{'s' if count != 1 else ''} around {100 * self.tiles:.0f} % of the scored tiles, "
            f"with {100 * self.held:.0f} % of the {title}"
        )
        if self.beside >= LEAST_BESIDE:
            words += f"; {100 * self.beside:.0f} % of their area lies beside this slide"
        if not self.aligned:
            words += ". The slides are not aligned: the regions lie as the files have them"
        return f"{words}. {WORDS[0].upper()}{WORDS[1:]}, then accept them under Region."


def proposing_slides(session: Session, ihc_id: str) -> list[str]:
    """Ids of the other open slides with a map that regions can be proposed from."""
    found = []
    for layer in session.slide_layers():
        tag = slide_tag(layer)
        if tag is not None and tag.slide_id != ihc_id and maps_of(session, tag.slide_id):
            found.append(tag.slide_id)
    return found


def maps_of(session: Session, slide_id: str) -> list[tuple[str, TileMap]]:
    """Return maps of an H&E result that regions can be proposed from, with what they are called."""
    result = session.shown(slide_id)
    if result is None or result.slides[0].stain != "H&E":
        return []
    found = []
    for tile_map in proposing_maps(result.maps):
        named = "" if tile_map.class_name is None else f" {result.named(tile_map.class_name)}"
        found.append((f"{tile_map.info.title.lower()}{named}", tile_map))
    return sorted(found, key=lambda of: of[1].info.order)


def paired(session: Session, he_id: str, ihc_id: str) -> Pairing | None:
    """Return the pair of the session where it is of these two slides, in whatever order."""
    pairing = session.pairing
    return pairing if pairing is not None and set(pairing.ids) == {he_id, ihc_id} else None


def proposed_for(
    session: Session, ihc_id: str, he_id: str, tile_map: TileMap, share: float | None
) -> ProposedRegions:
    """Propose tumour regions for a slide from a map of the other slide of the case.

    Parameters
    ----------
    session : Session
    ihc_id, he_id : str
        The slide that regions are proposed for, and that of the map.
    tile_map : TileMap
    share : float or None
        See `napari_her2.explain.proposal.threshold_of`.

    Raises
    ------
    JobFailed
        If the slides are no pair, or the map proposes nothing that lies on the slide.
    """
    from napari_her2.inference.regions import Region

    pairing, he, ihc = paired(session, he_id, ihc_id), session.slide_of(he_id), session.slide_of(ihc_id)
    if pairing is None or he is None or ihc is None or he.mpp is None or ihc.mpp is None:
        raise JobFailed("Show both slides first, and align them: else nobody knows where the regions lie.")
    moving = pairing.alignment if pairing.ids == (ihc_id, he_id) else pairing.alignment.inverse()
    proposal = proposed_regions(tile_map, share)
    polygons, beside = within_slide(
        carried(proposal.polygons, between_px0(moving.matrix, he.mpp, ihc.mpp)), ihc.shape
    )
    regions = tuple(Region(polygon) for polygon in polygons)
    return ProposedRegions(regions, proposal.tiles, proposal.held, beside, not pairing.alignment.is_identity)


def between_px0(
    matrix_um: NDArray[np.float64], moving_mpp: tuple[float, float], fixed_mpp: tuple[float, float]
) -> NDArray[np.float64]:
    """From the level-0 pixels of a slide to those of another.

    Parameters
    ----------
    matrix_um : (3, 3) float64
        From µm on the one to µm on the other, for (y, x, 1), from the centres of their first pixels.
    moving_mpp, fixed_mpp : tuple of float
        (y, x) µm per level-0 pixel of the one and of the other.

    Returns
    -------
    (3, 3) float64
        For (y, x, 1), from the upper left edges of the slides.
    """
    result: NDArray[np.float64] = np.linalg.inv(_um_of(fixed_mpp)) @ matrix_um @ _um_of(moving_mpp)
    return result


def _um_of(mpp: tuple[float, float]) -> NDArray[np.float64]:
    """From level-0 pixels, from the edge, to µm from the centre of the first one."""
    matrix = np.diag([*mpp, 1.0])
    matrix[:2, 2] = -0.5 * np.asarray(mpp)
    return matrix
