"""Several processes that learn together: the first prepares, judges and writes, the others only fit.

Nothing here imports PyTorch before several are wanted. The first starts those of its machine with the command
line of the same training, unless torchrun or the scheduler of a cluster started all of them. They are
connected at the first gate: what is wrong with configuration or manifest is named before that, once.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

from napari_her2.errors import Her2Error, JobFailed, JobStopped

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    import torch

    from napari_her2.steps import Progress
    from napari_her2_training.config_sections import ComputeConfig

T = TypeVar("T")
# Where Lightning, torchrun and the schedulers of clusters write the number of a process or of its machine.
_NUMBERS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
_OF_MACHINE = ("LOCAL_RANK", "SLURM_LOCALID", "JSM_NAMESPACE_LOCAL_RANK")
_PARTNER = "NAPARI_HER2_PARTNER"
"""Set in processes that the first one started: their standard input ends when it does."""
_SET = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", "OMP_NUM_THREADS")
"""Set here or by Lightning for as long as processes learn together."""
_FOREVER = timedelta(days=365)
"""The others wait as long as the first embeds a cohort."""
_SECONDS_TO_NOTICE, _SECONDS_TO_END = 15.0, 60.0
_PIECE = 2**26


class _Link:
    """The processes of one training, as one of them knows them.

    Parameters
    ----------
    compute : ComputeConfig
    command : sequence of str
        Arguments of ``napari-her2`` that start the same training.
    """

    def __init__(self, compute: ComputeConfig, command: Sequence[str]) -> None:
        self.first = all(os.environ.get(name, "0") == "0" for name in _NUMBERS)
        self.lost = threading.Event()
        self.alone = False
        self._over = threading.Event()
        self._compute, self._command = compute, command
        self._partners: list[subprocess.Popen[bytes]] = []
        self._watches: list[threading.Thread] = []
        self._group: torch.distributed.ProcessGroup | None = None
        self._before = {name: os.environ.get(name) for name in _SET}

    @property
    def group(self) -> torch.distributed.ProcessGroup:
        """The gate, in main memory whatever the network learns on; connected when first asked for."""
        if self._group is None:
            self._connect()
        return cast("torch.distributed.ProcessGroup", self._group)

    def _connect(self) -> None:
        import torch
        from lightning.fabric import Fabric
        from lightning.fabric.strategies import DDPStrategy

        from napari_her2.inference.device import choose_device

        hush_lightning()
        self._threads = torch.get_num_threads()
        kind = choose_device(self._compute.device).torch_device.type
        fabric = Fabric(
            accelerator=kind,
            devices=self._compute.devices or "auto",
            num_nodes=self._compute.nodes,
            strategy=DDPStrategy(),
        )
        environment = fabric.strategy.cluster_environment
        if not environment.creates_processes_externally:
            os.environ |= {
                "MASTER_ADDR": environment.main_address,
                "MASTER_PORT": str(environment.main_port),
                "NODE_RANK": str(environment.node_rank()),
                "LOCAL_RANK": "0",
            }
            self._start(len(fabric.strategy.parallel_devices))
        elif os.environ.get(_PARTNER):
            self._watch(sys.stdin.buffer.read)
        self._join(fabric.launch)
        group = torch.distributed.new_group(backend="gloo", timeout=_FOREVER)
        self._group = cast("torch.distributed.ProcessGroup", group)

    def _join(self, launch: Callable[[], object]) -> None:
        """Connect with the others; one that ended before it did so is not waited for."""
        failed: list[Exception] = []

        def join() -> None:
            try:
                launch()
            except Exception as error:  # noqa: BLE001 - raised below
                failed.append(error)

        thread = threading.Thread(target=join, name="napari-her2 connection", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.2)
            if self.lost.is_set():
                raise self.why()
        if failed:
            raise failed[0]

    def _start(self, processes: int) -> None:
        for number in range(1, processes):
            partner = subprocess.Popen(
                [sys.executable, "-m", "napari_her2", *self._command],
                env=os.environ | {"LOCAL_RANK": str(number), _PARTNER: "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
            self._partners.append(partner)
            self._watch(partner.wait)

    def _watch(self, until_it_ends: Callable[[], object]) -> None:
        def watch() -> None:
            until_it_ends()
            self.lost.set()
            # GPUs wait for one another without end, and no error of that reaches Python.
            if not self._over.wait(_SECONDS_TO_END):
                sys.stderr.write(f"napari-her2: {self.why()}\n")
                os._exit(1)

        self._watches.append(threading.Thread(target=watch, name="napari-her2 partner", daemon=True))
        self._watches[-1].start()

    def why(self) -> Her2Error:
        """Tell why this process ends when another one has."""
        if self.first:
            return JobFailed(
                "Another of the processes that learn together has ended before the training did. Go on with "
                "--resume."
            )
        return JobStopped("The first of the processes that learn together has ended.")

    def close(self) -> None:
        """Let the others go; those that do not end by themselves are ended."""
        self._over.set()
        if self._group is not None:
            import torch

            torch.distributed.destroy_process_group()
            torch.set_num_threads(self._threads)
        for partner in self._partners:
            if partner.stdin is not None:
                partner.stdin.close()
            try:
                partner.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                partner.kill()
        # A thread that wakes while Python shuts down would abort it.
        for thread in self._watches:
            thread.join(_SECONDS_TO_END if self.lost.is_set() or self.first else 1.0)
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def hush_lightning() -> None:
    """Let Lightning keep to itself how it goes about it."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)


