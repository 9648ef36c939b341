"""How familiar a slide is, judged by where its tiles lie in the spaces of the model, and why, in words."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_her2.inference.doubt import NOTHING_KNOWN, SlideFamiliarity, SpaceFamiliarity
from napari_her2.models.familiarity import (
    APPEARANCE,
    FAMILIAR,
    FEATURES,
    IN_PART,
    LEAST_FAMILIARITY,
    NOT_KNOWN,
    UNLIKE,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.models.familiarity import Familiarity, FeatureSpace, PlacedTiles

_MOST_TIMES = 1000
_AGAINST = " as far off as on a typical validation slide"
_LEAST_TIMES = 1.05
_JUST_BEYOND = "just beyond the limit"
_NAMES: Mapping[str, str] = {FEATURES: "its cells and patterns", APPEARANCE: "its colours and sharpness"}
_NAMES_INSIDE: Mapping[str, str] = {FEATURES: "cells and patterns", APPEARANCE: "colours and sharpness"}
_PLACES: Mapping[str, str] = {FEATURES: "tiles", APPEARANCE: "squares looked at"}
UNLIKE_INSIDE, IN_PART_INSIDE = 0.5, 0.1
"""Shares of the tiles in regions, beyond the limit of tiles, from which they are unlike, or in part."""


def judged_placed(
    familiarity: Familiarity | None,
    stain: str,
    placed: Mapping[str, PlacedTiles],
    min_familiarity: float,
    slide: Mapping[str, PlacedTiles] | None = None,
) -> SlideFamiliarity:
    """Judge a slide whose tiles are `napari_her2.inference.familiarity.placed_in` the spaces of the model.

    A slide is as familiar as in the space in which it is strangest, times the number of spaces (Bonferroni):
    looking twice does not make it strange.

    Parameters
    ----------
    familiarity : Familiarity or None
        Of the model.
    stain : str
        What the slide was scored as.
    placed : mapping of str to PlacedTiles
        Of what was scored.
    min_familiarity : float
        See `judged_by`.
    slide : mapping of str to PlacedTiles, optional
        Of tiles drawn over the whole slide, where regions were scored. Stain and scanner are those of the
        slide, and its limits are from whole slides: a region varies more. So the slide is compared as a
        whole, and of the regions which share of their tiles is farther off than 99 % of those of validation
        slides: of most of them, and the tissue is unlike; of more than a tenth, in part.

    Returns
    -------
    SlideFamiliarity
        "not known" where the model has no space of the stain, or nothing was described; and where the slide
        could be compared in some of the spaces alone, unless it is strange in these.
    """
    if familiarity is None:
        return NOTHING_KNOWN
    kept = familiarity.of(stain)
    if slide is not None:
        return _judged_inside(kept, placed, slide, min_familiarity)
    spaces: dict[str, SpaceFamiliarity] = {}
    found: dict[str, NDArray[np.float32]] = {}
    for kind, tiles in placed.items():
        if not len(tiles):
            continue
        measured = SpaceFamiliarity(*kept[kind].judged(tiles))
        if not math.isnan(measured.whole):
            spaces[kind], found[kind] = measured, tiles.distances
    if not spaces:
        return NOTHING_KNOWN
    each = found.get(FEATURES)
    unlike = found[APPEARANCE] if each is None else each
    known = SlideFamiliarity(
        value=min(1.0, len(spaces) * min(space.whole for space in spaces.values())),
        upper=min(1.0, len(spaces) * min(space.upper for space in spaces.values())),
        unfamiliar=float((unlike > 1).mean()),
        distances=each,
        by_space={kind: space.whole for kind, space in spaces.items()},
        spaces=spaces,
        whole=len(spaces) == len(kept),
    )
    return judged_by(known, min_familiarity)


def _judged_inside(
    kept: Mapping[str, FeatureSpace],
    placed: Mapping[str, PlacedTiles],
    slide: Mapping[str, PlacedTiles],
    min_familiarity: float,
) -> SlideFamiliarity:
    """Judge the tiles of regions one by one, on a slide that is judged as a whole; see `judged_placed`."""
    spaces: dict[str, SpaceFamiliarity] = {}
    for kind, tiles in slide.items():
        if not len(tiles):
            continue
        whole, _, times, _ = kept[kind].judged(tiles)
        if math.isnan(whole):
            continue
        own = placed.get(kind)
        share = float((own.distances > 1).mean()) if own is not None and len(own) else math.nan
        spaces[kind] = SpaceFamiliarity(whole, whole, times, times, share)
    if not spaces:
        return NOTHING_KNOWN
    each = placed[FEATURES].distances if FEATURES in placed and FEATURES in spaces else None
    value = min(1.0, len(spaces) * min(space.whole for space in spaces.values()))
    inside = {kind: space.inside for kind, space in spaces.items() if not math.isnan(space.inside)}
    known = SlideFamiliarity(
        value=value,
        upper=value,
        unfamiliar=inside.get(FEATURES, inside.get(APPEARANCE, math.nan)),
        distances=each,
        by_space={kind: space.whole for kind, space in spaces.items()},
        spaces=spaces,
        whole=len(inside) == len(kept),
        limited=True,
    )
    return judged_by(known, min_familiarity)


def judged_by(familiarity: SlideFamiliarity, min_familiarity: float) -> SlideFamiliarity:
    """Judge the same slide by another limit; nothing is measured again.

    Parameters
    ----------
    familiarity : SlideFamiliarity
    min_familiarity : float
        Below it a slide is unlike. With 0, which withholds no answer, what is called unlike is as with
        `LEAST_FAMILIARITY`: nothing becomes familiar by looking away.

    Returns
    -------
    SlideFamiliarity
        The same one where its verdict does not change, or is not known.
    """
    if math.isnan(familiarity.value):
        return familiarity
    limit = min_familiarity or LEAST_FAMILIARITY
    inside = max((space.inside for space in familiarity.spaces.values()), key=_or_none, default=math.nan)
    likes = FAMILIAR if familiarity.whole else NOT_KNOWN
    if familiarity.value < limit or inside > UNLIKE_INSIDE:
        verdict = UNLIKE
    elif familiarity.upper < limit or inside > IN_PART_INSIDE:
        verdict = IN_PART
    else:
        verdict = likes
    strange = verdict != likes
    reason = _reason(familiarity, limit, whole=verdict == UNLIKE) if strange else ""
    only_inside = strange and familiarity.limited and familiarity.value >= limit
    if (verdict, reason) == (familiarity.verdict, familiarity.reason):
        return familiarity
    return replace(familiarity, verdict=verdict, reason=reason, only_inside=only_inside)


def _or_none(share: float) -> float:
    return -1.0 if math.isnan(share) else share


def _reason(known: SlideFamiliarity, limit: float, *, whole: bool) -> str:
    """Say what is strange, the strangest first, and how far off it is."""
    strange, spaces = [], known.spaces
    for kind, space in spaces.items():
        share = space.whole if whole else space.upper
        if len(spaces) * share < limit:
            strange.append((share, _NAMES[kind], space.times_whole if whole else space.times_upper))
    words, against = [], _AGAINST
    for _, name, times in sorted(strange):
        far = _times(times)
        if far != _JUST_BEYOND:
            far, against = f"{far}{against}", ""
        words.append(f"{name} ({far})")
    found = " and ".join(words)
    if words and known.limited:
        found += ", of the slide as a whole"
    elif words and not whole:
        found += ", in a tenth of its tiles"
    return "; ".join(part for part in (found, *_reasons_inside(spaces, whole=whole)) if part)


def _reasons_inside(spaces: Mapping[str, SpaceFamiliarity], *, whole: bool) -> list[str]:
    """Say which tiles in the regions are strange; nothing where there are no regions."""
    least = UNLIKE_INSIDE if whole else IN_PART_INSIDE
    return [
        f"{_NAMES_INSIDE[kind]} in {space.inside:.0%} of the {_PLACES[kind]} in the regions (as far off as "
        f"in 1 % of those of validation slides)"
        for kind, space in spaces.items()
        if space.inside > least
    ]


def _times(times: float) -> str:
    if times > _MOST_TIMES:
        return f"over {_MOST_TIMES:,} times"
    if times < _LEAST_TIMES:  # "1.0 times as far off" would explain nothing
        return _JUST_BEYOND
    return f"{times:.0f} times" if times >= 10 else f"{times:.1f} times"
