"""Pairs of an H&E and an IHC slide that WSMCL learns from, and is judged by.

Shi et al. 2025 (PMID 39919535) and its published code, which has two ways to pair: both slides of a case;
or, where the stains come from different people, any two slides of one class (M H&E slides in C classes
give floor(M / C) pairs of each class, slides drawn at random with replacement).

Differences from the published code
-----------------------------------
- Pairs are shuffled in each epoch; there they come sorted by class.
- Everything drawn follows from a seed and the number of the epoch, so that a resumed run draws the same.
- Same-class pairs can be drawn anew in each epoch; there once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import JobFailed
from napari_her2_training.cohort.manifest import STAINS, class_names, label_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_her2_training.classes import ClassMapping
    from napari_her2_training.cohort.bags import SlideBag
    from napari_her2_training.cohort.manifest import Case, Stain
    from napari_her2_training.wsmcl.config import PairsConfig

_ORDER, _PAIRING, _TILES, _JUDGED = range(4)
"""What a random stream is for: each has its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """An H&E and an IHC slide of one class."""

    he: SlideBag
    ihc: SlideBag

    @property
    def label(self) -> int:
        """Class number."""
        return self.he.label


@dataclass(frozen=True, slots=True, eq=False)
class PairedSlides:
    """The slides of some cases, in the order of the cases.

    Parameters
    ----------
    he, ihc : sequence of SlideBag or None
        None where a case lacks the slide; both of one length.
    """

    he: Sequence[SlideBag | None]
    ihc: Sequence[SlideBag | None]

    def of(self, stain: Stain) -> list[SlideBag]:
        """Return the slides of a stain."""
        return [bag for bag in (self.he if stain == "he" else self.ihc) if bag is not None]

    def cases(self) -> list[Pair]:
        """Return the cases that have both slides."""
        both = zip(self.he, self.ihc, strict=True)
        return [Pair(he, ihc) for he, ihc in both if he is not None and ihc is not None]


class PairDraw:
    """Draws the pairs of an epoch.

    Parameters
    ----------
    slides : PairedSlides
        To train on.
    config : PairsConfig
    classes : int
    seed : int
    """

    def __init__(self, slides: PairedSlides, config: PairsConfig, *, classes: int, seed: int) -> None:
        self._slides, self._config, self._seed = slides, config, seed
        self._cases = slides.cases()
        self._by_class = [
            tuple([bag for bag in slides.of(stain) if bag.label == number] for stain in STAINS)
            for number in range(classes)
        ]

    def __len__(self) -> int:
        if self._config.mode == "same-case":
            return len(self._cases)
        return len(self._by_class) * (len(self._slides.of("he")) // len(self._by_class))

    @property
    def fewest_tiles(self) -> int:
        """Tiles of the smallest slide."""
        return min(len(bag.features) for stain in STAINS for bag in self._slides.of(stain))

    @property
    def most_tiles(self) -> int:
        """Tiles of the largest slide, as it is learnt from."""
        most = max(len(bag.features) for stain in STAINS for bag in self._slides.of(stain))
        return min(most, self._config.max_tiles) if self._config.max_tiles else most

    def epoch(self, number: int) -> list[Pair]:
        """Return the pairs of an epoch, shuffled.

        Returns
        -------
        list of Pair
            The same for the same seed and number.
        """
        pairs = self._cases if self._config.mode == "same-case" else self._same_class(number)
        order = _rng(self._seed, _ORDER, number).permutation(len(pairs))
        return [pairs[i] for i in order]

    def thinned(self, bag: SlideBag, epoch: int, batch: int) -> NDArray[np.float16]:
        """Return the features of a bag, or of as many of its tiles as are wanted, in their order.

        Returns
        -------
        (n, D) float16
        """
        most = self._config.max_tiles
        if not most or len(bag.features) <= most:
            return bag.features
        kept = _rng(self._seed, _TILES, epoch, batch).choice(len(bag.features), most, replace=False)
        return bag.features[np.sort(kept)]

    def _same_class(self, epoch: int) -> list[Pair]:
        rng = _rng(self._seed, _PAIRING, epoch if self._config.redraw else 0)
        each = len(self) // len(self._by_class)
        return [
            Pair(he[rng.integers(len(he))], ihc[rng.integers(len(ihc))])
            for he, ihc in self._by_class
            for _ in range(each)
        ]


def judged_pairs(slides: PairedSlides, mode: str, seed: int) -> list[Pair]:
    """Return the pairs by which the head for both slides is judged: the same ones always.

    Parameters
    ----------
    slides : PairedSlides
    mode : str
        "same-case": the cases with both slides. "same-class": each H&E slide with the IHC slide of its
        case, or where it has none, with a random one of its class.
    seed : int
    """
    if mode == "same-case":
        return slides.cases()
    rng = _rng(seed, _JUDGED)
    pairs = []
    for he, own in zip(slides.he, slides.ihc, strict=True):
        if he is None:
            continue
        fitting = [bag for bag in slides.of("ihc") if bag.label == he.label]
        pairs.append(Pair(he, fitting[rng.integers(len(fitting))] if own is None else own))
    return pairs


def check_pairs(cases: Sequence[Case], part: str, mode: str, classes: str | ClassMapping) -> None:
    """Refuse cases that cannot be paired, before any slide is read.

    Parameters
    ----------
    cases : sequence of Case
    part : str
        "train", "validation" or "test".
    mode : str
    classes : str or ClassMapping

    Raises
    ------
    JobFailed
        Naming the class that lacks a stain.
    """
    if mode == "same-case":
        return
    names = class_names(classes)
    for number, name in enumerate(names):
        of_class = [case for case in cases if label_of(case, classes) == number]
        has: dict[Stain, bool] = {
            "he": any(case.he for case in of_class),
            "ihc": any(case.ihc for case in of_class),
        }
        wanted = has["he"] or part == "train"
        lacking = [STAINS[stain] for stain in STAINS if not has[stain]]
        if wanted and lacking:
            raise JobFailed(
                f"No {' and no '.join(lacking)} slide of {name} among the {part} cases to pair: add some, or "
                f"change the split."
            )
    slides = sum(case.he is not None for case in cases)
    if part == "train" and slides < len(names):
        raise JobFailed(f"{slides} H&E slides are too few to make pairs of {len(names)} classes: add cases.")


def _rng(seed: int, *what: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=what))
