"""The run folder as the report reads it: results, provenance, stages, images; what is absent comes with its reason."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldae.data.manifest import Manifest, read_manifest
from ldae.errors import ManifestError, TaskError
from ldae.report.blocks import Absence
from ldae.report.plots.chart import Series
from ldae.report.plots.slice_panels import Array, Cut, choose_cuts
from ldae.report.source import RENAMED, Source, json_or_none

__all__ = ["STAGES", "RunFolder", "open_run", "read_history"]

Images = npt.NDArray[np.float16]

RESULTS = "results.json"
STAGES = {
    "compression": "1 Compression autoencoder",
    "denoiser": "2 Denoiser",
    "representation": "3 Semantic encoder",
}


@dataclass(frozen=True, eq=False)
class RunFolder:
    """Run folder.

    Attributes:
        path: of the folder.
        documents: content of every JSON file that is there, by its path inside the folder.
    """

    path: Path
    documents: Mapping[str, Any]

    @property
    def results(self) -> Source:
        """The file results.json."""
        return self._source(RESULTS)

    @property
    def provenance(self) -> Source:
        """The file run.json: configuration, cohort table, versions, seed."""
        return self._source("run.json")

    def task(self, name: str) -> Source:
        """The file `tasks/NAME.json`, under its former name in folders of earlier versions."""
        paths = [f"tasks/{each}.json" for each in (name, RENAMED.get(name, name))]
        return self._source(next((path for path in paths if path in self.documents), paths[0]))

    def stage(self, name: str) -> Source:
        """The file `STAGE/stage.json`."""
        return self._source(f"{name}/stage.json")

    def _source(self, name: str) -> Source:
        return Source(name, self.documents.get(name))

    def missing(self, name: str, reason: str) -> Absence:
        """The recorded reason why a task was skipped; another reason if it was not."""
        recorded = self.results.get("skipped", name)
        return Absence(reason if recorded is None else f"This part was skipped: {recorded}.".replace("..", "."))

    def images(self, task: str, *names: str) -> dict[str, Images] | Absence:
        """Arrays of `tasks/TASK.npz`, or why they cannot be shown.

        Args:
            task: whose images.
            names: of the arrays that are needed.
        """
        name = f"tasks/{task}.npz"
        path = self.path / name
        if not path.is_file():
            return Absence(f"There are no pictures: {name} is not in the run folder; run 'ldae study' to make it.")
        try:
            with np.load(path, allow_pickle=False) as arrays:
                absent = [each for each in names if each not in arrays.files]
                if absent:
                    return Absence(f"There are no pictures: {name} lacks {', '.join(absent)}; run 'ldae study' again.")
                return {each: arrays[each] for each in names}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            return Absence(f"There are no pictures: {name} cannot be read ({error}); run 'ldae study' again.")

    def incomplete(self, task: str) -> Absence:
        """The notice that a task's file does not fit its images."""
        name = self.task(task).name
        return Absence(f"There are no pictures: {name} is missing or does not fit the images; run 'ldae study' again.")

    def cuts(self, volume: Array, *planes: Any) -> list[Cut]:
        """Sections of a volume of the run, all three planes if none is named; in millimetres where the grid is known."""
        return choose_cuts(volume.shape, *([planes] if planes else []), **self.preprocessing)

    def losses(self, stage: str) -> list[Series] | Absence:
        """Training and validation loss of a stage by step, or why there are none."""
        if not (self.path / stage / "logs").is_dir():
            return Absence(f"{STAGES[stage]}: no training log is in this run folder.")
        table = read_history(self.path / stage)
        series = []
        for split, name, marks in (("train", "training", "line"), ("validation", "validation", "both")):
            column = f"{split}/loss"
            rows = table[["step", column]].dropna() if column in table else None
            if rows is not None and len(rows):
                series.append(Series(name, rows["step"].tolist(), rows[column].tolist(), marks))  # type: ignore[arg-type]
        return series or Absence(f"{STAGES[stage]}: its log holds no losses yet.")

    @property
    def config(self) -> Mapping[str, Any] | None:
        """The resolved configuration of the training, or None."""
        config = self.provenance.get("config")
        return config if isinstance(config, Mapping) else None

    @property
    def trained_here(self) -> bool:
        """The model was trained in this run, on the training subjects of this cohort."""
        return self.config is not None

    @property
    def semantic_encoder(self) -> dict[str, Any]:
        """Settings of the semantic encoder, its kind's among the others, with `semantic_width`; empty where unknown."""
        given = self.provenance.get("config", "representation", "semantic_encoder") or {}
        known = {name: value for name, value in given.items() if not isinstance(value, Mapping)}
        for kind in given.values():
            known |= kind if isinstance(kind, Mapping) else {}
        widths = (known.get("backbone") or {}).get("widths")
        return known | ({"semantic_width": widths[-1]} if widths else {})

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Voxel size and centre of the model's grid where they are known."""
        contract = self.provenance.get("config", "preprocessing") or self.results.get("preprocessing") or {}
        return {name: contract[name] for name in ("voxel_size_mm", "centre_mm") if name in contract}

    @property
    def classes(self) -> tuple[str, str]:
        """The positive and the negative class of the diagnosis probe."""
        classes = self.task("probe_diagnosis").get("target", "classes")
        negative, positive = classes if isinstance(classes, list) and len(classes) == 2 else ("CN", "AD")
        return str(positive), str(negative)

    @property
    def own_method(self) -> str:
        """The package's method for a missing session that is reported."""
        return str(self.results.get("interpolate", "own") or "ldae_residual")

    @cached_property
    def manifest(self) -> Manifest | Absence:
        """The cohort table of the run, or why it cannot be read."""
        named = self.provenance.get("manifest", "path") or self.results.get("request", "manifest")
        candidates = ([Path(named)] if named else []) + [self.path / "manifest.tsv"]
        path = next((each for each in candidates if each.is_file()), None)
        if path is None:
            return Absence("The cohort table is no longer at the path that the run recorded, so splits are not listed.")
        try:
            manifest = read_manifest(path, check_images=False)
        except ManifestError as error:
            return Absence(f"The cohort table cannot be read, so splits are not listed: {error}")
        expected = self.provenance.get("manifest", "sha256")
        if expected is not None and manifest.sha256 != expected:
            return Absence(f"{path} has changed since the run, so splits are not listed.")
        return manifest

    @cached_property
    def phantom(self) -> bool:
        """The cohort is the package's own phantom, by the description that the generator leaves."""
        folders = [self.path / "cohort"]
        if isinstance(self.manifest, Manifest):
            folders.append(self.manifest.path.parent)
        descriptions = [json_or_none(folder / "dataset_description.json") for folder in folders]
        generators = [g for d in descriptions if isinstance(d, Mapping) for g in d.get("GeneratedBy", [])]
        return any(isinstance(g, Mapping) and g.get("Name") == "ldae phantom" for g in generators)


