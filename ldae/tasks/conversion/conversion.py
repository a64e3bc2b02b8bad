"""A conversion of published weights: planned and checked, then written."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from ldae.autoencoder import AutoencoderConfig
from ldae.base.files import atomic_folder, check_new_folder, write_json
from ldae.io.card import model_card
from ldae.io.checkpoints import FORMAT_VERSION, WEIGHTS, describe_folder, hash_tensors, load_tensors, stream_tensors
from ldae.io.plain import to_plain
from ldae.io.renaming import Renamed, as_float32
from ldae.models.compression import CompressionConfig
from ldae.models.denoiser import DenoiserConfig

__all__ = ["RECORD", "Conversion", "NetworkConversion", "OfficialConversion"]

RECORD = "conversion.json"


@dataclass(frozen=True)
class Conversion(ABC):
    """Weights that are renamed and checked but not yet written.

    Attributes:
        accounts: destination of every tensor of each file, by kind of network.
        shapes: of every tensor of the result, by name.
        facts: origin of the result, by name.
        computed: tensors of the result that no file holds.
    """

    weights: ClassVar[str]
    accounts: dict[str, Renamed]
    shapes: dict[str, tuple[int, ...]]
    facts: dict[str, str]
    computed: dict[str, Tensor]

    def tensor(self, name: str) -> Tensor:
        """A tensor of the result, float32.

        Raises:
            CheckpointError: if it is not finite.
        """
        if name in self.computed:
            return self.computed[name]
        return as_float32(next(each for each in self.accounts.values() if name in each.tensors), name)

    def record(self) -> dict[str, Any]:
        """The account of every tensor, for a JSON file."""
        return {
            kind: {
                "file": account.file.path.name,
                "sha256": account.file.sha256,
                "used": account.sources,
                "equal_copies": account.equal,
                "recomputed": list(account.recomputed),
                "left_out": account.left_out,
                "beside_the_weights": list(account.file.beside),
                "widened_to_float32": account.widened,
            }
            for kind, account in self.accounts.items()
        }

    @abstractmethod
    def describe(self, folder: Path, sha256: str) -> None:
        """Write the description of the weights, whose file has this hash."""

    def write(self, out: Path, progress: Callable[[int, int], None] | None = None, *, force: bool = False) -> Path:
        """Write weights, their description and conversion.json, an account of every tensor; the whole folder or nothing.

        Args:
            out: new folder.
            progress: called with the number of tensors written and their total.
            force: replace the folder of a former conversion.

        Raises:
            OutputError: if the folder holds something else.
            CheckpointError: if a tensor is not finite.
        """
        done = 0

        def read(name: str) -> Tensor:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, len(self.shapes))
            return self.tensor(name)

        check_new_folder(out, force=force, sign=RECORD)
        with atomic_folder(out) as folder:
            self.describe(folder, stream_tensors(folder / self.weights, self.shapes, read))
            write_json(folder / RECORD, self.record())
        return out


@dataclass(frozen=True)
class OfficialConversion(Conversion):
    """A whole model, as a model folder.

    Attributes:
        config: of the model.
        parameters: count by network.
    """

    weights = WEIGHTS
    config: AutoencoderConfig
    parameters: dict[str, int]

    def describe(self, folder: Path, sha256: str) -> None:
        """Write config and model card."""
        plain = to_plain(self.config)
        origin = "converted by `ldae`\nfrom published checkpoints, whose licence and terms go on holding"
        card = model_card(plain, self.parameters, self.facts, origin=origin, licence="other")
        fingerprint = hash_tensors(load_tensors(folder / WEIGHTS)[0])
        describe_folder(folder, sha256, {"fingerprint": fingerprint, "autoencoder": plain, "facts": self.facts}, card)


@dataclass(frozen=True)
class NetworkConversion(Conversion):
    """One network alone, as its state dict.

    Attributes:
        network: its name in :class:`ldae.networks.Networks`: compression or denoiser.
        config: of the network.
    """

    weights = "weights.safetensors"
    network: str
    config: CompressionConfig | DenoiserConfig

    def describe(self, folder: Path, sha256: str) -> None:
        """Write config.json."""
        config = {self.network: to_plain(self.config), "facts": self.facts}
        write_json(folder / "config.json", {"format": FORMAT_VERSION, "sha256": sha256, **config})

    def tensor(self, name: str) -> Tensor:
        """A tensor of the result by its name inside the network."""
        return super().tensor(f"{self.network}.{name}")
