"""Options that several commands share, and earlier names of options, which work for one version more."""

import re
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ldae.base.files import check_writable
from ldae.base.part import Part
from ldae.base.ranges import SEEDS, Range
from ldae.cli.console import progress_bar, say, say_reasons
from ldae.errors import OutputError, TaskError
from ldae.io.model_names import DEFAULT_MODEL

if TYPE_CHECKING:
    from ldae.autoencoder import LatentDiffusionAutoencoder
    from ldae.contract import Preprocessing
    from ldae.data.manifest import Manifest as Cohort
    from ldae.data.manifest import Record
    from ldae.prepare.preprocess.intake import OpenedScans
    from ldae.tasks.encoded_scans import EncodedScans
    from ldae.tasks.native.spaces import Space

__all__ = [
    "RENAMED_COMMANDS",
    "RENAMED_OPTIONS",
    "Count",
    "Folder",
    "Hardware",
    "Input",
    "Inputs",
    "Manifest",
    "Model",
    "Output",
    "PartOf",
    "PlacedScans",
    "Positional",
    "ScanFiles",
    "Scans",
    "Seed",
    "checked_folder",
    "folder",
    "open_scans",
    "writable",
]

RENAMED_COMMANDS: dict[tuple[str, ...], tuple[str, ...]] = {("diagnose",): ("code-usage",)}
"""Words of a command: earlier, now."""

PEOPLE = {"--split": "--people"}
RENAMED_OPTIONS: dict[str, dict[str, str]] = {
    "cohort split": {"--overwrite": "--force"},
    "probe": {"--codes": "", "--subjects": "--people", "--model": "--probe"},
    "reconstruct": PEOPLE,
    "code-usage": PEOPLE,
    "discover": PEOPLE,
    "interpolate subject": PEOPLE,
    "interpolate evaluate": PEOPLE,
    "manipulate": {**PEOPLE, "--probe": "--direction"},
    "export dicom": {"--reference": "--like"},
    "convert official": {"--decoder": "", "--encoder": "", "--autoencoder": ""},
    "convert autoencoder": {"--weights": ""},
}
"""Options of each command: earlier, now; an empty name is a positional argument."""


@dataclass(frozen=True)
class Positional:
    """Marks a parameter, in `Annotated`, that is given without an option's name, or after one, such as `--manifest`."""

    also: str | None = None


def writable(text: str | Path) -> Path:
    """A file's or folder's name, where something can be written.

    Raises:
        ArgumentTypeError: if nothing can, or a file lies in the way.
    """
    path = Path(text)
    try:
        check_writable(path.parent if path.is_file() else path)
    except OutputError as error:
        raise ArgumentTypeError(str(error)) from error
    return path


def folder(text: str | Path) -> Path:
    """A folder, or a name that one can be made under.

    Raises:
        ArgumentTypeError: if it, or what it lies in, is a file, or nothing can be written there.
    """
    path = Path(text)
    if path.is_file():
        msg = f"{path} is a file; give a folder"
        raise ArgumentTypeError(msg)
    return writable(path)


def part(text: str | Part) -> Part:
    """A part K/N.

    Raises:
        ArgumentTypeError: if it is none.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", str(text))
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        msg = f"must be K/N, part K of 1 to N, such as 3/10, got {text}"
        raise ArgumentTypeError(msg)
    return Part(int(found[1]), int(found[2]))


def checked_folder(path: Path) -> Path:
    """The same, where a name may also be a file's.

    Raises:
        TaskError: if it, or what it lies in, is a file.
    """
    try:
        return folder(path)
    except ArgumentTypeError as error:
        raise TaskError(str(error)) from error


Input = Annotated[Path, Positional()]
Inputs = Annotated[list[Path], Positional()]
Manifest = Annotated[Path, Positional(also="--manifest")]
ScanFiles = Annotated[list[Path], Positional(also="--manifest")]
Folder = Annotated[Path, folder]
Output = Annotated[Path, writable]
PartOf = Annotated[Part | None, part]
Count = Annotated[int, Range(1)]
Seed = Annotated[int, SEEDS]


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Device and precision of networks.

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
        model: model folder, as 'ldae fit' or 'ldae demo' writes it; or the name of a model of this package; or
            owner/name@revision on the Hugging Face hub.
        sampling: KEY=VALUE settings of how noise codes are found and decoded, if not in the model's own way, such as
            solver=bdia steps=10 corrections=3 guidance=1.5.
    """

    model: str = DEFAULT_MODEL
    sampling: list[str] | None = None

    @cached_property
    def loaded(self) -> "LatentDiffusionAutoencoder":
        """The model itself, with the sampling options applied.

        Raises:
            ConfigError: for a setting that is not one.
        """
        return self._load(semantic_only=False)

    @cached_property
    def encoder(self) -> "LatentDiffusionAutoencoder":
        """The model with what semantic codes need, and no more."""
        return self._load(semantic_only=True)

    def _load(self, *, semantic_only: bool) -> "LatentDiffusionAutoencoder":
        from ldae.autoencoder import LatentDiffusionAutoencoder

        model = LatentDiffusionAutoencoder.from_pretrained(
            self.model, device=self.device, precision=self.precision, semantic_only=semantic_only
        )
        return model.with_sampling(self.sampling) if self.sampling else model