def read_history(folder: Path) -> pd.DataFrame:
    """Logged losses of a stage by step, over all its sessions; later sessions replace what they trained again."""
    files = sorted((folder / "logs").glob("version_*/metrics.csv"), key=lambda path: int(path.parent.name[8:]))
    tables = [pd.read_csv(path) for path in files]
    if not tables:
        return pd.DataFrame({"step": []})
    return pd.concat(tables).groupby("step", as_index=False).last().sort_values("step")


def open_run(path: Path) -> RunFolder:
    """Read a run folder.

    Raises:
        TaskError: if it holds no results.
    """
    results = path / RESULTS
    if not results.is_file():
        what = "holds no results.json" if path.is_dir() else "is no folder"
        msg = (
            f"{path} {what}, so nothing can be reported; give the run folder of a finished 'ldae demo' or 'ldae study'"
        )
        raise TaskError(msg)
    files = [results, path / "run.json", *path.glob("tasks/*.json"), *path.glob("*/stage.json")]
    documents = {file.relative_to(path).as_posix(): json_or_none(file) for file in files}
    if not isinstance(documents[RESULTS], dict):
        msg = f"{results} is not a readable JSON object; run 'ldae demo' or 'ldae study' again to write it anew"
        raise TaskError(msg)
    return RunFolder(path, {name: value for name, value in documents.items() if value is not None})
