"""The run folder as the report reads it: results, provenance, stages, images; what is absent comes with its reason."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from ldae.data.manifest import Manifest, read_manifest
from ldae.errors import ManifestError, TaskError
from ldae.report.blocks import Absence
from ldae.report.plots.figures import LossCurve

__all__ = ["STAGES", "RunFolder", "open_run", "pointer", "read_json"]

Images = npt.NDArray[np.float16]

RESULTS = "results.json"
PROVENANCE = "run.json"
STAGES = {
    "compression": "1 Compression autoencoder",
    "denoiser": "2 Denoiser",
    "representation": "3 Semantic encoder",
}
TASKS = ("reconstruct", "diagnose", "probe_diagnosis", "probe_age", "manipulate", "interpolate", "sample")


@dataclass(frozen=True, eq=False)
class RunFolder:
    """What a run left behind.

    Attributes:
        path: of the folder.
        documents: every JSON file that is there, by its path inside the folder.
    """

    path: Path
    documents: Mapping[str, Any]

    def get(self, document: str, *keys: str | int) -> Any:
        """A value inside a document, or None if there is none.

        Args:
            document: path of a JSON file inside the folder.
            keys: names and indices that lead to the value.
        """
        value = self.documents.get(document)
        for key in keys:
            if isinstance(value, Mapping):
                value = value.get(str(key))
            elif isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
                value = value[key]
            else:
                return None
        return value

    def result(self, *keys: str | int) -> Any:
        """A value of results.json, or None."""
        return self.get(RESULTS, *keys)

    def shown(self, task: str) -> Any:
        """What `tasks/TASK.json` says, or None."""
        return self.get(f"tasks/{task}.json")

    def skipped(self, *names: str) -> Absence | None:
        """Why the first of these tasks was left out, if one was."""
        for name in names:
            reason = self.result("skipped", name)
            if reason is not None:
                return Absence(f"This part was left out: {reason}.".replace("..", "."))
        return None

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

    def losses(self, stage: str) -> LossCurve | Absence:
        """Logged losses of a stage, or why there are none."""
        if not (self.path / stage / "logs").is_dir():
            return Absence(f"{STAGES[stage]}: no log of its training is in this run folder.")
        # Reading logs needs Lightning's neighbours, which take seconds to import.
        from ldae.training.fit import read_history

        table = read_history(self.path / stage)
        series = {}
        for split in ("train", "validation"):
            column = f"{split}/loss"
            rows = table[["step", column]].dropna() if column in table else None
            series[split] = ([], []) if rows is None else (rows["step"].tolist(), rows[column].tolist())
        if not series["train"][0] and not series["validation"][0]:
            return Absence(f"{STAGES[stage]}: its log holds no losses yet.")
        return LossCurve(STAGES[stage], series["train"], series["validation"])

    @property
    def config(self) -> Any:
        """The resolved configuration of the experiment, or None."""
        return self.get(PROVENANCE, "config")

    @property
    def semantic_encoder(self) -> dict[str, Any]:
        """Settings of the semantic encoder, its kind's among the others, with `semantic_width`; empty where unknown."""
        stage = (self.config or {}).get("representation") or {}
        given = stage.get("semantic_encoder") or {}
        known = {name: value for name, value in given.items() if not isinstance(value, Mapping)}
        for kind in given.values():
            known |= kind if isinstance(kind, Mapping) else {}
        widths = (known.get("backbone") or {}).get("widths")
        return known | ({"semantic_width": widths[-1]} if widths else {})

    @property
    def trained_here(self) -> bool:
        """Whether the model was trained in this run, on the training subjects of this cohort."""
        return self.config is not None

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Voxel size and centre of the model's grid where they are known."""
        contract = self.get(PROVENANCE, "config", "preprocessing") or self.result("preprocessing") or {}
        return {name: contract[name] for name in ("voxel_size_mm", "centre_mm") if name in contract}

    @cached_property
    def manifest(self) -> Manifest | Absence:
        """The cohort table the run was made with, or why it cannot be told."""
        named = self.get(PROVENANCE, "manifest", "path") or self.result("request", "manifest")
        candidates = ([Path(named)] if named else []) + [self.path / "manifest.tsv"]
        path = next((each for each in candidates if each.is_file()), None)
        if path is None:
            return Absence("The cohort table is no longer where the run found it, so its splits are not listed.")
        try:
            manifest = read_manifest(path, check_images=False)
        except ManifestError as error:
            return Absence(f"The cohort table cannot be read, so its splits are not listed: {error}")
        expected = self.get(PROVENANCE, "manifest", "sha256")
        if expected is not None and manifest.sha256 != expected:
            return Absence(f"{path} has changed since the run, so its splits are not listed.")
        return manifest

    @cached_property
    def phantom(self) -> bool:
        """Whether the cohort is the package's own phantom, by the description that the generator leaves."""
        folders = [self.path / "cohort"]
        if isinstance(self.manifest, Manifest):
            folders.append(self.manifest.path.parent)
        descriptions = [read_json(folder / "dataset_description.json") for folder in folders]
        generators = [g for d in descriptions if isinstance(d, Mapping) for g in d.get("GeneratedBy", [])]
        return any(isinstance(g, Mapping) and g.get("Name") == "ldae phantom" for g in generators)


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
    names = [RESULTS, PROVENANCE, *(f"tasks/{t}.json" for t in TASKS), *(f"{stage}/stage.json" for stage in STAGES)]
    documents = {name: read_json(path / name) for name in names}
    if not isinstance(documents[RESULTS], dict):
        msg = f"{results} is not a readable JSON object; run 'ldae demo' or 'ldae study' again to write it anew"
        raise TaskError(msg)
    return RunFolder(path, {name: value for name, value in documents.items() if value is not None})


def pointer(document: str, *keys: str | int) -> str:
    """Where a number of the report stands: the file and the JSON pointer (RFC 6901) into it."""
    return quote(document) + "#" + "".join("/" + quote(str(k).replace("~", "~0").replace("/", "~1")) for k in keys)


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
