"""The two slides of a case in the window, and models that take both of them, or one."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

from napari_her2._napari.work import Equipment
from napari_her2.models.card import PAIR
from scored import make_slide

if TYPE_CHECKING:
    from napari_her2.models.card import ModelCard


def models_of_pairs(card: ModelCard) -> Equipment:
    models = [
        SimpleNamespace(name=name, path=None, card=replace(card, name=name, stain=stain, method=method))
        for name, stain, method in (("both", PAIR, "wsmcl"), ("single", "H&E", "attention-mil"))
    ]
    return Equipment(tuple(models), (), "cpu (no CUDA or MPS device found)")


def open_case(add_slide: object) -> tuple[object, object]:
    return add_slide(make_slide(name="case_1_HE")), add_slide(make_slide((500, 400), name="case_1_HER2"))
