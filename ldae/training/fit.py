"""One stage from data to saved weights: plan, train or resume, keep the averaged weights."""

import json
import logging
import os
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, Timer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from ldae.base.files import own_json, write_json
from ldae.base.hardware import (
    Device,
    PeakMemory,
    Precision,
    choose_device,
    choose_precision,
    compiled,
    release_memory,
)
from ldae.base.ranks import barrier, from_first, rank, share_batch_norms, world
from ldae.errors import TrainingError
from ldae.io.checkpoints import hash_tensors, load_tensors, save_tensors
from ldae.io.plain import drop_removed
from ldae.training.batches import StageDataModule
from ldae.training.callbacks import ExponentialMovingAverage, Progress, ProgressCallback, ResumeCheckpoint, SliceImages
from ldae.training.loop import StageLoop
from ldae.training.plan import Place, Plan, plan_stage
from ldae.training.stage import Stage

__all__ = [
    "FitSettings",
    "StageRecord",
    "finished_weights",
    "fit_stage",
    "keep_measured",
    "start_stage",
]

log = logging.getLogger(__name__)

WEIGHTS = "weights.safetensors"
RECORD = "stage.json"
INPUTS = "inputs.json"
RESUME = "resume.ckpt"


@dataclass(frozen=True)
class FitSettings:
    """Place, device and progress of a run; of these only precision changes what is learnt.

    Attributes:
        run: the run folder.
        device: where.
        precision: of matrix work.
        progress: called at every step.
        announce: called with each stage's plan before it trains.
        preparing: called with (what, done, total) while scans or latents are made ready.
        finished: called with (stage, its record) for each stage that a former session has finished.
        force: train stages again that were started with other inputs.
    """

    run: Path
    device: Device = "auto"
    precision: Precision = "auto"
    progress: Progress | None = None
    announce: Callable[[Plan], None] | None = None
    preparing: Callable[[str, int, int], None] | None = None
    finished: "Callable[[str, StageRecord], None] | None" = None
    force: bool = False


@dataclass(frozen=True)
class StageRecord:
    """Record of a finished stage, kept beside its weights.

    Attributes:
        fingerprint: hash of the weights.
        seconds: of training in all sessions, with validations; measuring latents and saving come on top.
        steps: trained.
        losses: last of each.
        plan: what was expected.
        memory_gib: peak while it trained in the last session; None for a run of before it was recorded.
    """

    fingerprint: str
    seconds: float
    steps: int
    losses: dict[str, float]
    plan: dict[str, Any]
    memory_gib: float | None = None


def start_stage(folder: Path, inputs: dict[str, Any], *, force: bool = False) -> None:
    """Claim a stage's folder for these inputs.

    Args:
        folder: of the stage.
        inputs: everything the result depends on.
        force: delete a stage with other inputs.

    Raises:
        TrainingError: if the folder holds a stage with other inputs.
    """
    path = folder / INPUTS
    inputs = json.loads(json.dumps(inputs))
    if path.is_file():
        former = own_json(path)
        # Stages that were begun before these were noted.
        former = {"images": inputs.get("images")} | former if "images" in inputs else former
        if "modality" in inputs.get("preprocessing", {}):
            former["preprocessing"] = {"modality": "T1w"} | former.get("preprocessing", {})
        if "semantic_encoder" in former.get("stage", {}):
            former["stage"]["semantic_encoder"].setdefault("whitening_of", "all")
            drop_removed(former["stage"])
        changed = sorted(key for key in former.keys() | inputs.keys() if former.get(key) != inputs.get(key))
        if changed and not force:
            msg = (
                f"{folder} holds a stage that was started otherwise (changed: {', '.join(changed)}); "
                "give another run folder with --out, or --force to train again"
            )
            raise TrainingError(msg)
        if changed:
            shutil.rmtree(folder)
    write_json(path, inputs)


def finished_weights(folder: Path) -> tuple[dict[str, Tensor], StageRecord] | None:
    """Weights and record of a finished stage, or None."""
    if not (folder / RECORD).is_file():
        return None
    record = StageRecord(**own_json(folder / RECORD, "fingerprint", "seconds", "steps", "losses", "plan"))
    tensors, _ = load_tensors(folder / WEIGHTS)
    if hash_tensors(tensors) != record.fingerprint:
        msg = f"{folder / WEIGHTS} is not what {RECORD} describes; delete {folder} to train that stage again"
        raise TrainingError(msg)
    return tensors, record


