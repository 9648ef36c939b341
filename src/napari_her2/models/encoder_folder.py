"""The folder of the user's encoders: weights by name, with what is known of where they came from.

``NAPARI_HER2_ENCODERS`` names it, else it lies in the user's data folder; it can be copied as it is to a
machine without network. Beside ``uni.safetensors`` lies ``uni.json``: the digest of the weights, by which the
card of a model asks for them, and the hub, revision and SHA-256 of the file that they were taken from.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.errors import ModelError, ModelNameTaken
from napari_her2.models.bundle_card import SUFFIX
from napari_her2.models.encoder_contracts import alias_of, contract_of
from napari_her2.outside import Reading, expanded
from napari_her2.own_files import is_plain, private_folder, write_own

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from napari_her2.models.card import EncoderSpec

FOLDER_VARIABLE = "NAPARI_HER2_ENCODERS"
_RECORDS = Reading(limit=2**16, advice="add the encoder again", error=ModelError)


@dataclass(frozen=True, slots=True)
class InstalledEncoder:
    """Weights in the folder of encoders, and the record beside them.

    Parameters
    ----------
    name : str
        As the encoder is called here; that of the file.
    path : Path
        Of the weights.
    digest : str
        Of the weights (`napari_her2.models.weights_file.weights_digest`).
    size : int
        Bytes of the file.
    source : str
        Name of the file that they were taken from.
    source_sha256 : str
        Of that file.
    hub, revision : str
        Where that file was fetched; empty where the user had it.
    added : str
        Date, ISO 8601.
    """

    name: str
    path: Path
    digest: str
    size: int
    source: str = ""
    source_sha256: str = ""
    hub: str = ""
    revision: str = ""
    added: str = ""

    @property
    def provenance(self) -> str:
        """Where the weights came from, as a card says it: "id@revision", or nothing."""
        return f"{self.hub}@{self.revision}" if self.hub and self.revision else ""


def encoders_folder() -> Path:
    """Folder of the user's encoders; the environment variable NAPARI_HER2_ENCODERS overrides it."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(expanded(chosen))
    import platformdirs

    return platformdirs.user_data_path("napari-her2", appauthor=False) / "encoders"


def installed() -> list[InstalledEncoder]:
    """Return the encoders in the folder by name; files without a good record are left out."""
    found = []
    for path in sorted(encoders_folder().glob(f"*{SUFFIX}")):
        if is_plain(path) and not path.name.startswith("."):
            try:
                found.append(_record_of(path))
            except ModelError:
                continue
    return found


def installed_encoder(name: str) -> InstalledEncoder | None:
    """Return the weights of a name, or one of its aliases; None where they are not there."""
    wanted = alias_of(name) or name
    return next((found for found in installed() if found.name == wanted), None)


def installed_weights(name: str) -> InstalledEncoder:
    """Return the weights of an encoder that is known by name.

    Parameters
    ----------
    name : str

    Raises
    ------
    ModelError
        If they are not there; the message says how they are had.
    """
    contract = contract_of(name)
    found = installed_encoder(contract.name)
    if found is None:
        raise ModelError(f"The weights of {contract.title} are not installed. {how_to_get(contract.name)}")
    return found


def find(digest: str) -> Path | None:
    """Return the file of the weights with a digest, or None.

    What a record says is checked by whoever loads the weights.
    """
    wanted = digest.removeprefix("sha256:")
    return next((found.path for found in installed() if found.digest == wanted), None)


def how_to_get(name: str) -> str:
    """Return how the weights of an encoder are had, as a sentence."""
    known = alias_of(name)
    if not known:
        return (
            f"Copy {name}{SUFFIX} and {name}.json from the folder of encoders of the machine where the model "
            f"learnt into {encoders_folder()}."
        )
    contract = contract_of(known)
    terms = f" (gated: accept its terms on {contract.page} first)" if contract.gated else ""
    return (
        f"Fetch them with `napari-her2 encoders fetch {known}`{terms}, or add a file that you have with "
        f"`napari-her2 encoders add FILE --name {known}`."
    )


