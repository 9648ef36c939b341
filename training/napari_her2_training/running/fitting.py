"""The Lightning trainer of every step: quiet, the same batches when resumed, best and last epoch kept."""

from __future__ import annotations

import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy

from napari_her2.errors import JobFailed
from napari_her2.models.shortage import is_out_of_memory, release
from napari_her2.steps import Progress
from napari_her2_training.running.learner import EpochBatches, Learner
from napari_her2_training.running.machines import Machines
from napari_her2_training.running.ranks import hush_lightning, wait
from napari_her2_training.running.shortage import halve, shortage_named
from napari_her2_training.running.steps import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from napari_her2.inference.device import Device
    from napari_her2_training.running.task import Task


_PRECISION: dict[torch.dtype | None, str] = {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}


def fit_steps(
    task: Task, folder: Path, device: Device, *, stage: str, resume: bool
) -> Generator[Progress, None, None]:
    """Train a task; afterwards it holds the weights of its best epoch, frozen and on the CPU.

    Parameters
    ----------
    task : Task
    folder : Path
        For the checkpoints: best.ckpt and last.ckpt.
    device : Device
    stage : str
        Named in the progress.
    resume : bool
        Go on from last.ckpt where there is one.

    Yields
    ------
    Progress
        After every batch.

    Raises
    ------
    JobFailed
        If no epoch had a measure to be chosen by, or memory is too short for a batch.
    """
    yield from in_thread(lambda report: _fit(task, folder, device, report, stage=stage, resume=resume))


def _fit(
    task: Task,
    folder: Path,
    device: Device,
    report: Callable[[Progress], None],
    *,
    stage: str,
    resume: bool,
) -> None:
    task.prepare()
    if task.channels_last:
        task.to(memory_format=torch.channels_last)
    if task.whole and isinstance(device, Machines) and not device.alone:
        _freeze_unmoved(task.to(device.torch_device))
    last, best = folder / "last.ckpt", folder / "best.ckpt"
    go_on, others = resume and last.exists(), _written(last)
    with shortage_named(task, device, stage, begun=True):
        # Kept where a step may have to be made again from the beginning.
        before = None if go_on or task.most_parts == 1 else _copied(task)
        while True:
            shortage = _try(task, folder, device, report, stage=stage, resume=go_on)
            if shortage is None:
                break
            if not halve(task, shortage, device):
                raise shortage
            release(device.torch_device)
            go_on = go_on or _written(last) != others  # not that of another run
            if not go_on and before is not None:
                task.load_state_dict(before)
    wait()
    if not best.exists():
        raise JobFailed(f"{stage} ended without a usable epoch: lower the learning rate.")
    task.cpu().load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
    task.requires_grad_(False).eval()