def fit_stage(
    name: str,
    stage: Stage,
    data: StageDataModule,
    folder: Path,
    settings: FitSettings,
    *,
    pictures: Callable[[], Tensor] | None = None,
    finish: Callable[[], dict[str, Tensor]],
) -> StageRecord:
    """Train a stage, or go on where a killed run stopped; then save its averaged weights.

    Args:
        name: of the stage.
        stage: to train.
        data: its batches.
        folder: of the stage.
        settings: of the run.
        pictures: draws validation images for the log.
        finish: called with the averaged weights in place; returns the tensors to save.
    """
    device = choose_device(settings.device)
    dtype = choose_precision(settings.precision, device)
    share_batch_norms(stage)
    data.start = lambda: stage.steps_done
    scans = len(data.train), len(data.validation)  # type: ignore[arg-type]
    shapes = {key: tuple(value.shape) for key, value in data.train[0].items() if isinstance(value, Tensor)}
    plan = plan_stage(name, stage, shapes, scans, Place(device, dtype, world()))
    if settings.announce is not None:
        settings.announce(plan)
    config = stage.optimisation
    average = ExponentialMovingAverage(stage.averaged(), config.ema_decay)
    resume = folder / RESUME
    timer = Timer()
    validate_every = min(config.validate_every, config.steps)
    checkpoints = ResumeCheckpoint(resume, config.checkpoint_every, validate_every)
    callbacks: list[Callback] = [average, timer]
    if config.patience:
        callbacks.append(EarlyStopping("validation/loss", patience=config.patience))
    callbacks.append(checkpoints)  # after all whose state it saves
    if settings.progress is not None:
        callbacks.append(ProgressCallback(name, settings.progress))
    if pictures is not None:
        callbacks.append(SliceImages(pictures))
    board = [TensorBoardLogger(folder, name="tensorboard")] if find_spec("tensorboard") else []  # of an extra
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*|Grad strides do not match")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        trainer = Trainer(
            max_epochs=1,
            accelerator={"cpu": "cpu", "cuda": "gpu", "mps": "mps"}[device.type],
            devices=int(os.environ["LOCAL_WORLD_SIZE"]) if world() > 1 else 1,
            num_nodes=world() // int(os.environ["LOCAL_WORLD_SIZE"]) if world() > 1 else 1,
            strategy=DDPStrategy(find_unused_parameters=True, broadcast_buffers=False) if world() > 1 else "auto",
            use_distributed_sampler=False,
            precision="bf16-mixed" if dtype == torch.bfloat16 else "32-true",
            val_check_interval=validate_every,
            log_every_n_steps=max(1, config.steps // 200),
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=[CSVLogger(folder, name="logs"), *board],
            callbacks=callbacks,
        )
        release_memory()
        networks = stage.called() if config.compile else []
        with PeakMemory(device) as memory, _interruptible(trainer), compiled(networks):
            trainer.fit(StageLoop(stage), data, ckpt_path=resume if resume.is_file() else None, weights_only=True)
    stage.eval()
    average.keep()
    from_first(stage)
    with torch.no_grad():
        tensors = {key: value.detach().clone() for key, value in finish().items()}
    record = StageRecord(
        hash_tensors(tensors), timer.time_elapsed(), stage.steps_done, checkpoints.losses, asdict(plan), memory.peak_gib
    )
    _leave(folder, tensors, record)
    if not rank():
        resume.unlink(missing_ok=True)
    return record


@contextmanager
def _interruptible(trainer: Trainer) -> Iterator[None]:
    """Let Ctrl-C be the KeyboardInterrupt that it is: Lightning ignores further signals and leaves with exit code 1."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if trainer.interrupted:
            raise KeyboardInterrupt from error
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
    if trainer.interrupted:
        raise KeyboardInterrupt


def keep_measured(folder: Path, tensors: dict[str, Tensor]) -> StageRecord:
    """Save a stage that has nothing to learn, only something to measure."""
    record = StageRecord(hash_tensors(tensors), seconds=0.0, steps=0, losses={}, plan={})
    _leave(folder, tensors, record)
    return record


def _leave(folder: Path, tensors: dict[str, Tensor], record: StageRecord) -> None:
    """Save what a finished stage leaves; the record comes last, as it says that the weights are whole."""
    if not rank():
        save_tensors(folder / WEIGHTS, tensors)
        write_json(folder / RECORD, asdict(record))
    barrier()
