"""A conversion that is planned and checked, and how it is written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ldae.autoencoder import AutoencoderConfig
from ldae.errors import CheckpointError
from ldae.io.card import model_card
from ldae.io.checkpoints import FORMAT_VERSION, WEIGHTS, describe_folder, stream_tensors
from ldae.io.files import atomic_folder, write_json
from ldae.io.plain import to_plain
from ldae.io.renaming import Renamed, as_float32
from ldae.models.compression import CompressionConfig

__all__ = ["AutoencoderConversion", "Conversion", "OfficialConversion", "unused_folder"]


@dataclass(frozen=True)
class Conversion:
    """Weights that are renamed and checked but not yet written.

    Attributes:
        accounts: where every tensor of each file goes, by kind of network.
        shapes: of every tensor of the result, by name.
        facts: what the result should tell of where it comes from.
        computed: tensors of the result that no file holds.
    """

    accounts: dict[str, Renamed]
    shapes: dict[str, tuple[int, ...]]
    facts: dict[str, str]
    computed: dict[str, Tensor]

    def tensor(self, name: str) -> Tensor:
        """A tensor of the result, float32 and finite.

        Raises:
            CheckpointError: if it is not finite.
        """
        if name in self.computed:
            return self.computed[name]
        return as_float32(next(each for each in self.accounts.values() if name in each.tensors), name)

    def record(self) -> dict[str, Any]:
        """The account of every tensor, for a JSON file."""
        return {kind: _record(account) for kind, account in self.accounts.items()}

    def stream(self, path: Path, progress: Callable[[int, int], None] | None = None) -> str:
        """Write the weights, one tensor at a time; returns the file's hash."""
        done = 0

        def read(name: str) -> Tensor:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, len(self.shapes))
            return self.tensor(name)

        return stream_tensors(path, self.shapes, read)


@dataclass(frozen=True)
class OfficialConversion(Conversion):
    """A whole model.

    Attributes:
        config: of the model.
        parameters: count by network.
    """

    config: AutoencoderConfig
    parameters: dict[str, int]

    def write(self, out: Path, progress: Callable[[int, int], None] | None = None) -> Path:
        """Write the model folder, whole or not at all.

        Raises:
            CheckpointError: if the folder holds something already, or a tensor is not finite.
        """
        plain = to_plain(self.config)
        card = model_card(
            plain,
            self.parameters,
            self.facts,
            origin="converted by `ldae`\nfrom published checkpoints, whose licence and terms go on holding",
            licence="other",
        )
        with atomic_folder(unused_folder(out)) as folder:
            sha256 = self.stream(folder / WEIGHTS, progress)
            describe_folder(folder, sha256, {"autoencoder": plain, "facts": self.facts}, card)
            write_json(folder / "conversion.json", self.record())
        return out


@dataclass(frozen=True)
class AutoencoderConversion(Conversion):
    """A compression autoencoder alone.

    Attributes:
        config: of the network.
    """

    config: CompressionConfig

    def write(self, out: Path, progress: Callable[[int, int], None] | None = None) -> Path:
        """Write weights.safetensors (the state dict of a `CompressionAutoencoder`) and config.json, or nothing.

        Raises:
            CheckpointError: if the folder holds something already, or a tensor is not finite.
        """
        with atomic_folder(unused_folder(out)) as folder:
            sha256 = self.stream(folder / "weights.safetensors", progress)
            config = {"compression": to_plain(self.config), "facts": self.facts}
            write_json(folder / "config.json", {"format": FORMAT_VERSION, "sha256": sha256, **config})
            write_json(folder / "conversion.json", self.record())
        return out

    def tensor(self, name: str) -> Tensor:
        """A tensor of the result by its name inside the compression autoencoder."""
        return super().tensor(f"compression.{name}")


def _record(account: Renamed) -> dict[str, Any]:
    return {
        "file": account.file.path.name,
        "sha256": account.file.sha256,
        "used": account.sources,
        "equal_copies": account.equal,
        "recomputed": list(account.recomputed),
        "left_out": account.left_out,
        "beside_the_weights": list(account.file.beside),
        "widened_to_float32": account.widened,
    }


def unused_folder(out: Path) -> Path:
    """The folder, which must not hold anything yet.

    Raises:
        CheckpointError: if it does.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"{out}: there is something already; give a new folder with --out"
        raise CheckpointError(msg)
    return out