def add_encoder(
    path: str | Path, name: str, *, force: bool = False, hub: str = "", revision: str = ""
) -> InstalledEncoder:
    """Take the weights of a known encoder into the folder, checked and converted to safetensors.

    Parameters
    ----------
    path : str or Path
        ``.safetensors``, or a checkpoint of PyTorch, which is read for its tensors alone.
    name : str
        Of `napari_her2.models.encoder_contracts`, or an alias.
    force : bool, default False
        Whether other weights of that name are replaced.
    hub, revision : str
        Where the file was fetched.

    Returns
    -------
    InstalledEncoder

    Raises
    ------
    ModelError
        If the file cannot be read, does not hold the weights of this encoder, other weights are installed
        under the name, or the folder cannot be written to.
    """
    from napari_her2.models.known_encoders import check_built_here, published_tensors

    contract = contract_of(name)
    check_built_here(contract)
    source = expanded(path)
    tensors = published_tensors(contract, source)
    try:
        with source.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{source} could not be read ({error.strerror or error}): check it.") from error
    origin = {"source": source.name, "source_sha256": sha256, "hub": hub, "revision": revision}
    return _keep(contract.name, tensors, origin, force=force)


def keep_encoder(
    spec: EncoderSpec, tensors: Mapping[str, Tensor], name: str
) -> tuple[InstalledEncoder, bool]:
    """Keep the weights of an encoder that a model is about to name by their digest.

    Parameters
    ----------
    spec : EncoderSpec
    tensors : mapping of str to Tensor
        Of its backbone.
    name : str
        Under which they are kept where they are not there already: with the beginning of their digest.

    Returns
    -------
    tuple of InstalledEncoder and bool
        Whether they were written now.
    """
    digest = spec.weights.removeprefix("sha256:")
    known = next((found for found in installed() if found.digest == digest), None)
    if known is not None:
        return known, False
    return _keep(f"{name}-{digest[:8]}", tensors, {}, force=True), True


def _keep(
    name: str, tensors: Mapping[str, Tensor], origin: Mapping[str, str], *, force: bool
) -> InstalledEncoder:
    from napari_her2.models.weights_file import weights_digest, write_weights

    digest, path = weights_digest(tensors), encoders_folder() / f"{name}{SUFFIX}"
    present = next((found for found in installed() if found.name == name), None)
    if present is not None and present.digest == digest:
        return present
    if present is not None and not force:
        raise ModelNameTaken(
            f"Other weights of {name} are installed, of {present.added or 'an unknown date'}: models that "
            f"learnt with them would not find theirs."
        )
    try:
        private_folder(path.parent)
        _record_path(path).unlink(missing_ok=True)  # weights without their record are not used
        write_weights(path, tensors, {})
        record = InstalledEncoder(
            name, path, digest, path.stat().st_size, added=datetime.now(UTC).date().isoformat(), **origin
        )
        values = {key: value for key, value in asdict(record).items() if key not in ("name", "path")}
        write_own(_record_path(path), json.dumps(values, indent=2).encode())
    except OSError as error:
        raise ModelError(
            f"{path.parent} could not be written to ({error.strerror or error}): free space, or set "
            f"{FOLDER_VARIABLE} to another folder."
        ) from error
    return record


def _record_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _record_of(path: Path) -> InstalledEncoder:
    """Read the record beside weights, every value a text or a size."""
    values = _RECORDS.json_object(_record_path(path), "digest", "size")
    texts = {item.name for item in fields(InstalledEncoder)} - {"name", "path", "size"}
    kept = {key: value for key, value in values.items() if key in texts and isinstance(value, str)}
    if not isinstance(values["size"], int) or values["size"] != path.stat().st_size:
        raise ModelError(f"{path.name} has not the size of its record: add the encoder again.")
    if "digest" not in kept:
        raise ModelError(f"The record of {path.name} has no digest: add the encoder again.")
    return InstalledEncoder(path.stem, path, size=values["size"], **kept)
