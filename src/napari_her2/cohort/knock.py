"""Knocking at the door of a scheduler before dask does.

dask waits without end for one that takes the connection and stays silent, and neither can be cancelled
meanwhile nor tells a closed port from a slow network. Here a scheduler that is started together with its
client is waited for a little, a silent one for a minute, and both can be cancelled.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from concurrent.futures import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_her2.cohort.outcome import CohortProgress
from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from collections.abc import Generator

    from tornado.ioloop import IOLoop

    Steps = Generator[CohortProgress, None, None]

LISTENS_WITHIN_S = 10.0
"""A scheduler that is started at the same time as its client takes seconds to begin."""
_KNOCK_S = 1.0
_POLL_S = 0.25
_STAGE = "Waiting for the scheduler"
_GIVE = "tcp://host:8786, or tls://host:8786 and its certificates"


def listening(address: str) -> Generator[CohortProgress, None, str]:
    """Wait until something listens where a scheduler should.

    Parameters
    ----------
    address : str
        Of the scheduler, or the file (.json) that it writes.

    Yields
    ------
    CohortProgress
        While nothing does.

    Returns
    -------
    str
        The address of the scheduler itself.

    Raises
    ------
    JobFailed
        If nothing does after `LISTENS_WITHIN_S`. Whatever else goes wrong (a slow network, another protocol)
        is found when it is spoken to.
    """
    ends = time.monotonic() + LISTENS_WITHIN_S
    while True:
        where, problem = _knock(address)
        if not problem:
            return where
        if time.monotonic() >= ends:
            raise JobFailed(
                f"No dask scheduler runs at {address}, for {problem}: check the address ({_GIVE}), and start "
                f"the scheduler first."
            )
        yield CohortProgress(_STAGE, note=address)
        time.sleep(_POLL_S)


def answering(
    where: str,
    loop: IOLoop,
    security: Any,  # noqa: ANN401 - distributed is not typed
    patience_s: float,
) -> Steps:
    """Wait until a scheduler answers in the words of dask.

    Parameters
    ----------
    where : str
        Its address.
    loop : IOLoop
        That runs in another thread.
    security : distributed.Security
    patience_s : float

    Yields
    ------
    CohortProgress
        While it does not. Closing the generator gives up.

    Raises
    ------
    JobFailed
        If it stays silent.
    OSError, ValueError, TypeError
        If it cannot be spoken to.
    """
    room: asyncio.AbstractEventLoop = loop.asyncio_loop  # type: ignore[attr-defined]  # of each that runs
    call = asyncio.run_coroutine_threadsafe(_greet(where, security, patience_s), room)
    ends = time.monotonic() + patience_s
    try:
        while not wait([call], _POLL_S).done:
            if time.monotonic() >= ends:
                raise JobFailed(
                    f"No dask scheduler answers at {where} within {patience_s:g} s: check the address "
                    f"({_GIVE}), and that the scheduler runs."
                )
            yield CohortProgress(_STAGE, note=where)
        call.result()
    finally:
        call.cancel()


async def _greet(where: str, security: Any, patience_s: float) -> None:  # noqa: ANN401
    from distributed.comm import connect

    comm = await connect(where, timeout=patience_s, **security.get_connection_args("client"))
    await comm.close()


def _knock(address: str) -> tuple[str, str]:
    """Return where the scheduler is, and why nothing can be there yet; empty where something may be."""
    from distributed.comm.addressing import parse_address, parse_host_port

    try:
        # Read here, and each time again: distributed would wait for an absent file for ever.
        is_file = address.endswith(".json")
        where = str(json.loads(Path(address).read_text("utf-8"))["address"]) if is_file else address
    except OSError as error:
        return "", f"this file cannot be read ({error.strerror or error})"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", "this file does not hold its address"
    protocol, place = parse_address(where)
    if protocol in ("tcp", "tls"):
        try:
            socket.create_connection(parse_host_port(place), timeout=_KNOCK_S).close()
        except ConnectionRefusedError:
            return where, "the connection was refused"
        except OSError:
            pass
    return where, ""
