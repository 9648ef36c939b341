"""Tensors from the names of published code to ours: each is expected, and what does not fit is named.

A kind of checkpoint lists which tensor becomes which. What is missing or left over is refused one by one, in
the names of the checkpoint, since those are what its author knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from napari_her2.errors import ModelError
from napari_her2.models.architectures import MAX_ARGUMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from napari_her2.models.card import ArgumentValue

_MOST_NAMED = 24
"""Tensors that a message lists."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadRead:
    """A head as it was found in a checkpoint.

    Parameters
    ----------
    architecture : str
        Key of `napari_her2.models.architectures.ARCHITECTURES`.
    arguments : mapping
        That it is built with, without those that no tensor tells.
    tensors : mapping of str to Tensor
        By our names.
    origins : mapping of str to str
        Our names to those of the checkpoint, for messages.
    found : tuple of (str, str)
        What the file told, as names and values for a person.
    pixels : str
        Our name of the weight that sees the pixels, (outputs, channels, ...); empty of a head on features.
    sigmoid : bool
        Whether one sigmoid was written as two logits, of which the first is 0.
    """

    architecture: str
    arguments: Mapping[str, ArgumentValue]
    tensors: Mapping[str, Tensor]
    origins: Mapping[str, str]
    found: tuple[tuple[str, str], ...] = ()
    pixels: str = ""
    sigmoid: bool = False

    @property
    def classes(self) -> int:
        """How many logits it gives."""
        return int(self.arguments["classes"] or 0)


@dataclass(slots=True)
class Renaming:
    """A list of which tensor becomes which.

    Attributes
    ----------
    rows : list
        Our name, their names, and what makes ours of theirs.
    """

    rows: list[tuple[str, tuple[str, ...], Callable[[Sequence[Tensor]], Tensor]]] = field(
        default_factory=list
    )

    def tensor(self, theirs: str, ours: str, make: Callable[[Tensor], Tensor] | None = None) -> None:
        """Let one tensor become another, as it is or by ``make``."""
        self.rows.append((ours, (theirs,), lambda given: given[0] if make is None else make(given[0])))

    def layer(self, theirs: str, ours: str, *, bias: bool = True) -> None:
        """Let the weight and the bias of a layer become those of another."""
        for name in ("weight", "bias") if bias else ("weight",):
            self.tensor(f"{theirs}.{name}", f"{ours}.{name}")

    def joined(self, theirs: Sequence[str], ours: str) -> None:
        """Let several layers become one, their outputs one after the other."""
        for name in ("weight", "bias"):
            names = tuple(f"{one}.{name}" for one in theirs)
            self.rows.append((ours + f".{name}", names, lambda given: torch.cat(list(given))))

    def applied(self, tensors: Mapping[str, Tensor], what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Rename tensors.

        Parameters
        ----------
        tensors : mapping of str to Tensor
        what : str
            Kind of the checkpoint, for messages.

        Returns
        -------
        tensors, origins : dict
            Both by our names.

        Raises
        ------
        ModelError
            If tensors are missing or left over, naming each.
        """
        wanted = {name for _, names, _ in self.rows for name in names}
        refuse_strangers(wanted, tensors.keys(), what)
        renamed, origins = {}, {}
        for ours, names, make in self.rows:
            try:
                renamed[ours] = make([tensors[name] for name in names])
            except (RuntimeError, IndexError, ValueError) as error:
                shapes = ", ".join(f"{name} {tuple(tensors[name].shape)}" for name in names)
                raise ModelError(
                    f"The checkpoint is no {what}: {shapes} do not fit together. Choose the kind that it is."
                ) from error
            origins[ours] = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        return renamed, origins


def refuse_strangers(wanted: Iterable[str], given: Iterable[str], what: str) -> None:
    """Raise ModelError where tensors are missing or left over, naming each."""
    wanted, given = set(wanted), set(given)
    missing, unexpected = sorted(wanted - given), sorted(given - wanted)
    if not missing and not unexpected:
        return
    parts = []
    if missing:
        parts.append(f"missing: {_listed(missing)}")
    if unexpected:
        parts.append(f"not expected: {_listed(unexpected)}")
    raise ModelError(
        f"The checkpoint does not have the tensors of {what} ({'; '.join(parts)}). Choose the kind that it "
        f"is, or save the weights of this part alone."
    )


def refuse_shapes(
    wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], origins: Mapping[str, str], what: str
) -> None:
    """Raise ModelError where tensors have another shape or type than the head needs, naming each."""
    faults = []
    for name, tensor in wanted.items():
        found = given[name]
        if (
            tuple(found.shape) != tuple(tensor.shape)
            or found.is_floating_point() != tensor.is_floating_point()
        ):
            faults.append(f"{origins.get(name, name)} is {_words(found)} instead of {_words(tensor)}")
        elif found.is_floating_point() and not bool(torch.isfinite(found.float()).all()):
            faults.append(f"{origins.get(name, name)} holds values that are not numbers")
    if faults:
        raise ModelError(
            f"The tensors of the checkpoint do not fit {what}: {_listed(faults, '; ')}. Choose the kind that "
            f"it is, or get the checkpoint again."
        )


def numbered(tensors: Mapping[str, Tensor], front: str) -> list[str]:
    """Return the layers ``front.0``, ``front.1`` ... that are there, in order of their numbers."""
    found = {
        int(number)
        for name in tensors
        if name.startswith(f"{front}.")
        and (number := name[len(front) + 1 :].partition(".")[0]).isdecimal()
        and len(number) <= 3
    }
    return [f"{front}.{number}" for number in range(len(found))]


def matrix(tensor: Tensor, name: str, what: str) -> tuple[int, int]:
    """Return outputs and inputs of the weight of a linear layer.

    Raises
    ------
    ModelError
        If it is none.
    """
    if tensor.ndim != 2 or min(tensor.shape) < 1 or max(tensor.shape) > MAX_ARGUMENT:
        raise ModelError(
            f"The checkpoint is no {what}: {name} has shape {tuple(tensor.shape)} and is no weight of a "
            f"linear layer. Choose the kind that it is."
        )
    return int(tensor.shape[0]), int(tensor.shape[1])


def as_two_logits(row: Tensor) -> Tensor:
    """Put zeros before what belongs to one sigmoid: softmax of (0, z) is (1 - sigmoid z, sigmoid z)."""
    return torch.cat([torch.zeros_like(row), row])


def _listed(names: Sequence[str], mark: str = ", ") -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return mark.join(f"{name:.200}" for name in names[:_MOST_NAMED]) + more


def _words(tensor: Tensor) -> str:
    return f"{'float' if tensor.is_floating_point() else 'integer'} {tuple(tensor.shape)}"
