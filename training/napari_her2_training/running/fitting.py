"""The Lightning trainer of every step: quiet, the same batches when resumed, best and last epoch kept."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader, Sampler

from napari_her2.errors import JobFailed
from napari_her2.inference.result import Progress
from napari_her2_training.running.machines import Machines, own_share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from napari_her2.inference.device import Device


Model = TypeVar("Model", bound=torch.nn.Module)
_PRECISION: dict[torch.dtype | None, str] = {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}


@dataclass(frozen=True, slots=True)
class Fit:
    """What one fit is asked to do.

    Parameters
    ----------
    stage : str
        For a person.
    folder : Path
        For best.ckpt and last.ckpt.
    epochs : int
    train_batches, validation_batches : int
        Batches an epoch. The module itself draws batch number i of an epoch, so that a resumed run sees
        what an uninterrupted one would.
    monitor : str
        The logged value by which the best epoch is chosen.
    mode : str
        "min" or "max".
    accumulate : int
        Batches a step of the optimiser.
    clip : float or None
        Largest norm of the gradient. Methods of papers that clip nothing give None, or name it under
        "Differences from the paper".
    ties : str
        Which of equally good epochs is kept, the "first" or the "last".
    """

    stage: str
    folder: Path
    epochs: int
    train_batches: int
    validation_batches: int
    monitor: str
    mode: str
    accumulate: int = 1
    clip: float | None = 1.0
    ties: str = "first"


def fit(
    module: lightning.LightningModule,
    wanted: Fit,
    device: Device,
    report: Callable[[Progress], None],
    *,
    resume: bool,
) -> dict[str, torch.Tensor]:
    """Fit a module and return the weights of its best epoch.

    Parameters
    ----------
    module : LightningModule
    wanted : Fit
    device : Device
    report : callable
        Called with a Progress after every batch.
    resume : bool
        Go on from last.ckpt where there is one.

    Returns
    -------
    mapping of str to Tensor
        State of the module at its best epoch, on the CPU.
    """
    last, best = wanted.folder / "last.ckpt", wanted.folder / "best.ckpt"
    keeper = (_LastOfBest if wanted.ties == "last" else _Keeper)(
        dirpath=wanted.folder,
        filename="best",
        monitor=wanted.monitor,
        mode=wanted.mode,
        enable_version_counter=False,
    )
    # After the other, so that what it knows of the best epoch is in the file.
    latest = ModelCheckpoint(
        dirpath=wanted.folder, filename="last", save_top_k=1, every_n_epochs=1, enable_version_counter=False
    )
    trainer = _trainer(wanted, device, [keeper, latest, _Reporter(wanted, report)])
    with warnings.catch_warnings():
        # Batches are drawn from memory: workers would only copy it.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        # Lightning 2.6 asks PyTorch about trees in a way that PyTorch 2.15 deprecates.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        trainer.fit(
            module,
            DataLoader(range(wanted.train_batches), batch_size=None, sampler=_Share(wanted.train_batches)),  # type: ignore[arg-type]
            # All of them in every process: the best epoch is chosen by what all of them say together.
            DataLoader(range(wanted.validation_batches), batch_size=None),  # type: ignore[arg-type]
            ckpt_path=str(last) if resume and last.exists() else None,
            weights_only=True,
        )
    trainer.strategy.barrier()
    if not best.exists():
        raise JobFailed(f"{wanted.stage} ended without a usable epoch: lower the learning rate.")
    state: dict[str, torch.Tensor] = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
    return state


def at_best(model: Model, state: Mapping[str, torch.Tensor], name: str) -> Model:
    """Give a part of a module the weights that it had at the best epoch.

    Parameters
    ----------
    model : nn.Module
    state : mapping of str to Tensor
        Of the whole module; see `fit`.
    name : str
        What the module calls the part.

    Returns
    -------
    nn.Module
        The part itself: on the CPU, frozen, for judging.
    """
    start = f"{name}."
    own = {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
    model.cpu().load_state_dict(own)
    return model.requires_grad_(False).eval()


class _Share(Sampler[int]):
    """Numbers of the batches that this process learns from; the module draws the batches by them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        return iter(own_share(self.count))

    def __len__(self) -> int:
        return len(own_share(self.count))


def _trainer(wanted: Fit, device: Device, callbacks: list[Callback]) -> lightning.Trainer:
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    kind = device.torch_device.type
    low = device.autocast_dtype
    arguments: dict[str, Any] = {"accelerator": kind, "devices": 1}
    if isinstance(device, Machines) and not device.alone:
        arguments |= {
            "devices": device.devices or "auto",
            "num_nodes": device.nodes,
            "strategy": device.strategy,
        }
    elif kind == "cuda":
        arguments["devices"] = [device.torch_device.index or 0]
    return lightning.Trainer(
        **arguments,
        precision=_PRECISION.get(low, "32-true"),
        max_epochs=wanted.epochs,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # batches are shared out by their numbers
        gradient_clip_val=wanted.clip,
        accumulate_grad_batches=wanted.accumulate,
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


class _LastOfBest(_Keeper):
    """Keeps the last of equally good epochs."""

    def check_monitor_top_k(self, trainer: lightning.Trainer, current: torch.Tensor | None = None) -> bool:
        best = self.best_model_score
        equal = current is not None and best is not None and bool(torch.eq(current, best))
        return equal or bool(super().check_monitor_top_k(trainer, current))


class _Reporter(Callback):
    def __init__(self, wanted: Fit, report: Callable[[Progress], None]) -> None:
        self.wanted = wanted
        self.report = report
        self.note = ""
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
            self.losses.append(outputs["loss"].detach() * self.wanted.accumulate)
        many = trainer.world_size
        self._tell(trainer.current_epoch * self.wanted.train_batches + many * (batch_idx + 1))

    def on_validation_end(self, trainer: lightning.Trainer, *_: object) -> None:
        shown = ", ".join(f"{name} {float(value):.3f}" for name, value in trainer.callback_metrics.items())
        self.note = f"epoch {trainer.current_epoch + 1} of {self.wanted.epochs}: {shown}"
        values = {"epoch": trainer.current_epoch + 1.0}
        if self.losses:
            values["train_loss"] = float(torch.stack(self.losses).float().mean())
        values |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._tell((trainer.current_epoch + 1) * self.wanted.train_batches, values)

    def _tell(self, done: int, values: Mapping[str, float] | None = None) -> None:
        total = self.wanted.epochs * self.wanted.train_batches
        self.report(Progress(self.wanted.stage, done, total, "batches", self.note, values or {}))
