"""The one Lightning module: order, seeds, drawing ahead, loss, judging and the state of checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning
import torch

from napari_her2.inference.prefetch import prefetched
from napari_her2_training.running.draws import seed_of
from napari_her2_training.running.machines import own_share
from napari_her2_training.running.normalisation import RunningStatistics
from napari_her2_training.running.ranks import from_first, in_order, is_first

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from napari_her2_training.running.task import Batch, Task

_TASK = "task."


class Learner(lightning.LightningModule):
    """Lets Lightning train a task."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self._statistics: RunningStatistics | None = None

    def training_step(self, batch: tuple[int, Batch], _: int) -> Tensor:
        """Return the loss of a batch; its dropout follows from seed, epoch and number as all else does."""
        number, tensors = batch
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed_of(self.task.seed, self.task.stream, self.current_epoch, number))
            return self.task.loss(*tensors)

    def on_train_batch_start(self, *_: object) -> None:
        """Remember the running statistics that this batch moves."""
        if self.trainer.world_size > 1:
            self._statistics = RunningStatistics(self.task)

    def on_train_batch_end(self, *_: object) -> None:
        """Take along what follows the batches, as one process that had seen all of them would."""
        if self._statistics is not None:
            self._statistics.join()
        self.task.follow(in_order)

    def validation_step(self, *_: object) -> None:
        """Let the first process judge all validation batches, and log the measures of the epoch."""
        measured = self._measured() if is_first() else {}
        self.log_dict(from_first(measured), batch_size=1)

    def _measured(self) -> dict[str, float]:
        task = self.task
        source = ((n, task.draw_validation(n)) for n in range(task.validation_batches))
        with prefetched(pinned(source, self.device)) as ahead:
            judged = [task.judge(*self.transfer_batch_to_device(batch, self.device, 0)) for _, batch in ahead]
        return task.measures(judged)

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - what Lightning takes
        """Those of the task."""
        return self.task.optimiser()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write the state of the task under its own names."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key.removeprefix(_TASK): value for key, value in state.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read what `on_save_checkpoint` wrote."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {f"{_TASK}{key}": value for key, value in state.items()}


class EpochBatches:
    """What this process learns from in an epoch: its batches with their numbers, drawn ahead in a thread.

    Parameters
    ----------
    learner : Learner
    device : torch.device
        To which the batches go.
    """

    def __init__(self, learner: Learner, device: torch.device) -> None:
        self._learner, self._device = learner, device
        self._open: Iterator[tuple[int, Batch]] | None = None

    def __len__(self) -> int:
        return len(own_share(self._learner.task.train_batches))

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        self.close()
        self._open = self._batches()
        return self._open

    def close(self) -> None:
        """Stop drawing."""
        if self._open is not None:
            self._open.close()  # type: ignore[attr-defined]

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        task, epoch = self._learner.task, self._learner.current_epoch
        source = ((number, task.draw(epoch, number)) for number in own_share(task.train_batches))
        with prefetched(pinned(source, self._device)) as ahead:
            yield from ahead


def pinned(batches: Iterator[tuple[int, Batch]], device: torch.device) -> Iterator[tuple[int, Batch]]:
    """Lay batches where a GPU fetches them by itself, while it computes."""
    for number, batch in batches:
        yield number, tuple(part.pin_memory() for part in batch) if device.type == "cuda" else batch
