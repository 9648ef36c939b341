"""Models by name: those that come with the package, those of the user, and any file by its path.

The hash of a model is recorded when it comes in (``SHA256SUMS`` for the package's own, a file beside the
model for the user's) and checked whenever it is loaded by name.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_her2.errors import ModelError, ModelNameTaken
from napari_her2.models.bundle_card import BUNDLED_FOLDER, SUFFIX, read_card
from napari_her2.outside import Reading, expanded
from napari_her2.own_files import is_plain, private_folder

if TYPE_CHECKING:
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.card import ModelCard

FOLDER_VARIABLE = "NAPARI_HER2_MODELS"
HASH_LIST = "SHA256SUMS"
_HASHES = Reading(limit=2**20, error=ModelError)

Origin = Literal["bundled", "installed", "built in"]


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model that can be loaded by name.

    Parameters
    ----------
    name : str
    path : Path
    card : ModelCard
    origin : str
        "bundled" (comes with the package), "installed" (added by the user) or "built in" (a method that needs
        no file; its path is empty).
    """

    name: str
    path: Path
    card: ModelCard
    origin: Origin


@dataclass(frozen=True, slots=True)
class UnreadableModel:
    """A file among the models that cannot be used, and why."""

    path: Path
    problem: str


@dataclass(frozen=True, slots=True)
class VerifiedModel:
    """A model whose file was read in full and found good.

    Parameters
    ----------
    path : Path
    card : ModelCard
    sha256 : str
        Of the file, worked out now.
    recorded_sha256 : str or None
        Recorded when it came in, and the same; None for a file given by its path.
    parameters : int
        Weights in encoder and head together.
    """

    path: Path
    card: ModelCard
    sha256: str
    recorded_sha256: str | None
    parameters: int


