"""The last blocks of an encoder, for a fine-tuning that leaves the others as they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from napari_her2.models.patch_encoder import PatchEncoder

_NUMBERED = re.compile(r"(.*?\.\d+)\.")


def blocks_of(encoder: PatchEncoder) -> list[list[str]]:
    """Name the parameters of each block of an encoder's backbone, from the pixels to the features.

    Parameters
    ----------
    encoder : PatchEncoder

    Returns
    -------
    list of list of str
        As timm divides its models for rates that decay from layer to layer; of others, each numbered module
        that has parameters.
    """
    backbone = encoder.backbone
    names = [name for name, _ in backbone.named_parameters()]
    for below, module in backbone.named_modules():
        if hasattr(module, "group_matcher"):
            from timm.models import group_parameters  # seconds to import: only for those who need it

            prefix = f"{below}." if below else ""
            groups = group_parameters(module, module.group_matcher(coarse=False))
            return [[f"{prefix}{name}" for name in groups[number]] for number in sorted(groups)]
    blocks: dict[str, list[str]] = {}
    for name in names:
        found = _NUMBERED.match(name)
        blocks.setdefault(found[1] if found else name, []).append(name)
    return list(blocks.values())


def freeze_all_but_last(encoder: PatchEncoder, count: int) -> None:
    """Let only the last blocks of an encoder learn.

    Parameters
    ----------
    encoder : PatchEncoder
        Unfrozen.
    count : int
        Blocks that learn.

    Raises
    ------
    JobFailed
        If it has fewer blocks.
    """
    blocks = blocks_of(encoder)
    if count > len(blocks):
        raise JobFailed(
            f"{encoder.spec.name} has {len(blocks)} blocks: [pretraining] blocks can be at most that, "
            f"or 0 for all of the encoder."
        )
    learn = {name for block in blocks[-count:] for name in block}
    for name, parameter in encoder.backbone.named_parameters():
        parameter.requires_grad_(name in learn)


def keep_frozen_still(encoder: PatchEncoder) -> None:
    """Put what does not learn into evaluation mode: its running statistics stay as they are."""
    for module in encoder.backbone.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            module.training = False  # of this module alone: its children decide for themselves
