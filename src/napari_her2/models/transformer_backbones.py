"""Backbones of transformers (Wolf et al. 2020, doi:10.18653/v1/2020.emnlp-demos.6) for those published so.

An optional extra. Networks are built from configuration classes with the values that are given, never from a
name that the library would look up, and no code from elsewhere is run. Their tensors keep the names that they
are published with: newer versions of the library call some of them otherwise and cut others in two, and
weights that were found by their digest must be found after an update too.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from napari_her2.errors import ModelError
from napari_her2.models.card import EncoderSpec
from napari_her2.models.normalisations import IMAGENET
from napari_her2.models.timm_backbones import CANNOT, check_arguments, fetch, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_her2.models.card import ArgumentValue

CLASSES: Mapping[str, str] = {
    "ViTModel": "ViTConfig",
    "Dinov2Model": "Dinov2Config",
    "CLIPVisionModel": "CLIPVisionConfig",
}
"""Classes that may be built, and those of their configurations."""
_NUMBERS: Mapping[str, tuple[float, float]] = {
    "hidden_size": (8, 8192),
    "num_hidden_layers": (1, 64),
    "num_attention_heads": (1, 128),
    "intermediate_size": (8, 65536),
    "image_size": (8, 4096),
    "patch_size": (1, 512),
    "mlp_ratio": (1, 16),
    "layerscale_value": (1e-12, 100),
}
_SWITCHES = frozenset({"qkv_bias", "use_swiglu_ffn", "projection"})
_NAMES: Mapping[str, Mapping[str, object]] = {"hidden_act": dict.fromkeys(("gelu", "quick_gelu"))}

# Names of newer versions of the library, and the published ones.
_PUBLISHED = (
    (re.compile(r"^layers\.(\d+)\."), r"encoder.layer.\1."),
    (re.compile(r"\.attention\.q_proj\."), ".attention.attention.query."),
    (re.compile(r"\.attention\.k_proj\."), ".attention.attention.key."),
    (re.compile(r"\.attention\.v_proj\."), ".attention.attention.value."),
    (re.compile(r"\.attention\.o_proj\."), ".attention.output.dense."),
)
_OF_VIT = (
    (re.compile(r"\.mlp\.fc1\."), ".intermediate.dense."),
    (re.compile(r"\.mlp\.fc2\."), ".output.dense."),
)
_OF_DINOV2 = ((re.compile(r"\.mlp\.down_proj\."), ".mlp.weights_out."),)
_OF_CLIP = ((re.compile(r"^(?=embeddings|pre_layrnorm|encoder|post_layernorm)"), "vision_model."),)
_BY_CLASS = {
    "ViTModel": (*_PUBLISHED, *_OF_VIT),
    "Dinov2Model": (*_PUBLISHED, *_OF_DINOV2),
    "CLIPVisionModel": _OF_CLIP,
}
_GATE, _UP, _JOINED = ".mlp.gate_proj.", ".mlp.up_proj.", ".mlp.weights_in."


class TransformerBackbone(nn.Module):
    """A model of transformers that takes pixels and gives tokens, its tensors by their published names.

    Parameters
    ----------
    class_name : str
        One of `CLASSES`.
    arguments : mapping
        Of its configuration, checked. "projection" adds a linear layer over the tokens.
    """

    num_prefix_tokens = 1
    pretrained_cfg: Mapping[str, Any] = {"classifier": ("pooler", "classifier", "text_model")}

    def __init__(self, class_name: str, arguments: Mapping[str, ArgumentValue]) -> None:
        super().__init__()
        import transformers

        self.class_name = class_name
        values = {key: value for key, value in arguments.items() if key != "projection"}
        configuration = getattr(transformers, CLASSES[class_name])(**values)
        options = {"add_pooling_layer": False} if class_name == "ViTModel" else {}
        self.network: nn.Module = getattr(transformers, class_name)(configuration, **options)
        self.projection: nn.Module | None = None
        if arguments.get("projection"):
            self.projection = nn.Linear(configuration.hidden_size, configuration.hidden_size)
            self.num_prefix_tokens = 0  # all tokens are projected and used alike
        self.register_state_dict_post_hook(_publish)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_unpublish)  # type: ignore[no-untyped-call]

    def forward(self, images: Tensor) -> Tensor:
        """Give the tokens of normalised images: (B, 3, t, t) float to (B, T, D)."""
        tokens: Tensor = self.network(pixel_values=images).last_hidden_state
        return tokens if self.projection is None else self.projection(tokens)

    def published(self, name: str) -> str:
        """Return the published name of a tensor of the library's model."""
        name = name.removeprefix("network.")
        for pattern, replacement in _BY_CLASS[self.class_name]:
            name = pattern.sub(replacement, name)
        return name


