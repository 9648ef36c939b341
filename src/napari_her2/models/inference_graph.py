"""Networks as they are computed on a CPU: batch norm, activation and addition inside the layer before them.

A residual network with batch norm waits for memory: each normalisation, activation and addition reads and
writes all numbers of a layer again. oneDNN computes them while it computes the convolution, in place, with
weights that were put into its own order once. In bfloat16 the linear layers of transformers gain in the same
way, and their weights need not be converted for every batch. Measured by `benchmarks/encoders.py`; in float32
transformers gain nothing, nor do convolutions without batch norm, so both stay as they are.

The network itself is never changed: training, Grad-CAM and weights go on with it. Whoever uses a graph
compares it with the network first (`napari_her2.inference.encode`), for other networks may be built in ways
that are not foreseen here. The functions of oneDNN are those that PyTorch's own compiler calls; where a
version lacks them, no graph is made.
"""

from __future__ import annotations

import copy
import platform
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_her2.models.patch_encoder import PatchEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FUSED = "fused layers 1"
"""Name of this way to compute; another number means other roundings."""
CANNOT = (RuntimeError, AttributeError, TypeError, ValueError)
"""What a network raises that cannot be computed so; NotImplementedError is a RuntimeError."""
_BATCH_PIXELS = 8 * 224**2
"""Few tiles at once: what a layer gives is still in the processor's cache when the next one reads it."""
_X86 = ("x86_64", "amd64")


@dataclass(frozen=True, slots=True, eq=False)
class InferenceGraph:
    """An encoder whose network is computed in another way; callable as the encoder is.

    Parameters
    ----------
    encoder : PatchEncoder
        Prepares tiles and pools tokens.
    backbone : nn.Module
    batch : int
        Tiles computed at once. Always so many, filled up where there are fewer: then features do not depend
        on where a batch ends.
    name : str
    """

    encoder: PatchEncoder
    backbone: nn.Module
    batch: int
    name: str = FUSED

    def __call__(self, images: Tensor) -> Tensor:
        """(B, t, t, 3) uint8 to (B, D) float32; B at most `batch`."""
        count = len(images)
        if count < self.batch:
            images = torch.cat([images, images.new_zeros(self.batch - count, *images.shape[1:])])
        return self.encoder.encoded_by(self.backbone, images)[:count]


def has_graph(encoder: object, device: torch.device, dtype: torch.dtype | None) -> bool:
    """Say whether `for_inference` would try to make a graph; cheap.

    Parameters
    ----------
    encoder : object
        What turns tiles into numbers; only a `PatchEncoder` has one.
    device : torch.device
    dtype : torch.dtype or None
        Lower precision that it is computed in; None: float32.
    """
    if not isinstance(encoder, PatchEncoder) or device.type != "cpu" or not _onednn():
        return False
    if dtype is None:
        return any(_is_plain_block(module) for module in encoder.backbone.modules())
    return dtype is torch.bfloat16 and any(
        type(module) is nn.Linear or _is_plain_block(module) for module in encoder.backbone.modules()
    )


