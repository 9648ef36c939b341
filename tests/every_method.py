"""A small model of every method, and what it scores of a phantom case: for tests of all of them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from doubtful_bundles import doubtful_bundle
from field_bundles import make_field_bundle
from low_resolution_bundles import make_low_resolution_bundle
from method_bundles import make_mil_bundle, make_patch_bundle
from napari_her2.models.attention_mil import AttentionMIL
from napari_her2.models.bundle import load_bundle, save_bundle
from napari_her2.models.ensemble import MILEnsemble
from napari_her2.models.weights_file import weights_digest
from napari_her2.models.wsmcl import WSMCL

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.phantom.pair import PhantomPair

PAIR = {
    "he_features": 1024,
    "ihc_features": 1024,
    "width": 16,
    "heads": 2,
    "landmarks": 8,
    "classes": 4,
    "k": 20,
}
NAMES = (
    *("attention-mil", "familiar", "withheld", "ensemble", "pair", "one-of-a-pair", "fields", "patches"),
    *("low-resolution", "low-resolution-images", "abmil", "clam-mb", "dsmil", "transmil"),
    *("cells", "all-cells", "regions"),
)
"""What is scored; more than one for methods that answer in more than one way."""


@dataclass(frozen=True)
class Asked:
    """A scoring: of which slides, with which model, and how."""

    slide: Path
    model: Path | str
    ihc: Path | None = None
    regions: Path | None = None
    options: Any = None

    def arguments(self) -> dict[str, Any]:
        """Return them as `score_slide` takes them."""
        return {
            "slide": self.slide,
            "model": self.model,
            "ihc": self.ihc,
            "regions": self.regions,
            **(self.options or {}),
        }


def asked_of(name: str, case: PhantomPair, tiny: Path, folder: Path) -> Asked:
    """Make the model of one of `NAMES` in a folder, and say what it scores of a case.

    Parameters
    ----------
    name : str
    case : PhantomPair
        Of 1,536 px at 0.5 µm/px.
    tiny : Path
        A model of the method attention-mil.
    folder : Path
    """
    he, ihc, path = case.he, case.ihc, folder / f"{name}.safetensors"
    match name:
        case "attention-mil":
            return Asked(he, tiny)
        case "regions":
            return Asked(he, tiny, regions=case.regions)
        case "familiar" | "withheld":
            return Asked(he, doubtful_bundle(tiny, path, strange=name == "withheld"))
        case "ensemble":
            return Asked(he, _ensemble(tiny, path))
        case "pair" | "one-of-a-pair":
            model = _pair(tiny, path)
            return Asked(he, model, ihc) if name == "pair" else Asked(ihc, model)
        case "fields":
            return Asked(he, make_field_bundle(path))
        case "patches":
            return Asked(ihc, make_patch_bundle(path))
        case "low-resolution":
            return Asked(ihc, make_low_resolution_bundle(path))
        case "low-resolution-images":
            model = make_low_resolution_bundle(path, mpp=6.0, arguments={"mode": "fixed"})
            return Asked(ihc, model)
        case "cells":
            return Asked(ihc, "ihc-rules", regions=case.regions)
        case "all-cells":
            return Asked(ihc, "ihc-rules")
    return Asked(he, make_mil_bundle(path, name))


def _pair(tiny: Path, path: Path) -> Path:
    shutil.copy(tiny, path.parent / tiny.name)  # whose encoder it takes
    single = load_bundle(tiny)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        head = WSMCL(**PAIR)
    digest = weights_digest(single.encoder.backbone.state_dict())
    card = replace(
        single.card,
        name="pair",
        method="wsmcl",
        architecture="WSMCL",
        arguments=PAIR,
        stain="H&E+IHC",
        task="HER2 score from the H&E and IHC slides of a case",
        encoder=replace(single.card.encoder, weights=f"sha256:{digest}"),
    )
    save_bundle(path, card, single.encoder, head)
    return path


def _ensemble(tiny: Path, path: Path) -> Path:
    single = load_bundle(tiny)
    arguments = dict(single.card.arguments)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        together = MILEnsemble([AttentionMIL(**arguments).eval() for _ in range(3)])
    card = replace(single.card, name="together", arguments={**arguments, "members": 3})
    save_bundle(path, card, single.encoder, together)
    return path