def models_folder() -> Path:
    """Folder of the user's models; the environment variable NAPARI_HER2_MODELS overrides it."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen)
    import platformdirs

    return platformdirs.user_data_path("napari-her2", appauthor=False) / "models"


def list_models() -> list[ModelEntry]:
    """Return the models that can be loaded by name: the package's own first, each group by name.

    Only headers are read. Files that are no models are left out; `unreadable_models` tells of them.
    """
    return [entry for entry in _scan() if isinstance(entry, ModelEntry)]


def unreadable_models() -> list[UnreadableModel]:
    """Return the files among the models that cannot be used, and why."""
    return [entry for entry in _scan() if isinstance(entry, UnreadableModel)]


def load_model(name_or_path: str | Path) -> ModelBundle:
    """Load a model by name, or from a file by its path.

    Parameters
    ----------
    name_or_path : str or Path
        A string that ends in ".safetensors" or holds a path separator is a path.

    Returns
    -------
    ModelBundle

    Raises
    ------
    ModelError
        If there is no such model, or its file is damaged, was changed, or is no model.
    """
    from napari_her2.models.bundle import load_bundle  # PyTorch: only for those who use a model

    path = _as_path(name_or_path)
    if path is not None:
        return load_bundle(path)
    entry = find_model(str(name_or_path))
    return load_bundle(entry.path, expected_sha256=_recorded_hash(entry.path, entry.origin))


def model_file(name_or_path: str | Path) -> Path:
    """Return the file of a model, given by its name or by that file.

    Raises
    ------
    ModelError
        If there is no model of that name.
    """
    return _as_path(name_or_path) or find_model(str(name_or_path)).path


def find_model(name: str) -> ModelEntry:
    """Return the entry of a name; where both have it, the package's own goes first.

    Raises
    ------
    ModelError
        If there is no such model; the message names those there are.
    """
    entries = list_models()
    for entry in entries:
        if entry.name == name:
            return entry
    broken = next((item for item in unreadable_models() if item.path.stem == name), None)
    if broken is not None:
        raise ModelError(broken.problem)
    names = [entry.name for entry in entries]
    near = difflib.get_close_matches(name, names, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    known = f"there are: {', '.join(names)}" if names else "none is installed"
    raise ModelError(
        f"There is no model called {name!r}; {known}.{hint} Add one with `napari-her2 models add FILE`."
    )


def add_model(path: str | Path, *, force: bool = False) -> ModelEntry:
    """Install a model for the user: check it in full, copy it, record its hash.

    Parameters
    ----------
    path : str or Path
    force : bool, default False
        Replace another model of the same name.

    Returns
    -------
    ModelEntry

    Raises
    ------
    ModelError
        If it is no good model, the name is taken, or the folder cannot be written to.
    """
    from napari_her2.models.bundle import load_bundle, take_encoder_along
    from napari_her2.models.weights_file import write_whole

    path = expanded(path)
    bundle = load_bundle(path, encoder_needed=False)
    name = bundle.card.name
    if (BUNDLED_FOLDER / f"{name}{SUFFIX}").exists():
        raise ModelError(
            f"{name!r} is the name of a model that comes with napari-her2: give this one another."
        )
    target = models_folder() / f"{name}{SUFFIX}"
    if target.exists() and not force and _recorded_or_none(target) != bundle.sha256:
        raise ModelNameTaken(
            f"Another model called {name!r} is installed: rename this one, or let it replace the other."
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path} could not be read ({error.strerror or error}): check its rights."
        ) from error
    try:
        private_folder(target.parent)
    except OSError as error:
        raise ModelError(
            f"{target.parent} could not be written to ({error.strerror or error}): set {FOLDER_VARIABLE} to "
            f"another folder."
        ) from error
    if hashlib.sha256(data).hexdigest() != bundle.sha256:
        raise ModelError(f"{path} changed while it was read: try again when nothing writes to it.")
    write_whole(target, data)
    # Last: a copy without its hash is refused, so a crash in between leaves nothing that could be trusted.
    write_whole(_hash_file(target), f"{bundle.sha256}  {target.name}\n".encode())
    take_encoder_along(bundle, target, anew=True)
    # Read back by name: what was written must be what was checked.
    load_bundle(target, expected_sha256=bundle.sha256, encoder_needed=False)
    return ModelEntry(name, target, bundle.card, "installed")


def verify_model(name_or_path: str | Path) -> VerifiedModel:
    """Check a model in full: its hash, its card and every tensor.

    Parameters
    ----------
    name_or_path : str or Path

    Returns
    -------
    VerifiedModel

    Raises
    ------
    ModelError
        With what is wrong.
    """
    from napari_her2.models.bundle import load_bundle

    path = _as_path(name_or_path)
    recorded = None
    if path is None:
        entry = find_model(str(name_or_path))
        path, recorded = entry.path, _recorded_hash(entry.path, entry.origin)
    bundle = load_bundle(path, expected_sha256=recorded)
    parts = [*bundle.head.parameters(), *(bundle.encoder.parameters() if bundle.encoder else ())]
    return VerifiedModel(path, bundle.card, bundle.sha256, recorded, sum(part.numel() for part in parts))


def write_hash_list(folder: Path = BUNDLED_FOLDER) -> None:
    """Record the hashes of the models that come with the package, after one was trained anew."""
    from napari_her2.models.weights_file import read_weights, write_whole

    lines = [f"{read_weights(path).sha256}  {path.name}\n" for path in sorted(folder.glob(f"*{SUFFIX}"))]
    write_whole(folder / HASH_LIST, "".join(lines).encode())


def _scan() -> list[ModelEntry | UnreadableModel]:
    found: list[ModelEntry | UnreadableModel] = []
    folders: tuple[tuple[Path, Origin], ...] = ((BUNDLED_FOLDER, "bundled"), (models_folder(), "installed"))
    for folder, origin in folders:
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            if path.name.startswith(".") or path.stem.endswith(".encoder"):
                continue
            if origin == "installed" and not is_plain(path):
                # The package's own may be links: some installers lay them so.
                found.append(UnreadableModel(path, _not_followed(path)))
                continue
            try:
                card = read_card(path)
            except ModelError as error:
                found.append(UnreadableModel(path, str(error)))
                continue
            found.append(ModelEntry(path.stem, path, card, origin))
    return found


def _not_followed(path: Path) -> str:
    return (
        f"{path.name} in the folder of models is a link or no plain file, and is not read: delete it, and "
        f"add the model itself with `napari-her2 models add FILE`."
    )


def _as_path(name_or_path: str | Path) -> Path | None:
    if isinstance(name_or_path, Path):
        return expanded(name_or_path)
    separators = tuple(mark for mark in (os.sep, os.altsep, "/") if mark)
    if any(mark in name_or_path for mark in separators) or Path(name_or_path).suffix in _FILE_SUFFIXES:
        return expanded(name_or_path)
    return None


# Recognised so that a checkpoint named on the command line is refused as what it is, not as a name.
_FILE_SUFFIXES = {SUFFIX, ".pt", ".pth", ".bin", ".ckpt", ".pkl"}


def _recorded_hash(path: Path, origin: Origin) -> str:
    source = path.with_name(HASH_LIST) if origin == "bundled" else _hash_file(path)
    recorded = _hash_in(source, path.name)
    if recorded is None:
        what = (
            "Reinstall napari-her2."
            if origin == "bundled"
            else f"Add it with `napari-her2 models add {path}`."
        )
        raise ModelError(
            f"The hash of the model {path.stem!r} was never recorded, so it is not trusted. {what}"
        )
    return recorded


def _recorded_or_none(path: Path) -> str | None:
    return _hash_in(_hash_file(path), path.name)


def _hash_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _hash_in(source: Path, name: str) -> str | None:
    """Return the hash of a file in a list as sha256sum writes it, or None."""
    try:
        text = _HASHES.text(source)
    except ModelError:
        return None
    for line in text.splitlines():
        digest, _, listed = line.partition("  ")
        if listed == name and len(digest) == 64:
            return digest
    return None
