"""The model bundle: card, encoder and head in one safetensors file.

The only contract between training and scoring. Nothing in a bundle is trusted: the card is checked field
by field, the architecture must be one of `ARCHITECTURES`, and every tensor must be expected, of the right
shape and finite before it is used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_her2.errors import EncoderMissing, ModelError
from napari_her2.models.architectures import ARCHITECTURES
from napari_her2.models.bundle_card import BUNDLED_FOLDER, CARD_KEY, FORMAT, SUFFIX, card_in, read_card
from napari_her2.models.bundle_doubt import DOUBT_PREFIXES, check_doubt_claims, doubt_in, doubt_tensors
from napari_her2.models.card import NAMED_WEIGHTS
from napari_her2.models.encoder_folder import find
from napari_her2.models.encoders import check_encoder_fits, encoder_from_spec
from napari_her2.models.named_weights import named_encoder, not_found
from napari_her2.models.weights_file import check_tensors, read_weights, weights_digest, write_weights
from napari_her2.models.weights_header import read_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import TypeVar

    from torch import Tensor

    from napari_her2.models.answer_sets import AnswerSets
    from napari_her2.models.card import ModelCard
    from napari_her2.models.card_doubt import AnswerSetsCard, FamiliarityCard
    from napari_her2.models.familiarity import Familiarity
    from napari_her2.models.patch_encoder import PatchEncoder
    from napari_her2.models.weights_header import TensorClaim

    _Of = TypeVar("_Of")

ENCODER_PREFIX = "encoder."
HEAD_PREFIX = "head."
_ELSEWHERE = (NAMED_WEIGHTS, "sha256:")
"""How cards begin to name weights that are no part of their bundle."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ModelBundle:
    """A model ready to score.

    Parameters
    ----------
    card : ModelCard
    encoder : PatchEncoder or None
        Frozen, in evaluation mode, float32, on the CPU. None where the head takes pixels.
    head : nn.Module
        One of `napari_her2.models.architectures.ARCHITECTURES`, likewise.
    path : Path or None
    sha256 : str
        Of the file, hexadecimal.
    familiarity : Familiarity or None
        What the model has seen; None where nobody kept it, as in older bundles.
    answer_sets : AnswerSets or None
        What it can promise; likewise.
    """

    card: ModelCard
    encoder: PatchEncoder | None
    head: nn.Module
    path: Path | None
    sha256: str
    familiarity: Familiarity | None = None
    answer_sets: AnswerSets | None = None

    @property
    def patch_encoder(self) -> PatchEncoder:
        """The encoder, where there has to be one.

        Raises
        ------
        ModelError
            If the head takes pixels.
        """
        if self.encoder is None:
            raise ModelError(
                f"{self.card.name} ({self.card.method}) has no encoder of tiles: choose a model that has."
            )
        return self.encoder


def load_bundle(
    path: Path,
    *,
    expected_sha256: str | None = None,
    encoder_weights: Path | None = None,
    encoder_needed: bool = True,
) -> ModelBundle:
    """Load a bundle, checking everything.

    Parameters
    ----------
    path : Path
    expected_sha256 : str, optional
        Recorded when the model was installed; another hash is refused.
    encoder_weights : Path, optional
        Where the card names separate encoder weights: their safetensors file. By default
        ``<name of the bundle>.encoder.safetensors`` beside it, or another bundle, beside it or of the
        package, that holds them, or the folder of encoders (`napari_her2.models.encoder_folder`).
    encoder_needed : bool, default True
        False: where the weights of the encoder are no part of the bundle and not at hand, it has none.

    Returns
    -------
    ModelBundle

    Raises
    ------
    ModelError
        If the file is not a bundle, is damaged, was changed, or does not fit this version.
    """
    # By the header first: what a card claims must fit the file before anything is read or built.
    header = read_header(path)
    card = card_in(header.metadata, path)
    _check_claims(card, header.tensors, path)
    file = read_weights(path)
    if file.metadata != header.metadata:
        raise _changed(path)
    if expected_sha256 is not None and file.sha256 != expected_sha256:
        raise ModelError(
            f"{path.name} is not the file that was installed: its SHA-256 is {file.sha256[:16]}..., "
            f"recorded was {expected_sha256[:16]}.... Get the model again and add it anew."
        )
    encoder_tensors = _below(file.tensors, ENCODER_PREFIX)
    head_tensors = _below(file.tensors, HEAD_PREFIX)
    head = _load_head(card, head_tensors, path)
    try:
        encoder = _load_encoder(card, encoder_tensors, path, encoder_weights)
    except EncoderMissing:
        if encoder_needed:
            raise
        encoder = None
    familiarity, answer_sets = doubt_in(card, file.tensors, path.name)
    return ModelBundle(card, encoder, head, path, file.sha256, familiarity, answer_sets)