def _try(
    task: Task,
    folder: Path,
    device: Device,
    report: Callable[[Progress], None],
    *,
    stage: str,
    resume: bool,
) -> BaseException | None:
    """Fit a task, from last.ckpt if so wished; return the error if memory was too short for a step."""
    last = folder / "last.ckpt"
    keeper = (_LastOfBest if task.ties == "last" else _Keeper)(
        dirpath=folder, filename="best", monitor=task.monitor, mode=task.mode, enable_version_counter=False
    )
    # After the other, so that what it knows of the best epoch is in the file.
    latest = ModelCheckpoint(
        dirpath=folder, filename="last", save_top_k=1, every_n_epochs=1, enable_version_counter=False
    )
    stopping = [_Patience(task)] if task.patience else []
    # Its count of epochs is in the checkpoint of the epoch, so it comes before what writes that.
    trainer = _trainer(task, device, [*stopping, keeper, latest, _Reporter(task, stage, report)])
    learner = Learner(task)
    with warnings.catch_warnings(), closing(EpochBatches(learner, device.torch_device)) as batches:
        # Batches are drawn ahead by a thread of ours: workers would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        # One process judges, and all have what it measured.
        warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
        # Blocks that do not learn keep their running statistics.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        # The newest PyTorch has another name for it, which those before do not know.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
        # Lightning 2.6 asks PyTorch about trees in a way that PyTorch 2.15 deprecates.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        try:
            trainer.fit(
                learner,
                batches,
                [0],  # the learner draws what it judges, all of it in one step
                ckpt_path=str(last) if resume else None,
                weights_only=True,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # Without its frames, which hold the tensors of the step.
            return error.with_traceback(None)
    return None


def _written(file: Path) -> int:
    """When a file was written, nanoseconds; 0 where there is none."""
    return file.stat().st_mtime_ns if file.exists() else 0


def _copied(task: Task) -> dict[str, torch.Tensor]:
    """Return a copy of the weights, in main memory."""
    return {key: value.detach().to("cpu", copy=True) for key, value in task.state_dict().items()}


def _freeze_unmoved(task: Task) -> None:
    """Freeze what the loss leaves out: several processes would wait for its gradient."""
    learnt = [parameter for parameter in task.parameters() if parameter.requires_grad]
    batch = task.draw(0, 0)
    loss = task.eval().loss(*(part.to(learnt[0].device) for part in batch))
    for parameter, gradient in zip(learnt, torch.autograd.grad(loss, learnt, allow_unused=True), strict=True):
        parameter.requires_grad_(gradient is not None)
    task.train()


def _trainer(task: Task, device: Device, callbacks: list[Callback]) -> lightning.Trainer:
    hush_lightning()
    kind = device.torch_device.type
    low = device.autocast_dtype
    arguments: dict[str, Any] = {"accelerator": kind, "devices": 1}
    if isinstance(device, Machines) and not device.alone:
        arguments |= {
            "devices": device.devices or "auto",
            "num_nodes": device.nodes,
            "strategy": DDPStrategy(
                find_unused_parameters=device.strategy.endswith("_true") or not task.whole,
                broadcast_buffers=False,  # the learner joins what follows the batches
            ),
        }
    elif kind == "cuda":
        arguments["devices"] = [device.torch_device.index or 0]
    return lightning.Trainer(
        **arguments,
        precision=_PRECISION.get(low, "32-true"),
        max_epochs=task.epochs,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # batches are shared out by their numbers
        gradient_clip_val=task.clip,
        accumulate_grad_batches=task.accumulate,
        callbacks=callbacks,
    )


class _Keeper(ModelCheckpoint):
    """Knows the best epoch still after its folder was moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what a checkpoint says of the best epoch; its file lies beside it, wherever that is."""
        here = Path(str(self.dirpath))
        moved = dict(state_dict, dirpath=str(here))
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            if moved.get(name):
                moved[name] = str(here / Path(moved[name]).name)
        known = moved.get("best_k_models", {})
        moved["best_k_models"] = {str(here / Path(path).name): score for path, score in known.items()}
        super().load_state_dict(moved)


class _Patience(EarlyStopping):
    """Ends learning after so many epochs that were no better; a resumed run does not begin another one."""

    def __init__(self, task: Task) -> None:
        super().__init__(
            task.monitor, mode=task.mode, patience=task.patience, min_delta=0.0, check_finite=False
        )

    def on_train_start(self, trainer: lightning.Trainer, *_: object) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class _LastOfBest(_Keeper):
    """Keeps the last of equally good epochs."""

    def check_monitor_top_k(self, trainer: lightning.Trainer, current: torch.Tensor | None = None) -> bool:
        best = self.best_model_score
        equal = current is not None and best is not None and bool(torch.eq(current, best))
        return equal or bool(super().check_monitor_top_k(trainer, current))


def _parts_in_words(task: Task) -> str:
    return f"memory is short: each batch in {task.parts} parts" if task.parts > 1 else ""


class _Reporter(Callback):
    def __init__(self, task: Task, stage: str, report: Callable[[Progress], None]) -> None:
        self.task = task
        self.stage = stage
        self.report = report
        self.note, self.epoch = _parts_in_words(task), 0
        self.losses: list[torch.Tensor] = []

    def on_train_epoch_start(self, *_: object) -> None:
        self.losses.clear()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        if isinstance(outputs, dict) and "loss" in outputs:
            # Lightning has divided it. Kept where it is: to read each one would wait for the GPU.
            self.losses.append(outputs["loss"].detach() * self.task.accumulate)
        many = trainer.world_size
        self._report_progress(trainer.current_epoch * self.task.train_batches + many * (batch_idx + 1))

    def on_validation_end(self, trainer: lightning.Trainer, *_: object) -> None:
        shown = ", ".join(f"{name} {float(value):.3f}" for name, value in trainer.callback_metrics.items())
        self.note = f"epoch {trainer.current_epoch + 1} of {self.task.epochs}: {shown}"
        self.note += f"; {parts}" if (parts := _parts_in_words(self.task)) else ""
        self.epoch = trainer.current_epoch + 1
        values: dict[str, float] = {}
        if self.losses:
            values["train_loss"] = float(torch.stack(self.losses).float().mean())
        values |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._report_progress((trainer.current_epoch + 1) * self.task.train_batches, values)

    def _report_progress(self, done: int, values: Mapping[str, float] | None = None) -> None:
        total = self.task.epochs * self.task.train_batches
        epochs = {"epoch": self.epoch, "epochs": self.task.epochs}
        self.report(Progress(self.stage, done, total, "batches", self.note, values or {}, **epochs))
