"""Models that answer together: their mean, its parts, and the file that holds them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from napari_her2.errors import ModelError
from napari_her2.models.abmil import ABMIL
from napari_her2.models.architectures import ARCHITECTURES
from napari_her2.models.attention_mil import AttentionMIL
from napari_her2.models.bundle import load_bundle, save_bundle
from napari_her2.models.clam import CLAM
from napari_her2.models.ensemble import MILEnsemble, WSMCLEnsemble
from napari_her2.models.registry import load_model
from napari_her2.models.wsmcl import WSMCL

if TYPE_CHECKING:
    from pathlib import Path


def members(count: int = 3) -> list[AttentionMIL]:
    torch.manual_seed(0)
    return [AttentionMIL(features=12, hidden=8, classes=4).eval() for _ in range(count)]


def test_logits_are_the_mean_of_each_members_calibrated_ones() -> None:
    own = members()
    together = MILEnsemble(own).eval()
    together.temperatures.copy_(torch.tensor([[1.0], [2.0], [4.0]]))
    bag = torch.randn(30, 12)
    expected = (own[0](bag).logits + own[1](bag).logits / 2 + own[2](bag).logits / 4) / 3
    output = together(bag)
    torch.testing.assert_close(output.logits, expected)
    torch.testing.assert_close(output.attention.sum(), torch.tensor(1.0))
    torch.testing.assert_close(torch.softmax(output.scores, dim=-1), output.attention)


def test_evidence_stays_additive() -> None:
    own = members()
    together = MILEnsemble(own).eval()
    together.temperatures.copy_(torch.tensor([[0.5], [1.0], [3.0]]))
    output = together(torch.randn(30, 12))
    heat = together.temperatures[:, 0]
    bias = torch.stack([member.classifier.bias / t for member, t in zip(own, heat, strict=True)]).mean(dim=0)
    assert output.evidence is not None
    torch.testing.assert_close(output.evidence.mean(dim=0) + bias, output.logits)


def test_tiles_beside_a_bag_are_weighed_by_each_member() -> None:
    together = MILEnsemble(members()).eval()
    together.temperatures.copy_(torch.tensor([[0.5], [1.0], [3.0]]))
    bag = torch.randn(30, 12)
    tiles, whole = together.tiles(bag), together(bag)
    beside = together.beside(tiles, [part[4:7] for part in tiles])
    torch.testing.assert_close(beside.logits, whole.logits)
    torch.testing.assert_close(beside.attention, whole.attention[4:7])
    torch.testing.assert_close(beside.evidence, whole.evidence[4:7])
    assert not beside.apart


def test_padding_changes_nothing() -> None:
    together = MILEnsemble([ABMIL(features=12, widths=(8,), hidden=4, classes=3).eval() for _ in range(2)])
    bag = torch.randn(9, 12)
    padded = torch.cat([bag, torch.randn(4, 12)])[None]
    mask = torch.arange(13)[None] < 9
    torch.testing.assert_close(together(padded, mask).logits[0], together(bag).logits)


def test_a_member_without_evidence_leaves_none() -> None:
    together = MILEnsemble([CLAM(features=12, width=8, hidden=4, classes=3, multi_branch=False).eval()] * 2)
    alone = together.members[0](torch.randn(9, 12))
    assert (together(torch.randn(9, 12)).evidence is None) == (alone.evidence is None)


def test_the_heads_of_both_slides_are_averaged_one_by_one() -> None:
    torch.manual_seed(0)
    own = [
        WSMCL(he_features=6, ihc_features=6, width=8, heads=2, landmarks=8, classes=4, k=3).eval()
        for _ in range(2)
    ]
    together = WSMCLEnsemble(own).eval()
    together.temperatures.copy_(torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]]))
    he, ihc = torch.randn(14, 6), torch.randn(11, 6)
    output, each = together(he, ihc), [member(he, ihc) for member in own]
    torch.testing.assert_close(output.fused, (each[0].fused + each[1].fused / 2) / 2)
    torch.testing.assert_close(output.he.logits, (each[0].he.logits / 2 + each[1].he.logits) / 2)
    torch.testing.assert_close(output.ihc.logits, (each[0].ihc.logits / 3 + each[1].ihc.logits * 2) / 2)
    assert len(output.he.top) == len(each[0].he.top)
    alone = together(None, ihc)
    assert (alone.head, alone.he) == ("IHC", None)
    torch.testing.assert_close(alone.logits, output.ihc.logits)


def test_a_file_holds_all_members_and_how_many_is_checked(tmp_path: Path) -> None:
    one = load_model("demo-attention-mil")
    arguments = dict(one.card.arguments)
    torch.manual_seed(0)
    together = MILEnsemble([AttentionMIL(**arguments).eval() for _ in range(3)])
    together.temperatures.copy_(torch.tensor([[0.7], [1.3], [2.0]]))
    card = replace(
        one.card,
        name="together",
        arguments={**arguments, "members": 3},
        familiarity=None,
        answer_sets=None,
    )
    path = tmp_path / "together.safetensors"
    save_bundle(path, card, one.encoder, together)
    loaded = load_bundle(path)
    bag = torch.randn(20, one.card.encoder.dim)
    torch.testing.assert_close(loaded.head(bag).logits, together(bag).logits)
    for wrong in (1, 65, "3"):
        with pytest.raises(ModelError):
            ARCHITECTURES[card.architecture].build(replace(card, arguments={**arguments, "members": wrong}))
    low = replace(
        card,
        architecture="LowResolution",
        encoder=None,
        arguments={
            "classes": 4,
            "size_px": 96,
            "variant": "atto",
            "mode": "fit",
            "whiten": False,
            "members": 2,
        },
    )
    with pytest.raises(ModelError, match="architecture takes"):
        ARCHITECTURES["LowResolution"].build(low)
