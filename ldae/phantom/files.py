"""The tables and descriptions of a phantom cohort, in BIDS's words."""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ldae.io.files import write_json
from ldae.phantom.population import DIAGNOSES, Session, Subject
from ldae.phantom.raw import write_truth_description

__all__ = [
    "MANIFEST_COLUMNS",
    "MANIFEST_NAME",
    "PARTICIPANT_COLUMNS",
    "SESSION_COLUMNS",
    "Row",
    "image_path",
    "session_row",
    "truth_row",
    "write_descriptions",
    "write_table",
]

MANIFEST_NAME = "manifest.tsv"
MANIFEST_COLUMNS = ("participant_id", "session_id", "image", "age", "sex", "diagnosis", "months", "site")
PARTICIPANT_COLUMNS = ("participant_id", "age", "sex", "diagnosis", "site")
SESSION_COLUMNS = ("session_id", "months", "age", "diagnosis")

Row = dict[str, Any]


def image_path(subject: Subject, session: Session) -> str:
    """A scan's path inside the cohort."""
    stem = f"{subject.participant_id}_{session.session_id}"
    return f"{subject.participant_id}/{session.session_id}/anat/{stem}_T1w.nii.gz"


def session_row(subject: Subject, session: Session) -> Row:
    """What the manifest says of a session."""
    return {
        "participant_id": subject.participant_id,
        "session_id": session.session_id,
        "image": image_path(subject, session),
        "age": f"{session.age:.2f}",
        "sex": subject.sex,
        "diagnosis": session.diagnosis,
        "months": session.months,
        "site": subject.site,
    }


def truth_row(subject: Subject, session: Session, volumes_ml: dict[str, float]) -> Row:
    """What the generator knows of a session: volumes (ml), severity, and displacements (mm)."""
    state = dataclasses.asdict(session.state)
    return {
        "participant_id": subject.participant_id,
        "session_id": session.session_id,
        "age": f"{session.age:.2f}",
        "severity": f"{session.severity:.4f}",
        **{name: f"{value:.3f}" for name, value in volumes_ml.items()},
        "intracranial_scale": f"{subject.intracranial_scale:.4f}",
        **{name: f"{value:.4f}" for name, value in state.items()},
    }


def write_table(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Write some columns of rows as TSV."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, delimiter="\t", lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def write_descriptions(folder: Path, version: int, *, raw: bool = False, label_maps: bool = False) -> None:
    """The files that say what the data set is.

    Args:
        folder: of the cohort.
        version: of the generator.
        raw: the images are whole heads in native space.
        label_maps: their anatomy is that of label maps, which have a licence of their own.
    """
    generator = {"Name": "ldae phantom", "Version": str(version)}
    name = "ldae phantom cohort (synthetic)"
    licence = "that of the label maps it was made from" if label_maps else "CC0"
    write_json(
        folder / "dataset_description.json",
        {"Name": name, "BIDSVersion": "1.10.0", "DatasetType": "raw", "License": licence, "GeneratedBy": [generator]},
    )
    levels = dict(zip(DIAGNOSES, ("normal", "mild cognitive impairment", "Alzheimer's disease"), strict=True))
    write_json(
        folder / "participants.json",
        {
            "age": {"Description": "age at the first session", "Units": "years"},
            "sex": {"Levels": {"F": "female", "M": "male"}},
            "diagnosis": {"Description": "at the first session", "Levels": levels},
            "site": {"Description": "scanner"},
        },
    )
    source = "label maps of heads" if label_maps else "the MNI152 template (ICBM 2009a)"
    kind = (
        "as whole heads in native space; derivatives/truth holds where\neach brain lies. phantom"
        if raw
        else "skull-stripped and in MNI space. phantom"
    )
    (folder / "README").write_text(
        f"A synthetic cohort. No image shows a person: all were made from {source} by\n"
        f"ldae's phantom generator, {kind}_truth.tsv holds the true volumes in\n"
        "millilitres, the severity of disease and the displacements (mm) that every image was made with;\n"
        "phantom_effect.nii.gz holds the mean change of the image for one unit of severity.\n",
        encoding="utf-8",
    )
    if raw:
        write_truth_description(folder, generator)
    (folder / ".bidsignore").write_text(f"{MANIFEST_NAME}\nphantom_*\n*_displacement.nii.gz\n", encoding="utf-8")
