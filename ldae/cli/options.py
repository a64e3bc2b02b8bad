"""Options that several commands share."""

import re
from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ldae.cli.command import Positional

if TYPE_CHECKING:
    from ldae.autoencoder import LatentDiffusionAutoencoder

__all__ = ["Folder", "Hardware", "Input", "Inputs", "Manifest", "Model", "Workers"]


def folder(text: str | Path) -> Path:
    """A folder, or a name that one can be made under.

    Raises:
        ArgumentTypeError: if it, or what it lies in, is a file.
    """
    path = Path(text)
    there = next((each for each in (path, *path.parents) if each.exists()), None)
    if there is not None and not there.is_dir():
        msg = f"{there} is a file; give a folder"
        raise ArgumentTypeError(msg)
    return path


def process_count(text: str | int) -> int:
    """A number of processes.

    Raises:
        ArgumentTypeError: if it is none, or below 1.
    """
    if not re.fullmatch(r"\d+", str(text)) or int(text) < 1:
        msg = f"needs a whole number of processes, 1 or more, got {text}"
        raise ArgumentTypeError(msg)
    return int(text)


Input = Annotated[Path, Positional()]
Inputs = Annotated[list[Path], Positional()]
Manifest = Annotated[Path, Positional(also="--manifest")]
Folder = Annotated[Path, folder]
Workers = Annotated[int, process_count]


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Where networks run.

    Attributes:
        device: where networks run.
        precision: of matrix products; auto is bf16 where the hardware has it.
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Model(Hardware):
    """A trained model.

    Attributes:
        model: model folder, as 'ldae fit' or 'ldae demo' writes it.
        sampling: KEY=VALUE settings of how noise codes are found and decoded, if not in the model's own way, such as
            solver=bdia steps=10 corrections=3 guidance=1.5.
    """

    model: Path
    sampling: list[str] | None = None

    def load(self) -> "LatentDiffusionAutoencoder":
        """The model, sampling as it is told to.

        Raises:
            ConfigError: for a setting that is not one.
        """
        from ldae.autoencoder import LatentDiffusionAutoencoder

        model = LatentDiffusionAutoencoder.from_pretrained(self.model, device=self.device, precision=self.precision)
        return model.with_sampling(self.sampling) if self.sampling else model