def save_bundle(
    path: Path,
    card: ModelCard,
    encoder: PatchEncoder | None,
    head: nn.Module,
    *,
    encoder_dtype: torch.dtype = torch.float16,
    familiarity: Familiarity | None = None,
    answer_sets: AnswerSets | None = None,
) -> None:
    """Write a bundle: whole or not at all, and the same bytes for the same model.

    Parameters
    ----------
    path : Path
        Ends in ".safetensors".
    card : ModelCard
        Its ``encoder`` must be that of ``encoder`` (``encoder.spec``); where the weights are separate
        ("sha256:...") they are left out of the file, otherwise they are bundled.
    encoder : PatchEncoder or None
        May be missing where the card names separate weights.
    head : nn.Module
        Stored in float32 where it stands behind an encoder; without one it is the encoder, and stored as
        such.
    encoder_dtype : torch.dtype, default torch.float16
        Halves the file. Features then change a little: measure a model after loading its bundle.
    familiarity : Familiarity, optional
        Where the card has that part, and only there.
    answer_sets : AnswerSets, optional
        Likewise.

    Raises
    ------
    ModelError
        If card and weights do not fit each other, or the file cannot be written.
    """
    _check_suffix(path)
    card, bundled = _encoder_to_store(card, encoder)
    head_dtype = encoder_dtype if card.encoder is None else torch.float32
    tensors = {HEAD_PREFIX + key: _stored(value, head_dtype) for key, value in head.state_dict().items()}
    tensors |= {ENCODER_PREFIX + key: _stored(value, encoder_dtype) for key, value in bundled.items()}
    _load_head(card, _below(tensors, HEAD_PREFIX), path)  # what cannot be loaded is not saved
    tensors |= doubt_tensors(card, familiarity, answer_sets)
    write_weights(path, tensors, {CARD_KEY: card.to_json(), "format": FORMAT})


def with_doubt(
    bundle_path: Path,
    out_path: Path,
    familiarity: Familiarity | None,
    familiarity_card: FamiliarityCard | None,
    answer_sets: AnswerSets | None,
    answer_sets_card: AnswerSetsCard | None,
) -> None:
    """Write the same model with another doubt: whole or not at all, its weights byte for byte as they were.

    Parameters
    ----------
    bundle_path : Path
    out_path : Path
        Ends in ".safetensors"; may be the same.
    familiarity : Familiarity or None
    familiarity_card : FamiliarityCard or None
        None where ``familiarity`` is.
    answer_sets : AnswerSets or None
    answer_sets_card : AnswerSetsCard or None
        Likewise.

    Raises
    ------
    ModelError
        If there is no such model, the parts do not fit it, or the file cannot be written.
    """
    _check_suffix(out_path)
    bundle = load_bundle(bundle_path)
    file = read_weights(bundle_path)
    if file.sha256 != bundle.sha256:
        raise _changed(bundle_path)
    card = replace(bundle.card, familiarity=familiarity_card, answer_sets=answer_sets_card)
    tensors = {key: value for key, value in file.tensors.items() if not key.startswith(DOUBT_PREFIXES)}
    tensors |= doubt_tensors(card, familiarity, answer_sets)
    take_encoder_along(bundle, out_path)
    write_weights(out_path, tensors, {CARD_KEY: card.to_json(), "format": FORMAT})


def take_encoder_along(bundle: ModelBundle, path: Path, *, anew: bool = False) -> None:
    """Write the weights of an encoder beside the place that its model gets, where it would not find them.

    What lies in the folder of encoders is found from everywhere, and is not copied: its terms may forbid it.

    Parameters
    ----------
    bundle : ModelBundle
    path : Path
        Where the model is put.
    anew : bool
        Whether weights that lie there may be those of another model.

    Raises
    ------
    ModelError
        If the file cannot be written.
    """
    encoder, separate = bundle.encoder, _separate(path)
    if anew:
        separate.unlink(missing_ok=True)
    if encoder is None or encoder.spec.weights == "bundled" or separate.exists():
        return
    if find(encoder.spec.weights) is None and _shared_encoder(bundle.card, path) is None:
        write_weights(separate, encoder.backbone.state_dict(), {})


def _check_suffix(path: Path) -> None:
    if path.suffix != SUFFIX:
        raise ModelError(f"A model is saved as {SUFFIX}, not as {path.name!r}: rename it.")


def _changed(path: Path) -> ModelError:
    return ModelError(f"{path.name} changed while it was read: try again when nothing writes to it.")


def _separate(path: Path) -> Path:
    """File of the weights of an encoder that is not part of its model."""
    return path.with_name(f"{path.stem}.encoder{SUFFIX}")


