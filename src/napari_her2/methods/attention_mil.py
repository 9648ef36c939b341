"""Attention MIL: an H&E or IHC slide as a bag of tiles, with signed evidence of each tile."""

from __future__ import annotations

from napari_her2.methods.mil import BagMethod


class AttentionMILMethod(BagMethod):
    """Attention pooling with a linear classifier behind it, which tells what each tile adds to the logits."""

    name = "attention-mil"
    title = "Attention MIL"
    paper = "Abdulsadig et al. 2024, arXiv:2411.05028"
    architectures = ("AttentionMIL",)
