"""WSMCL as its repository saves it (Shi et al. 2025, PMID 39919535): both slides of a case and their fusion.

It runs as published (``faithful``). How many tiles its contrastive loss compared is in no tensor: 100, as
published, and without effect on the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.models.importing.renaming import HeadRead, Renaming, matrix
from napari_her2.models.importing.transmil import heads_of, name_attention
from napari_her2.models.wsmcl import TOP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_WHAT = "WSMCL"


def read_wsmcl(tensors: Mapping[str, Tensor]) -> HeadRead:
    """Read WSMCL.

    Raises
    ------
    ModelError
        Naming the tensors that do not fit.
    """
    names = Renaming()
    for theirs, ours in (("HE", "he"), ("IHC", "ihc")):
        names.layer(f"{theirs}_FC.0", f"{ours}.embed.0")
        names.layer(f"{theirs}_transformer.norm", f"{ours}.norm")
        name_attention(names, f"{theirs}_transformer.attn", f"{ours}.attend", along="along_bag")
        names.layer(f"{theirs}_classifier.0", f"{ours}.classify")
    names.layer("MM_classifier.fc", "fuse.mix")
    for number in (0, 2):
        names.layer(f"MM_classifier.classifier.{number}", f"fuse.classify.{number}")
    names.tensor("logit_scale", "log_scale", lambda scale: scale.reshape(()))
    names.layer("norm", "norm")
    renamed, origins = names.applied(tensors, _WHAT)
    width, features = matrix(renamed["he.embed.0.weight"], origins["he.embed.0.weight"], _WHAT)
    classes, _ = matrix(renamed["he.classify.weight"], origins["he.classify.weight"], _WHAT)
    along = "he.attend.along_bag.weight"
    heads = heads_of(renamed[along], origins[along], width, _WHAT)
    return HeadRead(
        "WSMCL",
        {
            # There the features have the width of the tokens; another would be refused by its shape.
            "he_features": features,
            "ihc_features": features,
            "width": width,
            "heads": heads,
            "landmarks": width // 2,
            "classes": classes,
            "k": TOP,
            "faithful": True,
        },
        renamed,
        origins,
        found=(("attention", f"{heads} heads, {width // 2} landmarks, as published"),),
    )
