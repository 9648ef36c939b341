"""Where a model or an encoder comes from: small enough to travel to a worker, which loads it there."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_her2.errors import JobFailed, ModelError

if TYPE_CHECKING:
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.card import ModelCard
    from napari_her2.models.encoder_contracts import EncoderContract
    from napari_her2.models.patch_encoder import PatchEncoder


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model.

    Parameters
    ----------
    name : str or Path
        Its name or its file.
    path : Path or None
        Its file, as found by whoever asks: looked at first, so that a model that is installed for one user
        need not be installed on every machine.
    identity : str
        SHA-256 of the file; empty takes any.
    """

    name: str | Path
    path: Path | None = None
    identity: str = ""

    def load(self) -> ModelBundle:
        """Load the model.

        Raises
        ------
        ModelError
            If it cannot be loaded, or is another one.
        """
        from napari_her2.methods.catalogue import model_named

        bundle = model_named(self.path if self.path is not None and self.path.exists() else self.name)
        if self.identity and bundle.sha256 != self.identity:
            raise ModelError(
                f"The model {bundle.card.name} has the SHA-256 {bundle.sha256[:12]} there and "
                f"{self.identity[:12]} here: install the same file in both places."
            )
        return bundle

    def card(self) -> ModelCard:
        """Read its card alone, without its weights.

        Raises
        ------
        ModelError
            If there is no such model, or its card cannot be read.
        """
        from napari_her2.methods.catalogue import available_models
        from napari_her2.models.bundle_card import read_card
        from napari_her2.models.registry import model_file

        built_in = {entry.name: entry.card for entry in available_models() if entry.origin == "built in"}
        own = built_in.get(str(self.name))
        return read_card(model_file(self.name)) if own is None else own

    def pinned(self, bundle: ModelBundle) -> ModelSource:
        """Return the source of this very model, wherever it is loaded."""
        path = None if bundle.path is None else absolute(bundle.path)
        return replace(self, path=path, identity=bundle.sha256)


@dataclass(frozen=True, slots=True)
class ScaledEncoder:
    """An encoder and where it fits.

    Parameters
    ----------
    encoder : PatchEncoder
    fingerprint : str
        Of the encoder with its weights; worked out once, for it reads them all.
    mpp : float
        µm/px that it was made for; 0.5 where nothing is known.
    model : ModelSource or None
        The model that it is part of.
    """

    encoder: PatchEncoder
    fingerprint: str
    mpp: float
    model: ModelSource | None = None


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """A patch encoder.

    Parameters
    ----------
    name : str or Path
        An encoder that is known by name, a model (its encoder), "alexnet" or "timm:NAME".
    weights : Path or None
        Its weights, where it is no model; an encoder that is known by name has those that are installed.
    pretrained : bool
        Public weights instead, which may be downloaded.
    tile_px : int or None
        Side of the tiles; None takes that of the encoder.
    model : ModelSource or None
        The model, once found.
    trust_remote_code : bool
        Whether code of the publisher's may be run to build it.
    identity : str
        Fingerprint of the encoder with its weights; empty takes any.
    """

    name: str | Path
    weights: Path | None = None
    pretrained: bool = False
    tile_px: int | None = None
    model: ModelSource | None = None
    identity: str = ""
    trust_remote_code: bool = False

    @property
    def in_a_model(self) -> bool:
        """Whether the encoder is that of a model."""
        return self.contract is None and self.name != "alexnet" and not str(self.name).startswith("timm:")

    @property
    def contract(self) -> EncoderContract | None:
        """What is known of it, where it is known by name and no model is called so; None for any other."""
        from napari_her2.models.encoder_contracts import ENCODERS, alias_of

        name = str(self.name)
        known = "" if isinstance(self.name, Path) or name == "alexnet" or self.model else alias_of(name)
        if not known or (name not in ENCODERS and _is_model(name)):
            return None
        return ENCODERS[known]

    def load(self) -> ScaledEncoder:
        """Load the encoder.

        Raises
        ------
        JobFailed
            If it is not said which weights it has.
        ModelError
            If it cannot be loaded, or is another one.
        """
        found = self._from_model() if self.in_a_model else self._by_name()
        if self.identity and found.fingerprint != self.identity:
            raise ModelError(
                f"The encoder {found.encoder.spec.name} has other weights there than here: "
                f"give both the same file."
            )
        return found

    def pinned(self, found: ScaledEncoder) -> EncoderSource:
        """Return the source of this very encoder, wherever it is loaded."""
        weights = None if self.weights is None else absolute(self.weights)
        return replace(self, weights=weights, model=found.model, identity=found.fingerprint)

    def _from_model(self) -> ScaledEncoder:
        if self.weights or self.pretrained or self.tile_px:
            raise JobFailed("A model brings its own weights and tile size: leave those out.")
        source = self.model or ModelSource(self.name)
        bundle = source.load()
        encoder = bundle.patch_encoder
        return ScaledEncoder(encoder, encoder.fingerprint(), bundle.card.mpp, source.pinned(bundle))

    def _by_name(self) -> ScaledEncoder:
        from napari_her2.models.encoders import build_encoder

        contract = self.contract
        if self.weights is not None and self.pretrained:
            raise JobFailed(f"{self.name} needs weights: name their file or take the public ones, not both.")
        if contract is None and self.weights is None and not self.pretrained:
            raise JobFailed(f"{self.name} needs weights: name their file or take the public ones.")
        weights: Path | Literal["pretrained", "installed"] = "pretrained" if self.pretrained else "installed"
        if self.weights is not None:
            weights = self.weights
        encoder = build_encoder(
            str(self.name),
            weights=weights,
            tile_px=self.tile_px,
            trust_remote_code=self.trust_remote_code,
        )
        return ScaledEncoder(encoder, encoder.fingerprint(), 0.5 if contract is None else contract.mpp)


def _is_model(name: str) -> bool:
    """Whether a model is installed under a name."""
    from napari_her2.models.registry import list_models

    return any(entry.name == name for entry in list_models())


def absolute(path: Path | str) -> Path:
    """Return a path that means the same from another folder; links stay, so that mounts keep their names."""
    return Path(os.path.abspath(Path(path).expanduser()))