def _encoder_to_store(
    card: ModelCard, encoder: PatchEncoder | None
) -> tuple[ModelCard, Mapping[str, Tensor]]:
    """Card as it goes into the file, and the weights of the encoder that go with it."""
    if card.encoder is None or encoder is None:
        # Weights that stay elsewhere need not be at hand: the card names them, and scoring asks for them.
        elsewhere = card.encoder is not None and card.encoder.weights.startswith(_ELSEWHERE)
        if (card.encoder is None) != (encoder is None) and not elsewhere:
            raise ModelError(
                "Card and model do not agree on whether there is an encoder: give both, or none."
            )
        return card, {}
    if replace(card.encoder, weights="bundled") != replace(encoder.spec, weights="bundled"):
        raise ModelError("The card describes another encoder: use the encoder's own spec in the card.")
    state = encoder.backbone.state_dict()
    if card.encoder.weights == NAMED_WEIGHTS:  # now they are known
        return replace(card, encoder=encoder.spec), {}
    if not card.encoder.weights.startswith("sha256:"):
        return replace(card, encoder=replace(card.encoder, weights="bundled")), state
    if card.encoder.weights != f"sha256:{weights_digest(state)}":
        raise ModelError("The card names other encoder weights than those given: use the encoder's own spec.")
    return card, {}


def _check_claims(card: ModelCard, claims: Mapping[str, TensorClaim], path: Path) -> None:
    """Refuse a card whose networks need other tensors than the header of the file lists."""
    known = (ENCODER_PREFIX, HEAD_PREFIX, *DOUBT_PREFIXES)
    strangers = [key for key in claims if not key.startswith(known)]
    if strangers:
        raise ModelError(f"{path.name} holds the tensor {strangers[0]!r:.80}, which has no place in a model.")
    check_tensors(_wanted(card), _below(claims, HEAD_PREFIX), path.name)
    bundled = _below(claims, ENCODER_PREFIX)
    if card.encoder is not None and card.encoder.weights == "bundled":
        check_encoder_fits(card.encoder, bundled, path.name)
    check_doubt_claims(card, claims, path.name)


def _wanted(card: ModelCard) -> Mapping[str, Tensor]:
    """Tensors of a head, without memory."""
    with torch.device("meta"):
        return ARCHITECTURES[card.architecture].build(card).state_dict()


def _below(tensors: Mapping[str, _Of], prefix: str) -> dict[str, _Of]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _load_head(card: ModelCard, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    check_tensors(_wanted(card), tensors, path.name)
    head = ARCHITECTURES[card.architecture].build(card)
    head.load_state_dict(tensors)
    return head.requires_grad_(False).eval()


def _load_encoder(
    card: ModelCard, bundled: Mapping[str, Tensor], path: Path, separate: Path | None
) -> PatchEncoder | None:
    if card.encoder is None:
        if bundled:
            raise ModelError(f"{path.name} holds an encoder that its card does not name: get it again.")
        return None
    if card.encoder.weights == "bundled":
        return encoder_from_spec(card.encoder, bundled, path.name)
    if bundled:
        raise ModelError(f"{path.name} holds encoder weights although its card names others: get it again.")
    if card.encoder.weights == "random":
        raise ModelError(
            f"{path.name} has an encoder that learnt nothing: train it, or save its weights too."
        )
    if card.encoder.weights == NAMED_WEIGHTS and separate is None:
        return named_encoder(card.encoder, path)
    source = separate or _separate(path)
    if not source.exists():
        found = None if separate is not None else find(card.encoder.weights)
        if found is None:
            shared = _shared_encoder(card, path)
            if shared is not None:
                return shared
            raise not_found(card.name, card.encoder, source)
        source = found
    check_encoder_fits(card.encoder, read_header(source).tensors, source.name)
    encoder = encoder_from_spec(card.encoder, read_weights(source).tensors, source.name)
    if card.encoder.weights != f"sha256:{weights_digest(encoder.backbone.state_dict())}":
        raise ModelError(
            f"{source.name} holds other weights of {card.encoder.name} than the model {card.name!r} was "
            f"trained with: get those that its card names."
        )
    return encoder


def _shared_encoder(card: ModelCard, path: Path) -> PatchEncoder | None:
    """Find the encoder in a bundle that holds the very same, so that models can share one."""
    wanted = card.encoder
    for other in _other_bundles(path):
        try:
            spec = read_card(other).encoder
            if spec is None or wanted is None or replace(wanted, weights="bundled") != spec:
                continue
            check_encoder_fits(wanted, _below(read_header(other).tensors, ENCODER_PREFIX), other.name)
            encoder = encoder_from_spec(
                wanted, _below(read_weights(other).tensors, ENCODER_PREFIX), other.name
            )
        except ModelError:  # a file beside the model is none of its business
            continue
        if wanted.weights == f"sha256:{weights_digest(encoder.backbone.state_dict())}":
            return encoder
    return None


def _other_bundles(path: Path) -> Iterator[Path]:
    for folder in dict.fromkeys((path.parent.resolve(), BUNDLED_FOLDER)):
        yield from (file for file in sorted(folder.glob(f"*{SUFFIX}")) if file.name != path.name)


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Prepare a tensor for the file: counters as they are, floats in ``dtype`` unless they overflow there."""
    tensor = tensor.detach().cpu()
    if not tensor.is_floating_point():
        return tensor
    if not bool(torch.isfinite(tensor).all()):
        raise ModelError("The model holds values that are not numbers: training diverged, lower its rate.")
    small = tensor.to(dtype)
    return small if bool(torch.isfinite(small).all()) else tensor.float()
