"""Pairs: as many of each class, from the seed alone, and each slide once where they are of one case."""

from __future__ import annotations

from collections import Counter

import numpy as np

from napari_her2_training.cohort.bags import SlideBag
from napari_her2_training.wsmcl.config import PairsConfig
from napari_her2_training.wsmcl.pairs import PairDraw, PairedSlides, judged_pairs

SAME_CLASS = PairsConfig(mode="same-class")


def bag(name: str, label: int, tiles: int = 5) -> SlideBag:
    """Feature 0 is the number of the tile."""
    return SlideBag(name, label, np.arange(tiles, dtype=np.float16)[:, None])


def strangers(he_of_class: tuple[int, ...], ihc_of_class: tuple[int, ...]) -> PairedSlides:
    """H&E and IHC slides of different people."""
    he = [bag(f"h{c}.{n}", c) for c, count in enumerate(he_of_class) for n in range(count)]
    ihc = [bag(f"i{c}.{n}", c) for c, count in enumerate(ihc_of_class) for n in range(count)]
    return PairedSlides([*he, *[None] * len(ihc)], [*[None] * len(he), *ihc])


def names(pairs: list) -> list[tuple[str, str]]:
    return [(pair.he.case_id, pair.ihc.case_id) for pair in pairs]


def test_same_class_pairs_are_as_many_of_each_class_and_never_mixed() -> None:
    # 18 H&E slides, mostly of one class, in four classes: floor(18 / 4) pairs of each.
    draw = PairDraw(strangers((2, 3, 11, 2), (1, 2, 3, 4)), SAME_CLASS, classes=4, seed=0)
    assert len(draw) == 16
    pairs = draw.epoch(0)
    assert Counter(pair.label for pair in pairs) == {0: 4, 1: 4, 2: 4, 3: 4}
    assert all(pair.he.label == pair.ihc.label for pair in pairs)
    assert [pair.label for pair in pairs] != sorted(pair.label for pair in pairs)


def test_every_slide_of_a_class_is_as_likely_as_any_other() -> None:
    draw = PairDraw(strangers((5, 5), (2, 3)), SAME_CLASS, classes=2, seed=0)
    drawn = [pair for epoch in range(400) for pair in draw.epoch(epoch)]
    of_he, of_ihc = (Counter(getattr(pair, side).case_id for pair in drawn) for side in ("he", "ihc"))
    assert len(of_he) == 10
    # 2,000 pairs of each class; five standard deviations.
    assert max(abs(count - 400) for count in of_he.values()) < 5 * np.sqrt(2000 * 0.2 * 0.8)
    assert abs(of_ihc["i0.0"] - 1000) < 5 * np.sqrt(2000 * 0.25)


def test_pairs_are_drawn_anew_in_each_epoch_or_once() -> None:
    slides = strangers((6, 6), (6, 6))
    anew = PairDraw(slides, SAME_CLASS, classes=2, seed=3)
    once = PairDraw(slides, PairsConfig(mode="same-class", redraw=False), classes=2, seed=3)
    assert sorted(names(anew.epoch(0))) != sorted(names(anew.epoch(1)))
    assert sorted(names(once.epoch(0))) == sorted(names(once.epoch(1)))
    assert names(once.epoch(0)) != names(once.epoch(1))  # in another order


def test_the_seed_and_the_epoch_alone_decide_whatever_was_drawn_before() -> None:
    slides = strangers((6, 6), (6, 6))
    first = PairDraw(slides, SAME_CLASS, classes=2, seed=3)
    for epoch in range(4):
        first.epoch(epoch)
    again, other = (PairDraw(slides, SAME_CLASS, classes=2, seed=seed) for seed in (3, 4))
    assert names(first.epoch(7)) == names(again.epoch(7))
    assert names(first.epoch(7)) != names(other.epoch(7))


def test_same_case_pairs_are_the_cases_each_once_in_every_epoch() -> None:
    slides = PairedSlides([bag(f"c{n}", n % 4) for n in range(9)], [bag(f"c{n}", n % 4) for n in range(9)])
    draw = PairDraw(slides, PairsConfig(), classes=4, seed=0)
    orders = [names(draw.epoch(epoch)) for epoch in range(3)]
    for order in orders:
        assert sorted(order) == [(f"c{n}", f"c{n}") for n in range(9)]
    assert orders[0] != orders[1] != orders[2]


def test_a_thinned_slide_keeps_the_order_of_its_tiles() -> None:
    draw = PairDraw(strangers((1,), (1,)), PairsConfig(max_tiles=20), classes=1, seed=0)
    large = bag("x", 0, tiles=100)
    kept = draw.thinned(large, 0, 0)[:, 0]
    assert len(set(kept.tolist())) == 20
    assert (np.diff(kept) > 0).all()
    assert (kept != draw.thinned(large, 0, 1)[:, 0]).any()
    assert (kept != draw.thinned(large, 1, 0)[:, 0]).any()
    np.testing.assert_array_equal(kept, draw.thinned(large, 0, 0)[:, 0])
    assert len(draw.thinned(bag("y", 0, tiles=20), 0, 0)) == 20


def test_judged_pairs_are_always_the_same_and_of_one_case_where_there_is_one() -> None:
    slides = PairedSlides(
        [bag("a", 0), bag("b", 1), None, None, bag("c", 1)],
        [bag("a", 0), None, bag("d", 1), bag("e", 1), bag("c", 1)],
    )
    pairs = names(judged_pairs(slides, "same-class", 0))
    assert pairs == names(judged_pairs(slides, "same-class", 0))
    assert pairs[0] == ("a", "a")
    assert pairs[1][0] == "b"
    assert pairs[1][1] in {"c", "d", "e"}
    assert pairs[2] == ("c", "c")
    assert names(judged_pairs(slides, "same-case", 0)) == [("a", "a"), ("c", "c")]