def build_transformer(
    name: str, tile_px: int | None, *, arguments: Mapping[str, ArgumentValue]
) -> tuple[nn.Module, EncoderSpec]:
    """Build a model of transformers, and what is known of how it is fed.

    Parameters
    ----------
    name : str
        "transformers:" and one of `CLASSES`.
    tile_px : int or None
        None takes the size that it is built for.
    arguments : mapping
        Of its configuration: sizes and switches alone.

    Returns
    -------
    tuple of nn.Module and EncoderSpec
        With the length of the features not known yet, and the normalisation of ImageNet.

    Raises
    ------
    ModelError
        If the class or an argument is refused, it cannot be built, or the library is not installed.
    """
    class_name = name.removeprefix("transformers:")
    if class_name not in CLASSES:
        raise ModelError(
            f"The class {class_name!r:.40} of transformers is not built here; those that are: "
            f"{', '.join(CLASSES)}."
        )
    check_arguments(arguments, _NUMBERS, _SWITCHES, _NAMES)
    need_transformers()
    try:
        backbone = TransformerBackbone(class_name, arguments)
    except CANNOT as error:
        raise ModelError(f"transformers cannot build {class_name!r}: {first_line(error)}.") from error
    size = tile_px or int(backbone.network.config.image_size)  # type: ignore[union-attr, arg-type]
    return backbone, EncoderSpec(
        name, size, *IMAGENET, dim=1, weights="random", arguments=arguments, pooling="class"
    )


class RemoteBackbone(nn.Module):
    """A model built by code of its publisher's, which was run because a person insisted.

    Parameters
    ----------
    hub : str
        Where code and weights lie.
    revision : str
        Commit of both, so that what was trusted once is what is run again.
    prefix_tokens : int
        Tokens before those of the patches.

    Raises
    ------
    ModelError
        If it cannot be had.
    """

    def __init__(self, hub: str, revision: str, prefix_tokens: int) -> None:
        super().__init__()
        need_transformers()
        import transformers

        self.num_prefix_tokens = prefix_tokens
        self.network: nn.Module = fetch(
            lambda: transformers.AutoModel.from_pretrained(
                hub, revision=revision, code_revision=revision, trust_remote_code=True
            ),
            hub,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Give the tokens of normalised images: (B, 3, t, t) float to (B, T, D)."""
        tokens: Tensor = self.network(pixel_values=images).last_hidden_state
        return tokens


def need_transformers() -> None:
    """Refuse what needs the library where it is not installed.

    Raises
    ------
    ModelError
    """
    if find_spec("transformers") is None:
        raise ModelError(
            "This encoder is built by transformers, which is not installed: "
            "pip install 'napari-her2[transformers]'."
        )


def _publish(module: nn.Module, state: dict[str, Tensor], prefix: str, _: object) -> None:
    """Rename what the library calls otherwise, and join what it cut in two."""
    assert isinstance(module, TransformerBackbone)
    own = {key.removeprefix(prefix): state.pop(key) for key in list(state) if key.startswith(prefix)}
    for key, value in own.items():
        if _UP in key:
            continue
        if _GATE in key:
            joined = torch.cat([value, own[key.replace(_GATE, _UP)]])
            state[prefix + module.published(key.replace(_GATE, _JOINED))] = joined
        else:
            state[prefix + module.published(key)] = value


def _unpublish(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Give tensors the names of the installed version of the library."""
    assert isinstance(module, TransformerBackbone)
    names = [*(name for name, _ in module.named_parameters()), *(name for name, _ in module.named_buffers())]
    for name in names:
        if _GATE in name:
            joined = state.pop(prefix + module.published(name.replace(_GATE, _JOINED)), None)
            if joined is not None:
                gate, up = joined.chunk(2)
                state[prefix + name], state[prefix + name.replace(_GATE, _UP)] = gate, up
        elif _UP not in name:
            found = state.pop(prefix + module.published(name), None)
            if found is not None:
                state[prefix + name] = found