def open_scans(
    model: Model, scans: Sequence[Path], out: Path, *, workers: int, semantic_only: bool = False
) -> "OpenedScans":
    """Scans that a model can read; raw ones are preprocessed into `out`/prepared, at the voxel size of the model."""
    from ldae.prepare.preprocess import intake

    def contract() -> "Preprocessing":  # a model that cannot be loaded is refused before anything is preprocessed
        return (model.encoder if semantic_only else model.loaded).config.preprocessing

    with progress_bar("preprocess") as move:
        opened = intake.open_scans(scans, out, contract=contract, workers=workers, progress=move)
    if opened.preprocessed:
        say(f"raw scans that were preprocessed: {opened.preprocessed}")
    for key, reasons in opened.warnings.items():
        say(f"look at {key}: {'; '.join(reasons)}")
    return opened


@dataclass(frozen=True, kw_only=True)
class Scans(Model):
    """Scans of a manifest, encoded by a model.

    Attributes:
        scans: manifest of preprocessed scans (TSV or CSV); or image files or a BIDS folder, which are preprocessed where they
            are raw.
        people: whose scans; the test subjects where the manifest has a split, else all.
        out: folder of the results.
        seed: of everything drawn.
        workers: processes that preprocess.
        strict: refuse scans whose header contradicts itself, instead of a warning.
        force: take scans that are no T1-weighted brain in template space too.
    """

    scans: ScanFiles
    people: Literal["train", "validation", "test", "all"] | None = None
    out: Folder
    seed: Seed = 0
    workers: Count = 1
    strict: bool = False
    force: bool = False

    @cached_property
    def manifest(self) -> "Cohort":
        """The manifest, or that of the image files."""
        opened = open_scans(self, self.scans, self.out, workers=self.workers)
        say_reasons("left out", opened.failures)
        return opened.manifest

    def records(self, subject: str | None = None) -> "tuple[Record, ...]":
        """The chosen rows of the manifest, or those of one subject.

        Raises:
            TaskError: if there is no such subject.
        """
        manifest = self.manifest
        people = self.people or ("test" if subject is None and manifest.table["split"].notna().any() else "all")
        records = manifest.records if people == "all" else manifest.in_split(people).records
        if subject is None:
            return records
        if chosen := tuple(record for record in records if record.participant_id == subject):
            return chosen
        msg = f"{manifest.path}: no subject {subject!r}; it holds {', '.join(manifest.subjects[:5])}, ..."
        raise TaskError(msg)

    def open(
        self, subject: str | None = None, *, noise: bool = True, round_trip: bool = False
    ) -> "tuple[LatentDiffusionAutoencoder, EncodedScans]":
        """The model, and the chosen scans with their codes.

        Args:
            subject: whose scans alone.
            noise: find the noise codes too, which takes longest.
            round_trip: measure what the noise codes lose, of which an edit warns.
        """
        from ldae.tasks.encode import encode_scans

        records = self.records(subject)
        model = self.loaded
        failures: dict[str, str] = {}
        forced: dict[str, str] | None = {} if self.force else None
        with progress_bar("encode") as move:
            scans = encode_scans(model, records, failures=failures, forced=forced, progress=move)
        say_reasons("left out", failures)
        say_reasons("encoded all the same", forced or {})
        if not noise:
            return model, scans
        with progress_bar("invert") as move:
            return model, scans.with_noise(model, round_trip=round_trip, progress=move)


@dataclass(frozen=True, kw_only=True)
class PlacedScans(Scans):
    """Scans whose results are images.

    Attributes:
        space: template writes images on the model's grid in MNI152; native adds the change to the raw scan that 'ldae cohort
            preprocess' was given.
    """

    space: Literal["template", "native"] = "template"

    def records(self, subject: str | None = None) -> "tuple[Record, ...]":
        """The chosen rows, each with file names of its own, and a way back to native space if images are written there."""
        from ldae.tasks.native.spaces import check_names, check_way_back

        records = super().records(subject)
        check_names(records)
        if self.space == "native":
            check_way_back(records)
        return records

    def place(self, model: "LatentDiffusionAutoencoder") -> "Space":
        """The space of the results, whose folder is a BIDS data set."""
        from ldae.io.bids import describe_results
        from ldae.tasks.native.spaces import open_space

        describe_results(self.out)
        return open_space(self.space, model)
