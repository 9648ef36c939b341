"""Weights of encoders from the hub, on the user's word alone: looked up first, then fetched and checked.

What is fetched is one file at one commit. It lies beside the folder of encoders until it is whole and its
SHA-256 is the one that the hub states, so that an end in the midst leaves nothing half, and the next fetch
goes on where it ended. The commit is kept with the weights; where the contract names one, no other is taken.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from napari_her2.errors import ModelError
from napari_her2.models.encoder_folder import (
    FOLDER_VARIABLE,
    InstalledEncoder,
    add_encoder,
    encoders_folder,
    installed_encoder,
)
from napari_her2.models.known_encoders import check_built_here
from napari_her2.models.weights_header import MAX_FILE_BYTES
from napari_her2.number_words import size_in_words
from napari_her2.outside import shown
from napari_her2.own_files import private_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_her2.models.encoder_contracts import EncoderContract

_USUAL = ("model.safetensors", "pytorch_model.bin")
_SCRATCH = ".fetching"
_BLOCK = 2**20


@dataclass(frozen=True, slots=True)
class Offer:
    """A file of weights on the hub, before it is fetched.

    Parameters
    ----------
    contract : EncoderContract
    revision : str
        Commit.
    file : str
    size : int
        Bytes.
    sha256 : str
        As the hub states it; empty where it does not.
    """

    contract: EncoderContract
    revision: str
    file: str
    size: int
    sha256: str = ""


def look_up(contract: EncoderContract, revision: str = "", *, force: bool = False) -> Offer:
    """Ask the hub which file holds the weights of an encoder, and how large it is; nothing is fetched.

    Parameters
    ----------
    contract : EncoderContract
    revision : str
        Another commit, branch or tag than the one that is meant.
    force : bool
        Whether another one than the pinned may be taken.

    Returns
    -------
    Offer

    Raises
    ------
    ModelError
        If the hub cannot be reached, does not give the weights, or another revision was asked for.
    """
    check_built_here(contract)
    if contract.built_by == "torchvision":
        raise ModelError(
            f"{contract.title} is built by torchvision, which fetches its ImageNet weights itself from where "
            f'PyTorch keeps them, when you ask for it: [encoder] weights = "pretrained" in a training, or '
            f"`napari-her2 embed --encoder {contract.name} --pretrained`."
        )
    if not contract.hub:
        raise ModelError(
            f"{contract.title} is published nowhere: add a file with `napari-her2 encoders add`."
        )
    present = installed_encoder(contract.name)
    pinned = contract.revision or ("" if present is None else present.revision)
    if revision and pinned and revision != pinned and not force:
        raise ModelError(
            f"{contract.title} means the weights of revision {pinned[:12]}, and {shown(revision, 40)} is "
            f"another: features of both do not go together. Take it all the same with --force."
        )
    found = _asked(
        lambda hub: _model_info(hub, contract.hub, revision or pinned), contract, revision or pinned
    )
    commit = str(found.sha or "")
    files = {item.rfilename: item for item in found.siblings or ()}
    name = next((name for name in (*contract.files, *_USUAL) if name in files), None)
    if name is None or not commit:
        raise ModelError(
            f"{contract.hub} holds no weights that could be taken ({', '.join(_USUAL)}): look at its page, "
            f"{contract.page}, and add the file with `napari-her2 encoders add FILE --name {contract.name}`."
        )
    size, lfs = int(files[name].size or 0), files[name].lfs
    if not 0 < size <= MAX_FILE_BYTES:
        raise ModelError(
            f"{name} of {contract.hub} has {size:,} bytes, which no encoder has: check its page."
        )
    return Offer(contract, commit, name, size, str(lfs.sha256) if lfs is not None else "")


def fetch_offer(
    offer: Offer, *, force: bool = False, report: Callable[[int, int], None] | None = None
) -> InstalledEncoder:
    """Fetch a file of weights and take it into the folder of encoders.

    Parameters
    ----------
    offer : Offer
    force : bool
        Whether other weights of that name are replaced.
    report : callable, optional
        Called with the bytes that are here and those of the file; what it raises ends the fetch.

    Returns
    -------
    InstalledEncoder

    Raises
    ------
    ModelError
        If it cannot be fetched whole, is not what the hub states, or does not hold this encoder.
    """
    scratch = encoders_folder() / _SCRATCH / f"{offer.contract.name}-{offer.revision[:12]}"
    try:
        private_folder(scratch)
        _check_space(scratch, offer)
    except OSError as error:
        raise _unwritable(error) from error
    path = _asked(lambda hub: _downloaded(hub, offer, scratch, report), offer.contract, offer.revision)
    try:
        _check_fetched(path, offer)
    except ModelError:
        shutil.rmtree(scratch, ignore_errors=True)  # what is damaged is not gone on with
        raise
    kept = add_encoder(
        path, offer.contract.name, force=force, hub=offer.contract.hub, revision=offer.revision
    )
    shutil.rmtree(scratch, ignore_errors=True)
    return kept


def latest_commit(contract: EncoderContract) -> str:
    """Ask the hub for the commit of what an encoder is published as now, or the pinned one.

    Raises
    ------
    ModelError
        If the hub cannot be reached, or does not show it.
    """
    found = _asked(lambda hub: _model_info(hub, contract.hub, contract.revision), contract, contract.revision)
    return str(found.sha)


def fetch_encoder(contract: EncoderContract) -> InstalledEncoder:
    """Look up and fetch the weights of an encoder, where a configuration asks for public ones."""
    return fetch_offer(look_up(contract))


def _model_info(hub: Any, repository: str, revision: str) -> Any:  # noqa: ANN401 - of the hub's library
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    return api.model_info(repository, revision=revision or None, files_metadata=True, timeout=30)


def _downloaded(
    hub: Any,  # noqa: ANN401 - of the hub's library
    offer: Offer,
    scratch: Path,
    report: Callable[[int, int], None] | None,
) -> Path:
    """Fetch a file, going on with what is there of it.

    The library finds it, and knows who asks; it begins anew after every end, so the bytes are read here.
    """
    endpoint = os.environ.get("HF_ENDPOINT") or None
    url = hub.hf_hub_url(offer.contract.hub, offer.file, revision=offer.revision, endpoint=endpoint)
    place = hub.get_hf_file_metadata(url, timeout=30).location
    path = scratch / Path(offer.file).name
    part = path.with_name(f"{path.name}.part")
    have = part.stat().st_size if part.exists() else 0
    # The token is for the hub alone, not for where it keeps its files.
    same = urlsplit(place).netloc == urlsplit(url).netloc
    headers = dict(hub.utils.build_hf_headers()) if same else {}
    if 0 < have < offer.size:
        headers["Range"] = f"bytes={have}-"
    if have != offer.size:
        request = Request(place, headers=headers)
        with urlopen(request, timeout=60) as answer, part.open("ab" if answer.status == 206 else "wb") as out:
            while block := answer.read(_BLOCK):
                out.write(block)
                if report is not None:
                    report(out.tell(), offer.size)
            have = out.tell()
    if have < offer.size:
        raise ConnectionError(f"it ended after {size_in_words(have)} of {size_in_words(offer.size)}")
    part.replace(path)
    return path


def _asked(ask: Callable[[Any], Any], contract: EncoderContract, revision: str) -> Any:  # noqa: ANN401
    """Ask the hub, and say in words what it refuses."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise ModelError(
            "Fetching needs huggingface_hub, which is not installed: pip install huggingface_hub, or add a "
            f"file with `napari-her2 encoders add FILE --name {contract.name}`."
        ) from error
    try:
        return ask(huggingface_hub)
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{contract.title} is given to those who accepted its terms: do that on {contract.page}, then "
            f"log in with `hf auth login` or set HF_TOKEN, and fetch again."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"{contract.hub} has no revision {shown(revision, 60)!r}: leave --revision out, or look at its "
            f"page."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"The hub does not show {contract.hub}: it was renamed, or is for those alone who are logged in. "
            f"Look at {contract.page}, log in with `hf auth login`, and fetch again."
        ) from error
    except ModelError:
        raise
    except OSError as error:
        if error.errno in (28, 122, 13, 30):  # no space, no quota, no right, read-only
            raise _unwritable(error) from error
        raise _unreachable(contract, error) from error
    except Exception as error:  # the network libraries below raise types of their own
        raise _unreachable(contract, error) from error


