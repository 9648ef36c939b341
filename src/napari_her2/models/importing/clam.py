"""CLAM as its repository saves it (Lu et al. 2021, arXiv:2004.09666): one branch or one a class, any size.

The attention stands behind the dropout of the layer in front, where there is one: ``attention_net.3`` with
it, ``attention_net.2`` without. Buffers of its instance loss are no weights and are passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.models.importing.renaming import HeadRead, Renaming, matrix, numbered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_WHAT = "CLAM"
_LOSS = "instance_loss_fn."
_TRUNK = "attention_net."
_PARALLEL = f"{_TRUNK}module."


def read_clam(tensors: Mapping[str, Tensor]) -> HeadRead:
    """Read CLAM.

    Raises
    ------
    ModelError
        Naming the tensors that do not fit.
    """
    given = {
        # Trained on several GPUs the trunk alone was wrapped.
        (f"{_TRUNK}{name.removeprefix(_PARALLEL)}" if name.startswith(_PARALLEL) else name): tensor
        for name, tensor in tensors.items()
        if not name.startswith(_LOSS)
    }
    at = f"{_TRUNK}3" if any(name.startswith(f"{_TRUNK}3.") for name in given) else f"{_TRUNK}2"
    gated = not any(name.startswith(f"{at}.module.") for name in given)
    branches, instances = numbered(given, "classifiers"), numbered(given, "instance_classifiers")
    names = Renaming()
    names.layer(f"{_TRUNK}0", "embed.0")
    if gated:
        names.layer(f"{at}.attention_a.0", "attend.project")
        names.layer(f"{at}.attention_b.0", "attend.gate")
        names.layer(f"{at}.attention_c", "attend.score")
    else:
        last = 3 if f"{at}.module.3.weight" in given else 2
        names.layer(f"{at}.module.0", "attend.project")
        names.layer(f"{at}.module.{last}", "attend.score")
    if branches:
        names.joined(branches, "classifier")
    else:
        names.layer("classifiers", "classifier")
    names.joined(instances or ["instance_classifiers.0"], "instance_classifiers")
    renamed, origins = names.applied(given, _WHAT)
    width, features = matrix(renamed["embed.0.weight"], origins["embed.0.weight"], _WHAT)
    hidden, _ = matrix(renamed["attend.project.weight"], origins["attend.project.weight"], _WHAT)
    classes, _ = matrix(renamed["classifier.weight"], origins["classifier.weight"], _WHAT)
    arguments: dict[str, int | bool] = {
        "features": features,
        "width": width,
        "hidden": hidden,
        "classes": classes,
        "multi_branch": bool(branches),
    }
    return HeadRead(
        "CLAM",
        arguments if gated else arguments | {"gated": False},
        renamed,
        origins,
        found=(
            ("kind of CLAM", "one branch for each class (MB)" if branches else "one branch (SB)"),
            ("layer in front", f"{features} to {width}"),
            ("attention", f"{'gated' if gated else 'plain'}, {hidden} units"),
        ),
    )
