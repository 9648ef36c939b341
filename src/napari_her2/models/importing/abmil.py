"""ABMIL as AttentionDeepMIL saves it (Ilse et al. 2018, arXiv:1802.04712), gated or not; and attention MIL.

Its one sigmoid becomes two logits of which the first is 0, so that their softmax is the sigmoid. Attention
MIL of Abdulsadig et al. (arXiv:2411.05028) is the same without a layer in front and without a gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.errors import ModelError
from napari_her2.models.importing.renaming import HeadRead, Renaming, as_two_logits, matrix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_WHAT, _PLAIN = "ABMIL", "attention MIL"


def read_abmil(tensors: Mapping[str, Tensor]) -> HeadRead:
    """Read ABMIL: a layer in front, attention, classifier.

    Raises
    ------
    ModelError
        Naming the tensors that do not fit.
    """
    gated = any(name.startswith(("attention_V.", "attention_U.", "attention_w.")) for name in tensors)
    classifier = tensors.get("classifier.0.weight")
    sigmoid = classifier is not None and classifier.ndim == 2 and len(classifier) == 1
    names = Renaming()
    names.layer("feature_extractor_part2.0", "embed.0")
    if gated:
        names.layer("attention_V.0", "attend.project")
        names.layer("attention_U.0", "attend.gate")
        names.layer("attention_w", "attend.score")
    else:
        names.layer("attention.0", "attend.project")
        names.layer("attention.2", "attend.score")
    for part in ("weight", "bias"):
        names.tensor(f"classifier.0.{part}", f"classifier.{part}", as_two_logits if sigmoid else None)
    renamed, origins = names.applied(tensors, _WHAT)
    width, features = matrix(renamed["embed.0.weight"], origins["embed.0.weight"], _WHAT)
    hidden, _ = matrix(renamed["attend.project.weight"], origins["attend.project.weight"], _WHAT)
    classes, _ = matrix(renamed["classifier.weight"], origins["classifier.weight"], _WHAT)
    branches, _ = matrix(renamed["attend.score.weight"], origins["attend.score.weight"], _WHAT)
    if branches != 1:
        raise ModelError(
            f"The checkpoint joins {branches} attention branches ({origins['attend.score.weight']}), and "
            f"ABMIL here has one: train it with one branch."
        )
    return HeadRead(
        "ABMIL",
        {"features": features, "width": width, "hidden": hidden, "classes": classes, "gated": gated},
        renamed,
        origins,
        found=(
            ("layer in front", f"{features} to {width}"),
            ("attention", f"{'gated' if gated else 'plain'}, {hidden} units"),
        ),
        sigmoid=sigmoid,
    )


def read_attention_mil(tensors: Mapping[str, Tensor]) -> HeadRead:
    """Read attention MIL: attention on the features themselves, and a classifier.

    Raises
    ------
    ModelError
        Naming the tensors that do not fit.
    """
    names = Renaming()
    names.layer("attention.0", "project")
    names.layer("attention.2", "attend")
    names.layer("fc1", "classifier")
    renamed, origins = names.applied(tensors, _PLAIN)
    hidden, features = matrix(renamed["project.weight"], origins["project.weight"], _PLAIN)
    classes, _ = matrix(renamed["classifier.weight"], origins["classifier.weight"], _PLAIN)
    return HeadRead(
        "AttentionMIL",
        {"features": features, "hidden": hidden, "classes": classes},
        renamed,
        origins,
        found=(("attention", f"plain, {hidden} units"),),
    )
