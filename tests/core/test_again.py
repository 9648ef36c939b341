"""Answers for other regions from what a scoring kept: as a new scoring gives them, whatever the method."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
import shapely
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from field_bundles import make_field_bundle
from low_resolution_bundles import make_low_resolution_bundle
from method_bundles import make_mil_bundle, make_patch_bundle
from napari_her2 import open_slide, score_slide, score_steps
from napari_her2.errors import JobFailed
from napari_her2.inference.encode import EncoderRunner
from napari_her2.inference.kept_scoring import NotComputed, stored
from napari_her2.inference.regions import Region
from napari_her2.inference.sides import outer_side, side_of
from napari_her2.methods.rebuilding import rebuilt
from napari_her2.methods.scoring import again
from napari_her2.models.bundle import load_bundle, save_bundle
from napari_her2.models.registry import load_model
from napari_her2.models.weights_file import weights_digest
from napari_her2.models.wsmcl import WSMCL
from napari_her2.steps import finished
from scored import with_doubt

if TYPE_CHECKING:
    from napari_her2.inference.kept_scoring import KeptScoring
    from napari_her2.inference.result import SlideResult

pytestmark = pytest.mark.usefixtures("features_are_kept")

MODELS = (
    "rules",
    "low",
    "tiny",
    "abmil",
    "clam-mb",
    "dsmil",
    "transmil",
    "pair",
    "alone",
    "fields",
    "patches",
    "demo",
)
SIDE = 1536


@pytest.fixture(scope="module")
def slides(small_pair):
    with open_slide(small_pair.he) as he, open_slide(small_pair.ihc) as ihc:
        yield he, ihc


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("models")
    single = load_bundle(tiny_model)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        head = WSMCL(he_features=1024, ihc_features=1024, width=16, heads=2, landmarks=8, classes=4, k=20)
    digest = weights_digest(single.encoder.backbone.state_dict())
    card = replace(
        single.card,
        name="pair",
        method="wsmcl",
        architecture="WSMCL",
        arguments={
            "he_features": 1024,
            "ihc_features": 1024,
            "width": 16,
            "heads": 2,
            "landmarks": 8,
            "classes": 4,
            "k": 20,
        },
        stain="H&E+IHC",
        encoder=replace(single.card.encoder, weights=f"sha256:{digest}"),
    )
    (folder / tiny_model.name).write_bytes(tiny_model.read_bytes())
    save_bundle(folder / "pair.safetensors", card, single.encoder, head)
    made = {
        "tiny": single,
        "pair": load_bundle(folder / "pair.safetensors"),
        "fields": load_bundle(make_field_bundle(folder / "fields.safetensors", tile_px=128)),
        "patches": load_bundle(make_patch_bundle(folder / "patches.safetensors", stain="H&E", mpp=0.5)),
        "demo": load_model("demo-attention-mil"),
        "low": load_bundle(make_low_resolution_bundle(folder / "low.safetensors")),
    }
    for kind in ("abmil", "clam-mb", "dsmil", "transmil"):
        made[kind] = load_bundle(make_mil_bundle(folder / f"{kind}.safetensors", kind))
    return made | {"alone": made["pair"]}


@pytest.fixture(scope="module")
def scored_once():
    return {}


@pytest.fixture
def kept_of(slides, bundles, scored_once):
    """Scorings of all tissue, each once."""

    def of(name: str) -> tuple[SlideResult, KeptScoring]:
        if name not in scored_once:
            found: list[KeptScoring] = []
            result = finished(score_steps(*given_to(name), kept=found))
            scored_once[name] = result, found[0]
        return scored_once[name]

    def given_to(name: str):
        if name == "rules":
            return slides[1], "ihc-rules", None, None, "cpu"
        if name == "low":
            return slides[1], bundles[name], None, None, "cpu"
        return slides[0], bundles[name], slides[1] if name == "pair" else None, None, "cpu"

    of.given_to = given_to
    return of


def near(found, wanted) -> bool:
    return np.allclose(found, wanted, rtol=1e-4, atol=1e-6, equal_nan=True)


def assert_same(found: SlideResult, wanted: SlideResult) -> None:
    """Everything but times; numbers to the rounding of float32."""
    for name in ("label", "reason", "score", "abstained", "warnings", "regions", "rule", "task", "precision"):
        assert getattr(found, name) == getattr(wanted, name), name
    assert near(list(found.probabilities.values()), list(wanted.probabilities.values()))
    assert found.heads.keys() == wanted.heads.keys()
    for head, chances in wanted.heads.items():
        assert near(list(found.heads[head].values()), list(chances.values()))
    assert found.trust == pytest.approx(wanted.trust)
    assert (found.uncertainty is None) == (wanted.uncertainty is None)
    if wanted.uncertainty is not None:
        assert near(found.uncertainty.sd, wanted.uncertainty.sd)
    assert found.doubt.verdict == wanted.doubt.verdict
    assert near(found.doubt.familiarity, wanted.doubt.familiarity)
    assert found.doubt.answer == wanted.doubt.answer
    for kind in ("percentages", "cells", "cells_read", "blur_um", "h_score", "regions_cells", "left_out"):
        assert found.measures.get(kind) == wanted.measures.get(kind), kind
    for own, other in zip(found.slides, wanted.slides, strict=True):
        assert_same_slide(own, other)


def assert_same_slide(own, other) -> None:
    assert (own.cells is None) == (other.cells is None)
    if own.cells is not None:
        assert np.array_equal(own.cells.cells.centre_um, other.cells.cells.centre_um)
        assert np.array_equal(own.cells.region, other.cells.region)
    assert (own.slide_id, own.stain, own.looks_like) == (other.slide_id, other.stain, other.looks_like)
    assert own.tissue_mm2 == pytest.approx(other.tissue_mm2)
    assert np.array_equal(own.corrupt, other.corrupt)
    assert np.array_equal(own.table.index, other.table.index)
    for name in ("attention", "evidence", "probabilities", "confidence"):
        values, wanted = getattr(own.table, name), getattr(other.table, name)
        assert (values is None) == (wanted is None)
        assert values is None or near(values, wanted)
    assert [(of.kind, of.class_name, of.info) for of in own.maps] == [
        (of.kind, of.class_name, of.info) for of in other.maps
    ]
    for of, wanted in zip(own.maps, other.maps, strict=True):
        if of.info.scale == "percentile":  # the order of equal tiles hangs on their rounding
            assert np.array_equal(np.isnan(of.values), np.isnan(wanted.values))
        else:
            assert near(of.values, wanted.values), of.kind
    assert own.familiarity.verdict == other.familiarity.verdict
    assert near(own.familiarity.value, other.familiarity.value)
    assert own.familiarity.reason == other.familiarity.reason


DRAWN = [
    Region(shapely.box(300, 300, 1200, 1300), "main"),
    Region(shapely.box(500, 500, 700, 900), kind="necrosis"),
]


@pytest.mark.parametrize("name", MODELS)
def test_an_answer_again_is_that_of_a_new_scoring(name, kept_of) -> None:
    whole, kept = kept_of(name)
    slide, model, ihc, _, device = kept_of.given_to(name)
    new = score_slide(slide, model, ihc, DRAWN, device)
    assert name == "low" or len(new.table) < len(whole.table)
    assert_same(again(kept, DRAWN), new)
    assert_same(again(kept, None), whole)


@pytest.mark.parametrize("name", ["tiny", "transmil", "pair", "fields"])
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    corners=st.lists(
        st.tuples(st.integers(0, SIDE), st.integers(0, SIDE)), min_size=3, max_size=8, unique=True
    ),
    hole=st.tuples(st.integers(0, SIDE - 200), st.integers(0, SIDE - 200)),
)
def test_any_polygons_give_the_answer_of_a_new_scoring(name, corners, hole, kept_of) -> None:
    """Also those that cross themselves."""
    _, kept = kept_of(name)
    slide, model, ihc, _, device = kept_of.given_to(name)
    drawn = [
        Region(shapely.Polygon(corners)),
        Region(shapely.box(*hole, hole[0] + 200, hole[1] + 200), kind="fold"),
    ]
    new = left = None
    try:
        new = score_slide(slide, model, ihc, drawn, device)
    except JobFailed as problem:
        left = str(problem)
    if new is None:
        with pytest.raises(JobFailed) as refused:
            again(kept, drawn)
        assert str(refused.value) == left
        return
    assume(len(new.table) > 1 or name == "rules")
    assert_same(again(kept, drawn), new)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_of_a_pair_the_slide_without_regions_is_not_looked_at_again(
    precision, slides, bundles, monkeypatch
) -> None:
    monkeypatch.setenv("NAPARI_HER2_PRECISION", precision)
    found: list[KeptScoring] = []
    he, ihc = slides
    whole = finished(score_steps(he, bundles["pair"], ihc, None, "cpu", kept=found, cache=False))
    assert whole.precision == precision
    assert not found[0].read[1].numbers
    looked_at = []
    original = WSMCL.branches
    monkeypatch.setattr(
        WSMCL,
        "branches",
        lambda head, stain, tiles: looked_at.append((stain, len(tiles[0]))) or original(head, stain, tiles),
    )
    own, same = again(found[0], DRAWN), again(found[0], None)
    assert looked_at == [("H&E", len(own.table))]
    assert_same(own, score_slide(he, bundles["pair"], ihc, DRAWN, "cpu", cache=False))
    assert_same(same, whole)


@pytest.mark.parametrize("name", ["tiny", "pair", "fields", "demo", "rules", "low"])
def test_what_a_scoring_kept_is_made_again_from_the_disk(name, slides, kept_of, monkeypatch) -> None:
    whole, kept = kept_of(name)
    given = slides if name == "pair" else [kept_of.given_to(name)[0]]
    with monkeypatch.context() as nothing_new:
        nothing_new.setattr(EncoderRunner, "run", None)
        nothing_new.setattr("napari_her2.inference.cell_reading.measure_piece", None)
        made = finished(rebuilt(whole, given))
    assert made.asked == whole.asked
    assert_same(again(made, DRAWN), again(kept, DRAWN))
    assert_same(again(made, None), whole)


def test_of_a_region_that_alone_was_scored_what_it_kept_is_made_again(slides, bundles, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_HER2_CACHE", str(tmp_path))
    part = score_slide(slides[0], bundles["tiny"], None, DRAWN, "cpu")
    made = finished(rebuilt(part, slides[:1]))
    assert_same(again(made, DRAWN), part)
    with pytest.raises(NotComputed, match=r"were not computed yet: press Score"):
        again(made, None)


@pytest.mark.parametrize("name", ["tiny", "rules"])
def test_without_the_cache_only_a_new_scoring_can_answer(name, kept_of, tmp_path, monkeypatch) -> None:
    whole, _ = kept_of(name)
    monkeypatch.setenv("NAPARI_HER2_CACHE", str(tmp_path))
    with pytest.raises(NotComputed, match=r"not kept on disk: press Score"):
        finished(rebuilt(whole, [kept_of.given_to(name)[0]]))


def test_what_has_changed_since_is_not_made_again(slides, kept_of) -> None:
    whole, _ = kept_of("tiny")
    with pytest.raises(NotComputed, match="of other slides"):
        finished(rebuilt(whole, slides[1:]))
    with pytest.raises(NotComputed, match="older version"):
        finished(rebuilt(replace(whole, asked=None), slides[:1]))
    other = replace(whole, asked=replace(whole.asked, model_sha256="0" * 64))
    with pytest.raises(NotComputed, match="not among the models any more"):
        finished(rebuilt(other, slides[:1]))
    first = replace(whole.asked.slides[0], mpp=(0.3, 0.3))
    other = replace(whole, asked=replace(whole.asked, slides=(first,)))
    with pytest.raises(NotComputed, match=r"µm/px of .* has changed"):
        finished(rebuilt(other, slides[:1]))


def test_regions_without_any_tile_are_refused_in_a_sentence(kept_of) -> None:
    _, kept = kept_of("tiny")
    with pytest.raises(JobFailed, match="No tile of tissue lies inside the regions"):
        again(kept, [shapely.box(-50, -50, -10, -10)])


def test_what_was_not_scored_is_not_answered(slides, bundles) -> None:
    found: list[KeptScoring] = []
    finished(score_steps(slides[0], bundles["tiny"], None, DRAWN, "cpu", kept=found))
    inner = [shapely.box(700, 500, 1100, 1200)]
    assert_same(again(found[0], inner), score_slide(slides[0], bundles["tiny"], None, inner, "cpu"))
    with pytest.raises(NotComputed, match=r"tiles in the regions were not computed yet: press Score"):
        again(found[0], [shapely.box(0, 0, SIDE, SIDE)])


def test_without_pixels_only_the_look_of_the_region_is_that_of_before(kept_of) -> None:
    """The squares that are compared are drawn for a region: where they are not read, the first ones speak."""
    whole, kept = kept_of("demo")
    quick, exact = again(kept, DRAWN, pixels=False), again(kept, DRAWN)
    for kind, same in (("features", exact), ("appearance", whole)):
        found, wanted = (of.slides[0].familiarity.spaces[kind] for of in (quick, same))
        assert near(found.whole, wanted.whole), kind
    assert quick.probabilities == exact.probabilities


def test_colours_of_an_image_are_not_looked_at_while_a_region_is_drawn(slides, monkeypatch) -> None:
    """They count as those of the slide until the pixels are wanted."""
    found: list[KeptScoring] = []
    given = {"device": "cpu", "override_fit": True}
    whole = finished(score_steps(slides[1], "demo-low-resolution", kept=found, **given))
    exact = again(found[0], DRAWN)
    with monkeypatch.context() as blind:
        blind.setattr("napari_her2.inference.familiarity.appearance_steps", None)
        quick = again(found[0], DRAWN, pixels=False)
    assert quick.probabilities == exact.probabilities
    spaces = [of.slides[0].familiarity.spaces for of in (quick, exact, whole)]
    assert "appearance" in spaces[1]
    assert near(spaces[0]["appearance"].whole, spaces[2]["appearance"].whole)
    if "features" in spaces[1]:
        assert near(spaces[0]["features"].whole, spaces[1]["features"].whole)


def test_a_closed_slide_is_not_kept_open(small_pair, bundles) -> None:
    found: list[KeptScoring] = []
    with open_slide(small_pair.he) as slide:
        finished(score_steps(slide, bundles["demo"], None, None, "cpu", kept=found))
        assert found[0].slides[0]() is slide
    assert found[0].slides[0]() is None
    assert not math.isnan(again(found[0], DRAWN).confidence)


def test_what_is_large_is_kept_on_disk() -> None:
    parts = (np.arange(12, dtype=np.float32).reshape(4, 3), np.ones((4, 1), np.float64))
    assert stored(parts)[0] is parts[0]
    for part, wanted in zip(stored(parts, most=10), parts, strict=True):
        assert isinstance(part, np.memmap)
        assert np.array_equal(part[[2, 0]], wanted[[2, 0]])


@pytest.mark.parametrize("name", ["tiny", "rules"])
def test_poor_tiles_stay_left_out(name, kept_of) -> None:
    found: list[KeptScoring] = []
    slide, model, *_ = kept_of.given_to(name)
    options = {"device": "cpu", "leave_out_poor": True}
    whole = finished(score_steps(slide, model, kept=found, **options))
    assert whole.slides[0].quality is not None
    new = score_slide(slide, model, regions=DRAWN, **options)
    own = again(found[0], DRAWN)
    assert_same(own, new)
    left, wanted = own.slides[0].quality, new.slides[0].quality
    assert np.array_equal(left.counted, wanted.counted)
    assert np.array_equal(left.reasons, wanted.reasons)
    assert left.shares == wanted.shares


@pytest.mark.parametrize("name", ["tiny", "rules", "pair"])
def test_outside_is_the_rest_of_the_tissue(name, kept_of) -> None:
    """By tiles counted here: what is excluded by its kind is on neither side."""
    whole, kept = kept_of(name)
    side = outer_side(partial(again, kept), DRAWN)
    inside = side_of(again(kept, DRAWN))
    if name != "rules":
        index, pitch = whole.table.index, whole.grid.tile_px0
        x, y = (index[:, 1] + 0.5) * pitch[1], (index[:, 0] + 0.5) * pitch[0]
        within = shapely.contains_xy(DRAWN[0].polygon, x, y)
        excluded = shapely.contains_xy(DRAWN[1].polygon, x, y)
        assert inside.counted == (within & ~excluded).sum()
        # A tile whose centre lies on an outline to the last digit is on neither side.
        on_either = shapely.intersects_xy(shapely.union_all([of.polygon for of in DRAWN]), x, y)
        assert side.counted == (~on_either).sum()
    assert side.unit == ("cells" if name == "rules" else "tiles")
    assert inside.tissue_mm2 + side.tissue_mm2 < whole.tissue_mm2
    assert outer_side(partial(again, kept), DRAWN[1:]).answer.startswith("no tumour region is drawn")
    everything = [Region(shapely.box(0, 0, SIDE, SIDE))]
    assert "No tile of tissue" in outer_side(partial(again, kept), everything).answer or name == "rules"


def test_a_side_that_is_withheld_says_nothing_of_its_answer(kept_of) -> None:
    whole, _ = kept_of("tiny")
    side = side_of(with_doubt(whole, "unlike"))
    assert side.answer.startswith("withheld")
    assert not any(name in side.answer for name in whole.classes)
