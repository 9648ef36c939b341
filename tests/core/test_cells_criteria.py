"""From cells to a score: percentages, the criteria, and what makes the answer uncertain.

Whatever is counted is counted again here, cell by cell in plain Python.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cells_by_hand import cells_by_hand
from napari_her2.cells.clusters import largest_clusters, neighbours
from napari_her2.cells.criteria import Shares, finding, near_findings
from napari_her2.cells.reading import CellReading
from napari_her2.cells.rules import CLASSES, Rules
from napari_her2.cells.summary import NO_REGION, summarised
from napari_her2.cells.table import SECTORS

BREAST, STOMACH, BIOPSY = Rules(), Rules(gastric=True), Rules(gastric=True, biopsy=True)


def reading_of(n=400, seed=0, *, regions=("Tumour",), region=None, left_out=None, shares=None, **given):
    cells, _ = cells_by_hand(n, seed, **({"shares": shares} if shares else {}))
    region = np.zeros(n, np.int16) if region is None else np.asarray(region, np.int16)
    return CellReading(cells, region, regions, np.zeros(n, bool) if left_out is None else left_out, **given)


@pytest.mark.parametrize(
    ("shares", "score"),
    [
        (Shares(60, 40, 10.01), "3+"),
        (Shares(60, 40, 10), "2+"),
        (Shares(60, 10.01, 0), "2+"),
        (Shares(60, 10, 0), "1+"),
        (Shares(60, 6, 0, 5), "2+"),  # moderate to intense but incomplete
        (Shares(60, 6, 0, 4), "1+"),
        (Shares(60, 6, 4), "2+"),  # intense and complete in 10 % or fewer
        (Shares(60, 6, 0.9), "1+"),  # a few cells misread
        (Shares(10.01, 0, 0), "1+"),
        (Shares(10, 0, 0), "0"),
        (Shares(0, 0, 0), "0"),
    ],
)
def test_criteria_of_the_breast(shares, score):
    assert finding(shares, BREAST).score == score


@pytest.mark.parametrize(
    ("shares", "score", "in_a_biopsy"),
    [
        (Shares(60, 40, 10, clusters=(9, 4, 4)), "3+", "1+"),
        (Shares(60, 10, 1, clusters=(9, 9, 5)), "2+", "3+"),
        (Shares(9.9, 9.9, 9.9, clusters=(9, 5, 4)), "0", "2+"),
        (Shares(60, 1, 0, 50, clusters=(4, 0, 0)), "1+", "0"),
    ],
)
def test_criteria_of_the_stomach(shares, score, in_a_biopsy):
    assert finding(shares, STOMACH).score == score
    assert finding(shares, BIOPSY).score == in_a_biopsy


def test_percentages_are_what_a_loop_counts():
    rng = np.random.default_rng(3)
    region, left_out = rng.integers(-1, 3, 600), rng.random(600) < 0.2
    reading = reading_of(600, regions=("a", "b", "c"), region=region, left_out=left_out, calibration="lab")
    rules, summary = reading.rules, summarised(reading)
    for one, chosen in ((summary, {0, 1, 2}), *((each, {k}) for k, each in enumerate(summary.regions))):
        inside = [k for k in range(600) if int(region[k]) in chosen]
        counted = [k for k in inside if not left_out[k]]
        found = [_class_by_hand(reading, k) for k in counted]
        percent = [100 * sum(name == each[0] for each in found) / len(found) for name in CLASSES]
        assert one.cells == len(counted)
        assert one.left_out == len(inside) - len(counted)
        assert one.left_out_percent == pytest.approx(100 * one.left_out / len(inside))
        assert [one.percentages[name] for name in CLASSES] == pytest.approx(percent)
        assert [one.at_least[name] for name in CLASSES] == pytest.approx([sum(percent[k:]) for k in range(4)])
        assert one.membrane_staining == pytest.approx(percent[1] + percent[2] + percent[3])
        assert one.no_staining == pytest.approx(percent[0])
        assert one.h_score == pytest.approx(percent[1] + 2 * percent[2] + 3 * percent[3])
        incomplete = [each for each in found if each[0] in "01+" and each[2] >= rules.mass[1]]
        incomplete = [each for each in incomplete if each[1] >= rules.completeness[0]]
        assert one.incomplete == pytest.approx(100 * len(incomplete) / len(found))
        product = sorted(each[1] * each[2] for each in found)
        at = 0.9 * (len(product) - 1)
        low, part = int(at), at - int(at)
        assert one.ck90 == pytest.approx(product[low] + part * (product[low + 1] - product[low]), rel=1e-4)
        everyone = [_class_by_hand(reading, k)[0] for k in inside]
        assert one.score_with_left_out == _score_by_hand(everyone)
        assert one.score == _score_by_hand([each[0] for each in found])
    assert [each.name for each in summary.regions] == ["a", "b", "c"]


def _class_by_hand(reading, k):
    stained = [
        float(reading.cells.contrast[k, s]) >= 0.1 and float(reading.cells.dab[k, s]) >= 0.1
        for s in range(SECTORS)
    ]
    complete = sum(stained) / SECTORS
    mass = sum(float(each) for each in reading.cells.mass[k]) / SECTORS / reading.rules.gain
    found = "0"
    for name, share, least in zip(CLASSES[1:], reading.rules.completeness, reading.rules.mass, strict=True):
        if complete >= share and mass >= least:
            found = name
    return found, complete, mass


def _score_by_hand(classes):
    """Without cells that are moderate but incomplete: `cells_by_hand` makes none."""
    share = {name: 100 * classes.count(name) / len(classes) for name in CLASSES}
    if share["3+"] > 10:
        return "3+"
    if share["2+"] + share["3+"] > 10 or share["3+"] >= 1:
        return "2+"
    return "1+" if share["1+"] + share["2+"] + share["3+"] > 10 else "0"


def test_moderate_but_incomplete_membranes_are_equivocal():
    reading = reading_of(400, shares=(0.8, 0.2, 0, 0), calibration="lab")
    assert summarised(reading).score == "1+"
    thick = replace(
        reading.cells,
        mass=np.where((reading.classes == 1)[:, None], 2.2, 1).astype(np.float16) * reading.cells.mass,
    )
    summary = summarised(replace(reading, cells=thick))
    assert summary.incomplete == pytest.approx(20, abs=3)
    assert (summary.percentages["2+"], summary.score) == (0, "2+")
    assert "incompletely" in summary.why


def test_without_a_region_there_are_percentages_and_no_score():
    summary = summarised(reading_of(400, regions=()))
    assert (summary.score, summary.alternatives, summary.borderline, summary.why) == ("", (), "", "")
    assert summary.reasons == (NO_REGION,)
    assert sum(summary.percentages.values()) == pytest.approx(100)
    assert summary.regions == ()


def test_few_cells_give_no_score():
    region = np.repeat([0, 1], [301, 99])
    summary = summarised(reading_of(400, regions=("large", "small"), region=region))
    assert summary.score
    assert summary.regions[0].score
    assert summary.regions[1].score == ""
    assert "99" in summary.regions[1].reasons[0]
    assert "100" in summary.regions[1].reasons[0]


def test_no_cell_at_all_is_no_number():
    summary = summarised(reading_of(0))
    assert summary.cells == 0
    assert math.isnan(summary.h_score)
    assert math.isnan(summary.ck90)
    assert set(summary.percentages.values()) == {0.0}
    assert summary.score == ""


def test_what_speaks_against_a_score_is_kept_and_said_once():
    reasons = ("The focus is too poor: scan the slide again.",)
    summary = summarised(reading_of(400, reasons=reasons))
    assert (summary.score, summary.reasons) == ("", reasons)
    few = summarised(reading_of(20)).reasons
    assert summarised(reading_of(20, reasons=few)).reasons == few


def test_a_share_near_ten_per_cent_is_borderline():
    reading = reading_of(1000, shares=(0.5, 0.3, 0.08, 0.12), calibration="lab")
    summary = summarised(reading)
    assert (summary.score, summary.alternatives) == ("3+", ("2+",))
    assert "12.0 %" in summary.borderline
    clear = summarised(reading_of(1000, shares=(0.1, 0.1, 0.1, 0.7), calibration="lab"))
    assert (clear.score, clear.alternatives, clear.borderline) == ("3+", (), "")


@pytest.mark.parametrize(
    ("shares", "others"),
    [
        (Shares(90, 60, 40), set()),
        (Shares(90, 60, 14.9), {"2+"}),
        (Shares(90, 60, 5.1), {"3+"}),
        (Shares(90, 60, 4.9), set()),
        (Shares(90, 14, 0), {"1+"}),
        (Shares(90, 8, 0, 4), {"1+"}),
        (Shares(90, 6, 0), {"2+"}),
        (Shares(14, 2, 0), {"0"}),
        (Shares(6, 2, 0), {"1+"}),
        (Shares(40, 4, 3), {"1+"}),  # rests on a few intense cells alone
        (Shares(4, 2, 0), set()),
        (Shares(10, 0, 0), {"1+"}),
    ],
)
def test_which_scores_are_near(shares, others):
    score = finding(shares, BREAST).score
    assert {other for other, _ in near_findings(shares, BREAST)} - {score} == others


def test_an_uncertain_strength_of_stain_shows_both_scores():
    shares = (0.3, 0.3, 0.2, 0.2)
    uncalibrated = reading_of(1000, shares=shares, rules=Rules(gain=0.87))
    # What is intense lies just above its threshold: weaker by a fifth none of it is.
    mass = np.where((uncalibrated.classes == 3)[:, None], 0.72 * 0.87, uncalibrated.cells.mass)
    cells = replace(uncalibrated.cells, mass=mass.astype(np.float16))
    uncalibrated = replace(uncalibrated, cells=cells)
    summary = summarised(uncalibrated)
    assert (summary.score, summary.alternatives) == ("3+", ("2+",))
    assert "Without a calibration" in summary.borderline
    assert "25 %" in summary.borderline
    calibrated = summarised(replace(uncalibrated, calibration="lab"))
    assert "10 %" in calibrated.borderline
    strong = replace(cells, mass=(cells.mass * np.float16(1.2)).astype(np.float16))
    assert summarised(replace(uncalibrated, cells=strong, calibration="lab")).alternatives == ()


def test_a_soft_image_shows_the_score_it_may_have_in_focus():
    soft = reading_of(1000, shares=(0.5, 0.5, 0, 0), calibration="lab", blur_um=0.75)
    summary = summarised(soft)
    assert summary.score == "1+"
    assert "0.75 µm" in summary.borderline
    sharp = summarised(replace(soft, blur_um=0.4))
    assert "blurred" not in sharp.borderline
    assert summarised(replace(soft, blur_um=float("nan"))) == summarised(replace(soft, blur_um=0.3))


def test_lymphocytes_that_would_change_the_score_make_it_borderline():
    left_out = np.zeros(1000, bool)
    reading = reading_of(1000, shares=(0.82, 0, 0, 0.18), calibration="lab")
    left_out[np.flatnonzero(reading.classes == 0)[:700]] = True
    summary = summarised(replace(reading, left_out=left_out))
    assert (summary.score, summary.score_with_left_out, summary.left_out) == ("3+", "3+", 700)
    assert summary.borderline == ""
    # 9 % of all, but 18 % of those that are no lymphocytes.
    reading = reading_of(1000, shares=(0.91, 0, 0, 0.09), calibration="lab")
    left_out = np.zeros(1000, bool)
    left_out[np.flatnonzero(reading.classes == 0)[:500]] = True
    summary = summarised(replace(reading, left_out=left_out))
    assert (summary.score, summary.score_with_left_out, summary.alternatives) == ("3+", "2+", ("2+",))
    assert "500" in summary.borderline
    # As many again among the counted would make 8 % more than 10 %.
    left_out[:] = False
    left_out[np.flatnonzero(reading.classes == 0)[:250]] = True
    assert summarised(replace(reading, left_out=left_out)).alternatives == ("2+",)


shares_of_cells = st.lists(st.floats(0, 100), min_size=4, max_size=4).map(sorted)
clusters = st.lists(st.integers(0, 12), min_size=3, max_size=3).map(lambda found: tuple(sorted(found)[::-1]))


@settings(max_examples=150, deadline=None)
@given(shares_of_cells, shares_of_cells, clusters, clusters, st.sampled_from([BREAST, STOMACH, BIOPSY]))
def test_more_or_stronger_membranes_never_lower_a_score(one, two, some, more, rules):
    low = Shares(*_in_order(one), clusters=some)
    rest = [max(pair) for pair in zip(one, two, strict=True)]
    both = tuple(max(pair) for pair in zip(some, more, strict=True))
    high = Shares(*_in_order(rest), clusters=both)
    assert CLASSES.index(finding(high, rules).score) >= CLASSES.index(finding(low, rules).score)


def _in_order(found):
    """Stained, moderate, intense and incomplete of shares in order: intense, moderate, thick, stained."""
    intense, moderate, thick, stained = found
    return stained, moderate, intense, thick - moderate


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from([BREAST, STOMACH, BIOPSY]), st.floats(1, 2), st.integers(0, 31)
)
def test_a_stronger_or_longer_membrane_never_lowers_the_score_of_cells(seed, rules, times, sector):
    reading = reading_of(150, seed, shares=(0.7, 0.2, 0.06, 0.04), rules=rules)
    rng = np.random.default_rng(seed)
    some = rng.random(150) < 0.5
    cells = reading.cells
    mass, contrast, dab = cells.mass.copy(), cells.contrast.copy(), cells.dab.copy()
    mass[some] *= np.float16(times)
    contrast[some, sector] = np.maximum(contrast[some, sector], 0.2)
    dab[some, sector] = np.maximum(dab[some, sector], 0.2)
    other = replace(reading, cells=replace(cells, mass=mass, contrast=contrast, dab=dab))
    assert (other.classes >= reading.classes).all()
    before, after = summarised(reading).score, summarised(other).score
    assert CLASSES.index(after) >= CLASSES.index(before)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([BREAST, STOMACH, BIOPSY]))
def test_the_order_of_the_cells_does_not_matter(seed, rules):
    rng = np.random.default_rng(seed)
    region, left_out = rng.integers(-1, 2, 300), rng.random(300) < 0.1
    reading = reading_of(300, seed, regions=("a", "b"), region=region, left_out=left_out, rules=rules)
    order = rng.permutation(300)
    other = replace(
        reading, cells=reading.cells.pick(order), region=reading.region[order], left_out=left_out[order]
    )
    one, two = summarised(reading), summarised(other)
    assert (one.score, one.alternatives, one.borderline) == (two.score, two.alternatives, two.borderline)
    assert dict(one.percentages) == dict(two.percentages)
    assert one.ck90 == pytest.approx(two.ck90)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_clusters_are_those_that_a_search_finds(seed, n):
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0, 120, (n, 2)).astype(np.float32)
    chosen, group = rng.random(n) < 0.6, rng.integers(0, 3, n)
    found = largest_clusters(chosen, group, neighbours(centre), 3)
    for of in range(3):
        open_ = {k for k in range(n) if chosen[k] and group[k] == of}
        largest = 0
        while open_:
            grown, edge = 1, [open_.pop()]
            while edge:
                here = edge.pop()
                near = {k for k in open_ if math.dist(centre[here], centre[k]) <= 15}
                open_ -= near
                edge += near
                grown += len(near)
            largest = max(largest, grown)
        assert found[of] == largest


def test_a_biopsy_of_the_stomach_is_scored_by_its_clusters():
    reading = reading_of(400, shares=(1, 0, 0, 0), rules=BIOPSY, calibration="lab")
    mass, contrast = reading.cells.mass.copy(), reading.cells.contrast.copy()
    at = np.argsort(np.hypot(*(reading.cells.centre_um - reading.cells.centre_um[210]).T))[:5]
    # Lateral membranes: two fifths of each are intense, the rest is bare.
    mass[at], contrast[at] = 0.02, 0.0
    mass[at, :13], contrast[at, :13] = 1.5, 0.8
    cells = replace(reading.cells, mass=mass, contrast=contrast, dab=contrast)
    reading = replace(reading, cells=cells)
    summary = summarised(reading)
    assert summary.score == "3+"
    assert "cluster of 5" in summary.why
    assert summary.alternatives  # one cell fewer, and it is none
    assert summarised(replace(reading, rules=STOMACH)).score == "0"  # 5 of 400
    assert summarised(replace(reading, rules=BREAST)).percentages["3+"] == 0  # incomplete
    fewer = cells.pick(np.delete(np.arange(400), at[0]))
    other = CellReading(
        fewer, np.zeros(399, np.int16), ("Tumour",), np.zeros(399, bool), BIOPSY, calibration="lab"
    )
    assert summarised(other).score == "0"


def test_no_summary_speaks_of_eligibility():
    for rules in (BREAST, STOMACH, BIOPSY):
        for seed, shares in enumerate([(0.98, 0.02, 0, 0), (0.93, 0.07, 0, 0), (0.3, 0.3, 0.3, 0.1)]):
            summary = summarised(reading_of(300, seed, shares=shares, rules=rules))
            words = " ".join([summary.why, summary.borderline, *summary.reasons, summary.score]).lower()
            assert not any(each in words for each in ("low", "eligib", "null", "treat"))
