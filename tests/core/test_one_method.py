"""A method is one thing: one list names them, everybody else asks it, and one more is one more line there."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

import napari_her2
from napari_her2 import score_slide
from napari_her2.cohort.run import score_cohort_steps
from napari_her2.commands.models import card_rows
from napari_her2.errors import ModelError
from napari_her2.export.tables import write_result
from napari_her2.inference.assemble import Answer, assemble, scored_slide
from napari_her2.inference.job import ScoringJob
from napari_her2.inference.options import ScoringOptions
from napari_her2.inference.scored_slide import TileTable
from napari_her2.inference.selection import limited, tissue_tiles
from napari_her2.methods import catalogue
from napari_her2.methods.catalogue import (
    METHODS,
    available_models,
    can_explain,
    method_of,
    refuse_unexplained,
)
from napari_her2.methods.method import Method
from napari_her2.models.architectures import ARCHITECTURES
from napari_her2.models.card import ModelCard
from napari_her2.steps import Progress, finished

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(napari_her2.__file__).parent
OWN_ROOMS = ("methods", "models")
HEADS = {*ARCHITECTURES, "MILEnsemble", "WSMCLEnsemble"}
HEAD_MODULES = {
    f"napari_her2.models.{name}"
    for name in (
        "attention_mil",
        "abmil",
        "clam",
        "dsmil",
        "transmil",
        "wsmcl",
        "field_model",
        "low_resolution",
        "patch_classifier",
        "ensemble",
    )
}


@pytest.fixture
def card(tiny_bundle) -> ModelCard:
    return tiny_bundle.card


def test_each_architecture_belongs_to_one_method() -> None:
    owners = {name: [m.name for m in METHODS.values() if name in m.architectures] for name in ARCHITECTURES}
    assert owners == {name: [architecture.method] for name, architecture in ARCHITECTURES.items()}
    for method in METHODS.values():
        assert METHODS[method.name] is method
        assert method.title
        assert method.paper
        for name in method.architectures:
            assert ARCHITECTURES[name].stains == method.stains


@pytest.mark.parametrize("path", sorted((SOURCE / "methods").glob("*.py")), ids=lambda path: path.stem)
def test_methods_are_known_without_torch(path: Path) -> None:
    if path.stem in ("scoring", "rebuilding", "tile_reading"):
        return  # imported where it is scored
    module = "napari_her2.methods" if path.stem == "__init__" else f"napari_her2.methods.{path.stem}"
    code = f"import sys, {module}; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("room", sorted({path.relative_to(SOURCE).parts[0] for path in SOURCE.rglob("*.py")}))
def test_no_other_room_names_a_method(room: str) -> None:
    """Neither by its name, nor by its head, nor by the stain of a pair."""
    if room in OWN_ROOMS:
        return
    files = [SOURCE / room] if room.endswith(".py") else sorted((SOURCE / room).rglob("*.py"))
    found = [f"{path.relative_to(SOURCE)}:{line}: {name}" for path in files for line, name in _named(path)]
    assert not found


def _named(path: Path) -> Iterator[tuple[int, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if (isinstance(node, ast.Constant) and node.value in METHODS) or (
            isinstance(node, ast.Constant) and node.value in HEADS
        ):
            yield node.lineno, node.value
        elif isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in HEADS or name == "PAIR":
                yield node.lineno, name
        elif isinstance(node, ast.ImportFrom):
            if node.module in HEAD_MODULES:
                yield node.lineno, node.module
            yield from (
                (node.lineno, item.name) for item in node.names if item.name in HEADS or item.name == "PAIR"
            )


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    lines = (
        'if card.method == "low-resolution": pass',
        "if card.stain == PAIR: pass",
        "if isinstance(head, models.FieldModel): pass",
        "from napari_her2.models.clam import attention",
        "from napari_her2.models.card import PAIR",
    )
    path = tmp_path / "room.py"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert {line for line, _ in _named(path)} == {1, 2, 3, 4, 5}


def test_a_model_without_representation_is_not_asked_for_one(card: ModelCard) -> None:
    fields = replace(card, method="corr-a-net", architecture="FieldModel", arguments={})
    pixels = replace(fields, arguments={"channels_from": "H&E"})
    assert can_explain(fields, "representation")
    assert not can_explain(pixels, "representation")
    assert can_explain(pixels, "region Grad-CAM")
    assert not can_explain(card, "region Grad-CAM")
    with pytest.raises(ModelError, match=r"tiny .* no region Grad-CAM: choose a model of .*Corr-A-Net"):
        refuse_unexplained(card, "region Grad-CAM")


def test_a_method_of_a_later_version_is_refused_in_words(card: ModelCard) -> None:
    with pytest.raises(ModelError, match="tiny is a model of the method 'tea-leaves'"):
        method_of(replace(card, method="tea-leaves"))


class BrownShare(Method):
    """A method to come: no weights, no file, a rule over the tissue."""

    name = "brown-share"
    title = "Share of tissue"
    paper = "by hand"
    takes = "cells"
    needs_weights = False

    def own_card(self) -> ModelCard:
        return ModelCard(
            name="by-rules",
            version="1",
            method=self.name,
            architecture="rules",
            arguments={},
            encoder=None,
            stain="H&E",
            tile_px=96,
            mpp=0.5,
            classes=("0", "3+"),
            task="How much tissue there is",
            training_data="none: a rule",
            licence="BSD-3-Clause",
            intended_use="tests",
            guideline="none",
        )

    def score(self, job):
        yield Progress("Counting", 1, 1, "slides")
        chosen = limited(tissue_tiles(job.slide, job.card, job.options, stain="H&E"), job.regions)
        index = torch.from_numpy(chosen.keep).nonzero().numpy()
        scored = scored_slide(
            job.slide,
            stain="H&E",
            looks_like=chosen.looks_like,
            table=TileTable(index, chosen.grid.origins_px0(index), None, None),
            maps=(),
            grid=chosen.grid,
            tissue=chosen.tissue,
            share=chosen.share,
            tissue_mm2=chosen.tissue_mm2,
            corrupt=index[:0],
        )
        share = float(chosen.share.mean())
        logits = torch.tensor([1 - share, share], dtype=torch.float64).log()
        return assemble(job, Answer(logits, (scored,), min_tiles=1, rule="share of tissue"))


@pytest.fixture
def one_more(monkeypatch: pytest.MonkeyPatch) -> Method:
    method = BrownShare()
    monkeypatch.setattr(catalogue, "METHODS", {**METHODS, method.name: method})
    monkeypatch.setattr("napari_her2.cohort.facts.METHODS", catalogue.METHODS)
    return method


def test_a_method_without_weights_is_chosen_and_scores_like_a_model(
    one_more: Method, he_slide: Path, tmp_path: Path
) -> None:
    assert available_models()[0].card == one_more.own_card()
    result = score_slide(he_slide, "by-rules", device="cpu")
    assert (result.method, result.model, result.rule) == ("brown-share", "by-rules", "share of tissue")
    assert 0 < result.probabilities["3+"] < 1
    told = json.loads((write_result(result, tmp_path) / "result.json").read_text(encoding="utf-8"))
    assert told["method"] == "brown-share"
    rows = dict(card_rows(one_more.own_card()))
    assert rows["method"] == "Share of tissue: brown-share (rules)"


def test_a_method_without_weights_scores_a_cohort(one_more: Method, he_slide: Path, tmp_path: Path) -> None:
    steps = score_cohort_steps([he_slide], "by-rules", tmp_path, device="cpu")
    (outcome,) = finished(steps).outcomes
    assert outcome.state == "done"
    assert dict(outcome.facts)["score of the slide"] == "share of tissue"


def test_a_job_knows_the_card_of_its_model(tiny_bundle) -> None:
    assert ScoringJob(None, None, tiny_bundle, None, None, ScoringOptions()).card is tiny_bundle.card


def test_the_guide_to_a_new_method_names_files_that_exist() -> None:
    root = SOURCE.parent.parent
    guide = (root / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:src|training|tests|docs)/[\w./-]+)`", guide))
    assert len(named) > 12
    assert [path for path in sorted(named) if not (root / path).exists()] == []
