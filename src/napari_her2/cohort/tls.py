"""Who can reach a cluster: certificates for TLS, and a warning where it is open to the network.

dask runs whatever its network sends, on workers, scheduler and client alike: its messages hold pickles. So
whoever can reach a scheduler or a worker without TLS can run programs there.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - dataclass
from typing import TYPE_CHECKING, Any

from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

_TLS, _WITHIN = "tls", "inproc"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files (PEM) by which this machine and the scheduler know each other.

    Parameters
    ----------
    ca : Path
        Certificate of the authority that signed those of scheduler, workers and client.
    cert : Path
        Of the client.
    key : Path or None
        Of the client; None where it stands in the file of the certificate.
    """

    ca: Path
    cert: Path
    key: Path | None = None


def tls_files(ca: Path | None, cert: Path | None, key: Path | None) -> TlsFiles | None:
    """Put together what a user gave.

    Raises
    ------
    JobFailed
        If something is missing.
    """
    if ca is None and cert is None and key is None:
        return None
    if ca is None or cert is None:
        raise JobFailed("TLS needs the certificate of the authority and one of yours: give both files.")
    return TlsFiles(ca, cert, key)


def security_of(where: str, tls: TlsFiles | None) -> Any:  # noqa: ANN401 - distributed is not typed
    """Return how to connect to a scheduler.

    Parameters
    ----------
    where : str
        Its address.
    tls : TlsFiles or None
        None takes what dask's own configuration says.

    Returns
    -------
    distributed.Security

    Raises
    ------
    JobFailed
        If the address and the certificates do not go together, or these cannot be used.
    """
    from distributed import Security

    encrypted = _scheme(where) == _TLS
    if tls is not None and not encrypted:
        raise JobFailed(
            f"Certificates were given, but {where} is not encrypted: give the tls:// address of it."
        )
    if tls is None:
        security = Security()
        if encrypted and not (security.tls_ca_file and security.tls_client_cert):
            raise JobFailed(
                f"{where} is encrypted: give the certificate of its authority and your own (--tls-ca, "
                f"--tls-cert, --tls-key)."
            )
        return security
    files = {"tls_ca_file": str(tls.ca), "tls_client_cert": str(tls.cert)}
    if tls.key is not None:
        files["tls_client_key"] = str(tls.key)
    security = Security(require_encryption=True, **files)
    try:
        security.get_connection_args("client")
    except OSError as error:  # ssl.SSLError among them
        raise JobFailed(
            f"The certificates cannot be used ({error.strerror or error}): check that {tls.ca}, {tls.cert} "
            f"and the key are PEM files that belong together."
        ) from error
    return security


def open_to_the_network(addresses: Iterable[str]) -> str:
    """Warn of addresses that others than this machine may reach without TLS.

    Parameters
    ----------
    addresses : iterable of str
        "tcp://10.0.0.5:8786"

    Returns
    -------
    str
        Two sentences; empty where there is nothing to say.
    """
    open_ones = [address for address in addresses if not _is_safe(address)]
    if not open_ones:
        return ""
    return (
        f"{open_ones[0]} can be reached over the network without TLS: whoever reaches it can run programs on "
        f"the workers and on this machine, and read the slides. Use TLS (--tls-ca, --tls-cert, --tls-key), "
        f"or let the scheduler listen on 127.0.0.1 alone (dask scheduler --host 127.0.0.1)."
    )


def _is_safe(address: str) -> bool:
    if _scheme(address) in (_TLS, _WITHIN):
        return True
    host = address.partition("://")[2] or address
    # [::1]:8786 and 127.0.0.1:8786
    host = host[1:].partition("]")[0] if host.startswith("[") else host.rpartition(":")[0] or host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _scheme(address: str) -> str:
    scheme, found, _ = address.partition("://")
    return scheme if found else "tcp"
