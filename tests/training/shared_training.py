"""Trains each stage on random scans in float64, in as many processes as were started, and saves its weights.

Run as `python -m tests.training.shared_training FOLDER DEVICE STEPS DIE STAGE...`; the second process ends itself at step DIE.
On a CPU everything is in float64.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from ldae.base.launch import launch
from ldae.base.ranks import join
from ldae.config import load_experiment
from ldae.networks import Networks
from ldae.training.batches import StageDataModule
from ldae.training.fit import FitSettings, fit_stage
from ldae.training.recipe import ExperimentConfig, build_stage, scan_shapes

SETTINGS = (
    "preprocessing={shape: [16, 16, 16], voxel_size_mm: 9.0}",
    "compression.model={channels: [4, 4], latent_channels: 2, residual_blocks: 1, groups: 2}",
    "compression.loss.adversarial=0.1",
    "compression.discriminator={width: 4, layers: 1}",
    "denoiser.model={width: 32, multipliers: [1], residual_blocks: 1, attention_levels: [], dropout: 0.0}",
    "representation.semantic_encoder={slices: null, volume: {widths: [4], semantic_width: 4}}",
    "representation.image_noise=0.1",
)


class Scans(Dataset):
    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        generator = torch.Generator().manual_seed(1)
        self.items = [
            {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
            | {"key": str(index), "subject": str(index)}
            for index in range(6)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, object]:
        return self.items[index[0] if isinstance(index, tuple) else index]


def config(steps: int, **optimisation: int) -> ExperimentConfig:
    """Three small stages in batches of four, with batch norms in the discriminator and the encoder."""
    found = load_experiment("quick", SETTINGS)
    changes = {"steps": steps, "batch_size": 4, "validate_every": 10, "checkpoint_every": 3, **optimisation}
    stages = {
        name: replace(stage, optimisation=replace(stage.optimisation, **changes))
        for name in ("compression", "denoiser", "representation")
        for stage in [getattr(found, name)]
    }
    return replace(found, **stages)


def train(
    folder: Path,
    name: str,
    experiment: ExperimentConfig,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    stop: int = -1,
    die: int = -1,
) -> dict[str, torch.Tensor]:
    """Train a stage; its weights, and the averages of them in a folder of its name."""
    torch.manual_seed(0)
    stage = build_stage(name, experiment, Networks(experiment.autoencoder))
    scans = Scans(scan_shapes(experiment, stage))
    optimisation = stage.optimisation
    data = StageDataModule(scans, scans, batch_size=4, steps=optimisation.steps, seed=0, parts=optimisation.accumulate)

    def progress(_: str, done: int, *__: object) -> None:
        if done == stop:
            raise KeyboardInterrupt
        if done == die and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGKILL)

    settings = FitSettings(folder, device=device, precision=precision, progress=progress)
    fit_stage(name, stage, data, folder / name, settings, finish=stage.averaged().state_dict)
    return stage.state_dict()


def together(folder: Path, processes: int, steps: int, *stages: str, die: int = -1, device: str = "cpu") -> int:
    """Exit code of training in several processes."""
    words = [str(folder), device, str(steps), str(die), *stages]
    return launch([sys.executable, "-m", "tests.training.shared_training", *words], processes)


@contextmanager
def double_precision() -> Iterator[None]:
    """Everything in float64, in which Adam does not make much of the last digits of a gradient that is nearly zero."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


if __name__ == "__main__":
    folder, device, steps, die, *stages = sys.argv[1:]
    join(torch.device(device))
    with double_precision() if device == "cpu" else nullcontext():
        for each in stages:
            train(Path(folder), each, config(int(steps)), device=device, die=int(die))