def _unreachable(contract: EncoderContract, error: BaseException) -> ModelError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160].rstrip(".")
    return ModelError(
        f"The hub could not be reached for {contract.title} ({reason}): check the network and fetch again, "
        f"which goes on where it ended, or fetch the file elsewhere and add it with `napari-her2 encoders "
        f"add FILE --name {contract.name}`."
    )


def _unwritable(error: OSError) -> ModelError:
    return ModelError(
        f"{encoders_folder()} could not be written to ({error.strerror or error}): free space, or set "
        f"{FOLDER_VARIABLE} to another folder; the next fetch goes on where this one ended."
    )


def _check_space(folder: Path, offer: Offer) -> None:
    """Refuse what would not fit: the file itself, and the weights as they are kept."""
    free = shutil.disk_usage(folder).free
    if free < 2 * offer.size:
        raise ModelError(
            f"The weights of {offer.contract.title} take {size_in_words(2 * offer.size)} while they are "
            f"checked, and {size_in_words(free)} are free in {encoders_folder()}: make room, or set "
            f"{FOLDER_VARIABLE} to another folder."
        )


def _check_fetched(path: Path, offer: Offer) -> None:
    """Refuse a file that is not the one that the hub states."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
        size = file.tell()
    if size != offer.size or (offer.sha256 and digest.hexdigest() != offer.sha256):
        raise ModelError(
            f"{offer.file} of {offer.contract.hub} did not arrive as it is published ({size:,} bytes, "
            f"SHA-256 {digest.hexdigest()[:12]}): fetch it again."
        )