_link: _Link | None = None


@contextmanager
def together(compute: ComputeConfig, command: Sequence[str]) -> Iterator[None]:
    """Let several processes learn together for as long as a training runs, where its configuration wants it.

    Parameters
    ----------
    compute : ComputeConfig
    command : sequence of str
        Arguments of ``napari-her2`` that start the same training.
    """
    global _link
    if compute.devices == 1 and compute.nodes == 1:
        yield
        return
    _link = _Link(compute, command)
    try:
        yield
    finally:
        link, _link = _link, None
        link.close()


def with_others(steps: Generator[Progress, None, T]) -> Generator[Progress, None, T]:
    """Run the steps of a training that end, in plain words, when another of its processes has ended.

    Returns
    -------
    object
        What the steps return, once all processes are done.

    Raises
    ------
    JobFailed
        If another process has ended before.
    """
    link = _link
    if link is None:
        return (yield from steps)
    try:
        while True:
            try:
                progress = next(steps)
            except StopIteration as end:
                wait()
                return cast("T", end.value)
            if link.lost.is_set():
                raise link.why()
            yield progress
    except RuntimeError as error:  # of the connection, or of the work itself
        if not link.lost.wait(_SECONDS_TO_NOTICE):
            raise
        raise link.why() from error
    finally:
        steps.close()


def is_first() -> bool:
    """Whether this process prepares, judges and writes; one that learns alone always does."""
    return _link is None or _link.first


def own_number() -> int:
    """Return the number of this process among those of its machine that learn together: its device's."""
    if _link is None:
        return 0
    return next((int(os.environ[name]) for name in _OF_MACHINE if name in os.environ), 0)


def wait() -> None:
    """Wait until all processes are here."""
    if _link is not None:
        import torch

        torch.distributed.barrier(group=_link.group)


@contextmanager
def first_alone() -> Iterator[bool]:
    """Let the first process run a block while the others wait; then they run it too.

    What the first one leaves on disk, features in the cache or images in a folder, the others find there. In
    such a block others are as good as none.

    Yields
    ------
    bool
        Whether this process is the first: what only one is to do asks for it.
    """
    link = _link
    if link is None or link.alone:
        yield True
    elif link.first:
        link.alone = True
        try:
            yield True
        finally:
            link.alone = False
        wait()
    else:
        wait()
        yield False


def from_first(value: T) -> T:
    """Give all processes what the first one has.

    Parameters
    ----------
    value : object
        That of the first counts; it can be pickled.
    """
    if _link is None or _link.alone:
        return value
    import torch

    group, first = _link.group, _link.first
    content = pickle.dumps(value) if first else b""
    size = torch.tensor(len(content))
    torch.distributed.broadcast(size, 0, group=group)
    whole = (
        torch.frombuffer(bytearray(content), dtype=torch.uint8) if first else torch.empty(int(size)).byte()
    )
    for piece in torch.split(whole, _PIECE):
        torch.distributed.broadcast(piece, 0, group=group)
    return value if first else cast("T", pickle.loads(whole.numpy().tobytes()))


def in_order(value: torch.Tensor) -> Sequence[torch.Tensor]:
    """Return a value of the batch of each process, in the order of the batches.

    Parameters
    ----------
    value : Tensor
        Of one shape in all processes.
    """
    if _link is None:
        return [value]
    import torch

    found = [torch.empty_like(value) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(found, value)
    return found
