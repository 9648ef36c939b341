"""The methods there are: the only list, which everybody else asks."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.errors import ModelError
from napari_her2.methods.attention_mil import AttentionMILMethod
from napari_her2.methods.corr_a_net import CorrANetMethod
from napari_her2.methods.ihc_rules import IHCRulesMethod
from napari_her2.methods.low_resolution import LowResolutionMethod
from napari_her2.methods.mil import ABMILMethod, CLAMMethod, DSMILMethod, TransMILMethod
from napari_her2.methods.patches import PatchMethod
from napari_her2.methods.wsmcl import WSMCLMethod
from napari_her2.models.registry import ModelEntry, list_models, load_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_her2.methods.method import Explanation, Method
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.card import ModelCard

_ALL: tuple[Method, ...] = (
    AttentionMILMethod(),
    WSMCLMethod(),
    CorrANetMethod(),
    LowResolutionMethod(),
    IHCRulesMethod(),
    PatchMethod(),
    ABMILMethod(),
    CLAMMethod(),
    TransMILMethod(),
    DSMILMethod(),
)
METHODS: Mapping[str, Method] = {method.name: method for method in _ALL}
"""Every method, by the name that cards and results have it under."""


def method_of(card: ModelCard) -> Method:
    """Return the method of a model.

    Parameters
    ----------
    card : ModelCard

    Raises
    ------
    ModelError
        If this version does not know it.
    """
    if card.method not in METHODS:
        raise ModelError(
            f"{card.name} is a model of the method {card.method!r:.80}, which this version does not know (it "
            f"knows {', '.join(METHODS)}): update napari-her2."
        )
    return METHODS[card.method]


def available_models() -> list[ModelEntry]:
    """Return what can score: methods that need no weights, by name, then the models of `list_models`."""
    own = [method.own_card() for method in METHODS.values() if not method.needs_weights]
    own.sort(key=lambda card: card.name)
    return [ModelEntry(card.name, Path(), card, "built in") for card in own] + list_models()


def model_named(model: Path | str, load: Callable[[Path | str], ModelBundle] = load_model) -> ModelBundle:
    """Return a model by its name or its file; a method that needs no weights goes by the name of its card.

    Parameters
    ----------
    model : Path or str
    load : callable
        What loads all others; by default `load_model`.

    Raises
    ------
    ModelError
        If there is no such model, or it cannot be loaded.
    """
    for method in METHODS.values():
        if not method.needs_weights and method.own_card().name == model:
            return _without_weights(method.own_card())
    return load(model)


def _without_weights(card: ModelCard) -> ModelBundle:
    """Bundle of a method that needs none: what it answers with is its card and this version."""
    from torch import nn

    from napari_her2.models.bundle import ModelBundle

    return ModelBundle(card, None, nn.Identity(), None, sha256(card.to_json().encode()).hexdigest())


def refuse_unexplained(card: ModelCard, explanation: Explanation) -> None:
    """Refuse to explain what a model cannot.

    Parameters
    ----------
    card : ModelCard
    explanation : str

    Raises
    ------
    ModelError
    """
    if not can_explain(card, explanation):
        able = [method.title for method in METHODS.values() if explanation in method.explanations]
        raise ModelError(
            f"{card.name} ({method_of(card).title}) offers no {explanation}: choose a model of the method "
            f"{' or '.join(able)}."
        )


def can_explain(card: ModelCard, explanation: Explanation) -> bool:
    """Whether a model's answers can be explained in a way."""
    return explanation in method_of(card).explains(card)