def for_inference(encoder: object, device: torch.device, dtype: torch.dtype | None) -> InferenceGraph | None:
    """Make the graph of an encoder, where that is faster.

    Parameters
    ----------
    encoder : object
        What turns tiles into numbers.
    device : torch.device
        Where it is and stays.
    dtype : torch.dtype or None
        Lower precision that it is computed in, under autocast; None: float32.

    Returns
    -------
    InferenceGraph or None
        None where the encoder is best computed as it is.

    Raises
    ------
    RuntimeError, AttributeError, TypeError, ValueError
        If the network cannot be rewritten (`CANNOT`).
    """
    if not has_graph(encoder, device, dtype):
        return None
    assert isinstance(encoder, PatchEncoder)
    network = encoder.backbone
    # Tensors are shared: only what is rewritten takes memory.
    shared = {id(tensor): tensor for tensor in chain(network.parameters(), network.buffers())}
    backbone = copy.deepcopy(network, shared).eval()
    _rewrite(backbone, dtype)
    side = encoder.spec.input_px or encoder.spec.tile_px
    return InferenceGraph(encoder, backbone, max(1, _BATCH_PIXELS // side**2))


def _onednn() -> bool:
    """Whether convolutions are computed by oneDNN, on processors where graphs were measured."""
    return (
        platform.machine().lower() in _X86
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and bool(torch.backends.mkldnn.enabled)
    )


class _Convolution(nn.Module):
    """A convolution with the batch norm behind it, and then a sum, an activation or both."""

    def __init__(
        self, conv: nn.Conv2d, norm: nn.BatchNorm2d, *, activated: bool, dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        folded = fuse_conv_bn_eval(conv, norm).requires_grad_(False)
        self._dtype = dtype or torch.float32
        self._padding, self._stride, self._dilation = (
            list(cast("tuple[int, int]", value)) for value in (conv.padding, conv.stride, conv.dilation)
        )
        self._groups = conv.groups
        self._activation = "relu" if activated else None
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(  # noqa: SLF001 - what the compiler calls
            folded.weight.to(self._dtype), self._padding, self._stride, self._dilation, self._groups, []
        )
        assert folded.bias is not None
        self._bias = folded.bias.to(self._dtype)

    def forward(self, images: Tensor, sum_into: Tensor | None = None) -> Tensor:
        """Convolve; the sum is written over ``sum_into``."""
        layer = (self._weight, self._bias, self._padding, self._stride, self._dilation, self._groups)
        images = images.to(self._dtype)
        made: Tensor
        if sum_into is None:
            run: Any = torch.ops.mkldnn._convolution_pointwise  # noqa: SLF001 - as above
            made = run(images, *layer, self._activation or "none", [], "")
            return made
        sum_into = sum_into.to(self._dtype).contiguous(memory_format=torch.channels_last)
        run = torch.ops.mkldnn._convolution_pointwise_.binary
        made = run(sum_into, images, *layer, "add", 1.0, self._activation, [], None)
        return made


class _Residual(nn.Module):
    """A residual block; the sum is written over its input, or over the shortcut's own convolution."""

    def __init__(self, block: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        layers = [number for number in (1, 2, 3) if hasattr(block, f"conv{number}")]
        self.convolutions = nn.ModuleList(
            _Convolution(getattr(block, f"conv{n}"), getattr(block, f"bn{n}"), activated=True, dtype=dtype)
            for n in layers
        )
        down = cast("nn.Sequential | None", block.downsample)
        if down is None:
            self.shortcut: nn.Module | None = None
        else:
            *before, conv, norm = down
            last = _Convolution(
                cast("nn.Conv2d", conv), cast("nn.BatchNorm2d", norm), activated=False, dtype=dtype
            )
            self.shortcut = nn.Sequential(*before, last)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, h, w), which may be written over, to the block's output."""
        shortcut = images if self.shortcut is None else self.shortcut(images)
        *first, last = self.convolutions
        for convolution in first:
            images = convolution(images)
        result: Tensor = last(images, shortcut)
        return result


class _Linear(nn.Module):
    """A linear layer in bfloat16, with the GELU behind it where there is one."""

    def __init__(self, linear: nn.Linear, activation: str = "none") -> None:
        super().__init__()
        weight = linear.weight.detach().to(torch.bfloat16)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)  # noqa: SLF001 - as above
        bias: Tensor | None = linear.bias  # typed as if it were always there
        self._bias = None if bias is None else bias.detach().to(torch.bfloat16)
        self._activation = activation
        # oneDNN's "none" is the exact GELU, by the error function.
        self._kind = "none" if activation == "gelu" else ""

    def forward(self, values: Tensor) -> Tensor:
        """(..., I) to (..., O) bfloat16."""
        run: Any = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - as above
        made: Tensor = run(
            values.to(torch.bfloat16), self._weight, self._bias, self._activation, [], self._kind
        )
        return made


def _rewrite(module: nn.Module, dtype: torch.dtype | None) -> None:
    """Put faster layers into a network, from the leaves up."""
    if _is_stem(module):
        stem: Any = module
        stem.conv1 = _Convolution(stem.conv1, stem.bn1, activated=True, dtype=dtype)
        stem.bn1 = stem.act1 = nn.Identity()
    for name, child in list(module.named_children()):
        if _is_plain_block(child):
            setattr(module, name, _Residual(child, dtype))
        elif dtype is torch.bfloat16 and type(child) is nn.Linear:
            gelu = name == "fc1" and _exact_gelu(getattr(module, "act", None))
            setattr(module, name, _Linear(child, "gelu" if gelu else "none"))
            if gelu:
                module.act = nn.Identity()
        else:
            _rewrite(child, dtype)


def _exact_gelu(layer: object) -> bool:
    return type(layer) is nn.GELU and layer.approximate == "none"


def _is_plain_block(module: nn.Module) -> bool:
    """Whether it is a residual block of timm without attention or smoothing, all ReLU."""
    if not _of_timm(module, ("BasicBlock", "Bottleneck")):
        return False
    if getattr(module, "se", None) is not None:
        return False
    numbers = [number for number in (1, 2, 3) if hasattr(module, f"conv{number}")]
    pairs = [(getattr(module, f"conv{n}"), getattr(module, f"bn{n}")) for n in numbers]
    activations = [getattr(module, f"act{n}") for n in numbers]
    down: Any = module.downsample
    if down is not None:
        if not isinstance(down, nn.Sequential) or len(down) < 2:
            return False
        *before, conv, norm = down
        pairs.append((conv, norm))
        activations += [layer for layer in before if not isinstance(layer, nn.Identity | nn.AvgPool2d)]
    nothing = (getattr(module, name, None) for name in ("aa", "drop_block"))
    return (
        all(_foldable(*pair) for pair in pairs)
        and _all_of(nn.ReLU, activations)
        and all(layer is None or isinstance(layer, nn.Identity) for layer in nothing)
    )


def _is_stem(module: nn.Module) -> bool:
    """Whether it is a residual network of timm that begins with one convolution."""
    if not _of_timm(module, ("ResNet",)):
        return False
    parts: Any = module
    return _foldable(parts.conv1, parts.bn1) and type(parts.act1) is nn.ReLU


def _of_timm(module: nn.Module, names: tuple[str, ...]) -> bool:
    # By name: importing timm takes seconds, and who has such a module has imported it.
    kind = type(module)
    return kind.__module__ == "timm.models.resnet" and kind.__name__ in names


def _foldable(conv: object, norm: object) -> bool:
    return (
        type(conv) is nn.Conv2d
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and _is_norm(norm)
    )


def _is_norm(norm: object) -> bool:
    return type(norm) is nn.BatchNorm2d and norm.running_mean is not None


def _all_of(kind: Callable[..., nn.Module], layers: Iterable[object]) -> bool:
    return all(type(layer) is kind for layer in layers)
