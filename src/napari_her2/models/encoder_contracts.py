"""Patch encoders by the names that people know, and the contract of each: how it is built and fed.

These are facts of 2026, gathered from the pages of the models and from the code of toolkits that load them;
nothing here is opened, downloaded or promised. Whether a model is gated, and its licence, change: they are
shown with their year, and the page of the model decides.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from napari_her2.errors import ModelError
from napari_her2.models.normalisations import IMAGENET
from napari_her2.outside import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_her2.models.card import ArgumentValue, Pooling

BuiltBy = Literal["torchvision", "timm", "transformers", "elsewhere"]
SEE_PAGE = "see its page"
_NC_ND = "CC-BY-NC-ND-4.0"
_NON_COMMERCIAL = "non-commercial, see its page"
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_BIOPTIMUS = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
_LUNIT = ((0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464))
_HIBOU = ((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_SWIGLU: Mapping[str, ArgumentValue] = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}


@dataclass(frozen=True, slots=True)
class EncoderContract:
    """What has to be known of an encoder so that its features mean what they mean elsewhere.

    Parameters
    ----------
    name : str
        As it is called here: lower case.
    title : str
        With its architecture, as people read it.
    built_by : {"torchvision", "timm", "transformers", "elsewhere"}
        The library that builds it. "elsewhere": features that other programs made can be read, but no slide
        is embedded here.
    architecture : str
        Name of timm, or class of transformers; empty where it is built elsewhere.
    dim : int
        Length of the features.
    hub : str
        Where its weights are published; empty where nowhere.
    arguments : mapping
        What it is built with, by plain values.
    revision : str
        Commit of the hub whose weights are meant. Empty where none is known: then the one that the first
        fetch meets is kept with the weights, and holds from then on.
    tile_px : int
        Side of the tiles that it is used with, pixels.
    input_px : int
        Side of what the network sees.
    resized_px : int or None
        Size that a tile is brought to before its middle, ``input_px`` wide, is taken; None: ``input_px``,
        and nothing is cut off.
    mpp : float
        µm per pixel of the tiles that it is used with.
    mpp_range : tuple of 2 float
        Finest and coarsest that it learnt from.
    mean, std : tuple of 3 float
        RGB on [0, 1].
    pooling : str
        Of `napari_her2.models.card.POOLINGS`.
    prefix_tokens : int
        Tokens before those of the patches: the class token and registers.
    gated : bool
        Whether its page gave the weights to those alone who accepted its terms.
    licence : str
    licence_seen : str
        Year in which that stood there.
    remote_code : bool
        Whether its publisher wants code from the hub to be run to build it.
    files : tuple of str
        Names of the weights on the hub, where they are called otherwise than usual.
    renamed : mapping of str to str
        Beginnings of the names of tensors in the published file, and what they are here; with any, all others
        are left out.
    """

    name: str
    title: str
    built_by: BuiltBy
    architecture: str
    dim: int
    hub: str = ""
    arguments: Mapping[str, ArgumentValue] = field(default_factory=dict)
    revision: str = ""
    tile_px: int = 224
    input_px: int = 224
    resized_px: int | None = None
    mpp: float = 0.5
    mpp_range: tuple[float, float] = (0.4, 0.6)
    mean: tuple[float, float, float] = IMAGENET.mean
    std: tuple[float, float, float] = IMAGENET.std
    pooling: Pooling = "class"
    prefix_tokens: int = 1
    gated: bool = False
    licence: str = SEE_PAGE
    licence_seen: str = "2026"
    remote_code: bool = False
    files: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def page(self) -> str:
        """Address of the page of the model; empty where it has none."""
        return f"https://huggingface.co/{self.hub}" if self.hub else ""

    @property
    def licence_words(self) -> str:
        """Its licence as a person is shown it: with the year, and what decides."""
        if not self.hub:
            return self.licence
        gated = "gated, " if self.gated else ""
        return f"{gated}{self.licence} (as of {self.licence_seen}); accept its terms on its page, {self.page}"

    @property
    def stays_outside(self) -> bool:
        """Whether its weights stay outside of bundles: its terms forbid to pass them on, or may do so."""
        return "ND" in self.licence or self.gated or self.licence in (SEE_PAGE, _NON_COMMERCIAL)

    @property
    def spec_name(self) -> str:
        """Name of the network in a card."""
        return self.name if self.built_by == "torchvision" else f"{self.built_by}:{self.architecture}"


def _timm(name: str, title: str, architecture: str, dim: int, hub: str, **facts: object) -> EncoderContract:
    return EncoderContract(name, title, "timm", architecture, dim, hub, **facts)  # type: ignore[arg-type]


def _bioptimus(name: str, title: str, **facts: object) -> EncoderContract:
    arguments = {"img_size": 224, "init_values": 1e-5, "dynamic_img_size": False}
    return _timm(
        name, title, "vit_giant_patch14_reg4_dinov2", 1536, f"bioptimus/{title.partition(' (')[0]}",
        arguments=arguments, mean=_BIOPTIMUS[0], std=_BIOPTIMUS[1], prefix_tokens=5, **facts,
    )  # fmt: skip


def _kaiko(kind: str, title: str, architecture: str, dim: int, **facts: object) -> EncoderContract:
    hub = f"1aurent/{architecture}.kaiko_ai_towards_large_pathology_fms"
    facts = {"arguments": {"img_size": 224, "dynamic_img_size": True}, **facts}
    return _timm(
        f"kaiko-{kind}", f"Kaiko ({title})", architecture, dim, hub, mean=_HALF[0], std=_HALF[1], **facts
    )


def _lunit(patch: int) -> EncoderContract:
    architecture = f"vit_small_patch{patch}_224"
    return _timm(
        f"lunit-dino-s{patch}", f"Lunit DINO (ViT-S/{patch})", architecture, 384,
        f"1aurent/{architecture}.lunit_dino", mean=_LUNIT[0], std=_LUNIT[1], licence=_NON_COMMERCIAL,
    )  # fmt: skip


def _virchow(name: str, title: str, **facts: object) -> EncoderContract:
    arguments = {
        "img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": "",
        "dynamic_img_size": True, **_SWIGLU, "reg_tokens": 4 if name == "virchow2" else 0,
    }  # fmt: skip
    return _timm(
        name, f"{title} (ViT-H/14)", "vit_huge_patch14_224", 2560, f"paige-ai/{title}",
        arguments=arguments, pooling="class+mean", gated=True, **facts,
    )  # fmt: skip


_KNOWN = (
    EncoderContract(
        "alexnet", "AlexNet, convolutional part", "torchvision", "", 1024, tile_px=96, input_px=96,
        mpp_range=(0.2, 2.0), pooling="pooled", prefix_tokens=0, licence="BSD-3-Clause",
    ),
    _timm(
        "uni", "UNI (ViT-L/16)", "vit_large_patch16_224", 1024, "MahmoodLab/uni",
        revision="b55a5ec6cade1a39edfe6534189a9b8ca7a022f0",
        arguments={"img_size": 224, "init_values": 1e-5, "dynamic_img_size": True},
        gated=True, licence=_NC_ND,
    ),
    _timm(
        "uni2-h", "UNI2-h (ViT-H/14)", "vit_giant_patch14_224", 1536, "MahmoodLab/UNI2-h",
        revision="d517a8dd47902dd7c308b3c36f63bce47e7b9a43",
        arguments={
            "img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "embed_dim": 1536,
            "mlp_ratio": 5.33334, "init_values": 1e-5, "reg_tokens": 8, "no_embed_class": True,
            "dynamic_img_size": True, **_SWIGLU,
        },
        prefix_tokens=9, gated=True, licence=_NC_ND,
    ),
    _virchow(
        "virchow", "Virchow", licence="Apache-2.0", revision="19eebc84ae33e79f1b2d866e6ff90ae50e522f9a"
    ),
    _virchow(
        "virchow2", "Virchow2", licence=_NC_ND, prefix_tokens=5, mpp_range=(0.25, 2.0),
        revision="3158645804b69e3f3bc4439d4116edddf0840a72",
    ),
    _timm(
        "gigapath", "Prov-GigaPath (ViT-g/16)", "vit_giant_patch14_dinov2", 1536,
        "prov-gigapath/prov-gigapath", revision="64f9e26c15019f2d4f6d9113c6822f88bb16b01b",
        arguments={
            "img_size": 224, "patch_size": 16, "depth": 40, "num_heads": 24, "embed_dim": 1536,
            "mlp_ratio": 5.33334, "init_values": 1e-5,
        },
        tile_px=256, resized_px=256, gated=True, licence="Apache-2.0 with conditions",
    ),
    _bioptimus(
        "h-optimus-0", "H-optimus-0 (ViT-g/14)", licence="Apache-2.0",
        revision="b145cc1e6c6b30d3251aa8b1f844e6974188a743",
    ),
    _bioptimus(
        "h-optimus-1", "H-optimus-1 (ViT-g/14)", gated=True, licence=_NC_ND,
        revision="3592cb220dec7a150c5d7813fb56e68bd57473b9",
    ),
    _timm(
        "h0-mini", "H0-mini (ViT-B/14)", "vit_base_patch14_reg4_dinov2", 768, "bioptimus/H0-mini",
        revision="5b5cc0505d19ae558270045eb0df8c34df4d9609",
        arguments={
            "img_size": 224, "mlp_ratio": 5.33334, "init_values": 1e-5, "global_pool": "",
            "dynamic_img_size": True, **_SWIGLU,
        },
        mean=_BIOPTIMUS[0], std=_BIOPTIMUS[1], prefix_tokens=5, gated=True, licence=_NC_ND,
    ),
    _kaiko("vits8", "ViT-S/8", "vit_small_patch8_224", 384),
    _kaiko("vits16", "ViT-S/16", "vit_small_patch16_224", 384),
    _kaiko("vitb8", "ViT-B/8", "vit_base_patch8_224", 768),
    _kaiko("vitb16", "ViT-B/16", "vit_base_patch16_224", 768),
    _kaiko(
        "vitl14", "ViT-L/14, registers", "vit_large_patch14_reg4_dinov2", 1024,
        arguments={"img_size": 518, "dynamic_img_size": True}, prefix_tokens=5,
    ),
    _lunit(8),
    _lunit(16),
    _timm(
        "gpfm", "GPFM (ViT-L/14)", "vit_large_patch14_dinov2", 1024, "majiabo/GPFM",
        arguments={"img_size": 224, "init_values": 1e-5}, files=("GPFM.pth",),
    ),
    _timm(
        "resnet50", "ResNet-50 of ImageNet", "resnet50", 2048, "timm/resnet50.tv_in1k",
        revision="78f3ecfdb38e06d9b8397f662e7ab8fee96026fa",
        mpp_range=(0.2, 2.0), pooling="pooled", prefix_tokens=0, licence="BSD-3-Clause",
    ),
    EncoderContract(
        "phikon", "Phikon (ViT-B/16)", "transformers", "ViTModel", 768, "owkin/phikon",
        revision="057cc0295895c2df3dd7681a89680da6015cbefe",
        licence=_NON_COMMERCIAL,
    ),
    EncoderContract(
        "phikon-v2", "Phikon-v2 (ViT-L/16)", "transformers", "Dinov2Model", 1024, "owkin/phikon-v2",
        revision="2ae989a9c40cffaa27f0a6cb29cc94d1d6f9a5fd",
        arguments={
            "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 16,
            "image_size": 224,
        },
        licence=_NON_COMMERCIAL,
    ),
    EncoderContract(
        "midnight-12k", "Midnight-12k (ViT-g/14)", "transformers", "Dinov2Model", 3072, "kaiko-ai/midnight",
        revision="adc6b15679c981cce6f9b018bbad09d16eeeda9f",
        arguments={
            "hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "patch_size": 14,
            "image_size": 224, "use_swiglu_ffn": True,
        },
        mean=_HALF[0], std=_HALF[1], pooling="class+mean", mpp_range=(0.25, 2.0), licence="MIT",
    ),
    EncoderContract(
        "hibou-b", "Hibou-B (ViT-B/14)", "transformers", "", 768, "histai/hibou-b", mean=_HIBOU[0],
        std=_HIBOU[1], prefix_tokens=5, gated=True, licence="Apache-2.0", remote_code=True,
    ),
    EncoderContract(
        "hibou-l", "Hibou-L (ViT-L/14)", "transformers", "", 1024, "histai/hibou-L", mean=_HIBOU[0],
        std=_HIBOU[1], prefix_tokens=5, gated=True, licence="Apache-2.0", remote_code=True,
    ),
    EncoderContract(
        "isight", "iSight, for IHC (CLIP ViT-L/14)", "transformers", "CLIPVisionModel", 1024,
        "nirschl-lab/iSight",
        arguments={
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "patch_size": 14, "image_size": 336, "projection": True,
        },
        tile_px=336, input_px=336, mean=_CLIP[0], std=_CLIP[1], pooling="token mean", prefix_tokens=0,
        files=("checkpoints/iSight_model_checkpoint.pth",),
        renamed={"patch_encoder.vision_model.": "vision_model.", "visual_token_projection.": "projection."},
    ),
    EncoderContract(
        "conch", "CONCH (ViT-B/16)", "elsewhere", "", 512, "MahmoodLab/conch", tile_px=448, input_px=448,
        gated=True, licence=_NC_ND,
    ),
    EncoderContract(
        "conchv1.5", "CONCH v1.5 (ViT-L/16)", "elsewhere", "", 768, "MahmoodLab/conchv1_5", tile_px=448,
        input_px=448, gated=True, licence=_NC_ND,
    ),
    EncoderContract(
        "resnet50-trunc", "ResNet-50 up to its third block, as CLAM has it", "elsewhere", "", 1024,
        tile_px=256, mpp_range=(0.2, 2.0), pooling="pooled", prefix_tokens=0, licence="BSD-3-Clause",
    ),
)  # fmt: skip

ENCODERS: Mapping[str, EncoderContract] = MappingProxyType({each.name: each for each in _KNOWN})
"""Contracts by name."""

# What other programs write into their files, with letters and digits alone.
_ALIASES: Mapping[str, str] = {
    "univ1": "uni", "uni1": "uni", "mahmooduni": "uni", "unih": "uni2-h", "uni2": "uni2-h", "univ2": "uni2-h",
    "mahmooduni2": "uni2-h", "mahmooduni2h": "uni2-h", "virchowv1": "virchow", "virchowv2": "virchow2",
    "virchowfull": "virchow", "paigevirchow": "virchow", "paigevirchow2": "virchow2",
    "provgigapath": "gigapath", "gigapathtile": "gigapath", "hoptimus": "h-optimus-0",
    "optimus0": "h-optimus-0",
    "optimus1": "h-optimus-1", "phikonv1": "phikon", "phikon2": "phikon-v2", "midnight": "midnight-12k",
    "midnight12": "midnight-12k", "kaikomidnight": "midnight-12k", "lunitvits8": "lunit-dino-s8",
    "lunitvits16": "lunit-dino-s16", "lunits8": "lunit-dino-s8", "lunits16": "lunit-dino-s16",
    "lunitdino8": "lunit-dino-s8", "lunitdino16": "lunit-dino-s16", "conchv1": "conch",
    "mahmoodconch": "conch", "conch15": "conchv1.5", "resnet50trunc": "resnet50-trunc",
    "resnet50truncated": "resnet50-trunc", "hibou": "hibou-b",
}  # fmt: skip


def alias_of(name: str) -> str:
    """Return the name here of an encoder that is written otherwise elsewhere; empty where it is not known.

    Upper case, dots, dashes, underscores and slashes make no difference, and the id on the hub is a name too.

    Examples
    --------
    >>> alias_of("uni_v2"), alias_of("MahmoodLab/UNI2-h"), alias_of("hoptimus0"), alias_of("something")
    ('uni2-h', 'uni2-h', 'h-optimus-0', '')
    """
    plain = _plain(name)
    if plain in _ALIASES:
        return _ALIASES[plain]
    names = {_plain(each.name): each.name for each in _KNOWN}
    hubs = {_plain(each.hub): each.name for each in _KNOWN if each.hub}
    return names.get(plain) or hubs.get(plain.removeprefix("hfhub"), "")


def contract_of(name: str) -> EncoderContract:
    """Return the contract of an encoder by its name, or one of those that other programs give it.

    Parameters
    ----------
    name : str

    Returns
    -------
    EncoderContract

    Raises
    ------
    ModelError
        If no encoder is called so; names that are near are given.
    """
    found = alias_of(name)
    if found:
        return ENCODERS[found]
    if name.startswith("timm:"):
        raise ModelError(
            f"{shown(name, 60)!r} is a network of timm, of which no weights are kept by name: give their "
            f"file where it is used (embed --weights FILE, weights = FILE under [encoder] of a training)."
        )
    near = difflib.get_close_matches(name.lower(), ENCODERS, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ModelError(
        f"There is no encoder called {shown(name, 60)!r}.{hint} `napari-her2 encoders list` shows those that "
        f"are known; any model of timm can be named as timm:NAME."
    )


def with_pooling(contract: EncoderContract, pooling: Pooling) -> EncoderContract:
    """Return the contract with another pooling of the same tokens, and the length of its features.

    Raises
    ------
    ModelError
        If the encoder gives no tokens to be pooled otherwise.
    """
    if pooling == contract.pooling:
        return contract
    if "pooled" in (pooling, contract.pooling) or contract.built_by == "elsewhere":
        raise ModelError(
            f"{contract.title} is used with {contract.pooling!r} pooling, not with {pooling!r:.40}: leave "
            f"the pooling out."
        )
    single = contract.dim // 2 if contract.pooling == "class+mean" else contract.dim
    return replace(contract, pooling=pooling, dim=single * 2 if pooling == "class+mean" else single)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
