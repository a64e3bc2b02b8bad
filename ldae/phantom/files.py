"""The tables and descriptions of a phantom cohort, in BIDS terms."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ldae.base.files import write_json
from ldae.contract import Modality
from ldae.io.bids import write_description
from ldae.phantom.population import DIAGNOSES, Session, Subject
from ldae.phantom.raw import TRUTH_FOLDER

__all__ = ["MANIFEST_NAME", "Row", "image_path", "truth_row", "write_descriptions", "write_tables"]

MANIFEST_NAME = "manifest.tsv"
# After Gebru et al., Datasheets for Datasets, 2021.
DATA_SHEET = """\
Phantom cohort of ldae: data sheet

Motivation    To test methods of representation learning where the truth is known.
Composition   Simulated {contrast} scans: {content}. A synthetic cohort: no image shows a person.
              participants.tsv and sub-*/*_sessions.tsv hold age, sex, diagnosis and scanner, which were drawn too.
              phantom_truth.tsv holds the true volumes in millilitres, the severity of disease and the displacements (mm)
              that every image was made with; phantom_effect.nii.gz the mean change of the image for one unit of severity.
Collection    Computed from {source} by ldae's phantom generator, version {version}.
              phantom_config.json holds the settings; the same settings give the same bytes.
Labelling     Diagnosis follows from severity less a personal reserve. Age confounds it, by design.
Processing    None after the simulation. No split is given: 'ldae cohort split' makes one.
Uses          Tests of methods. Nothing that is measured here holds for patients: anatomy, disease and scanners are simple models.
Distribution  Licence: {licence}. Maintenance is not needed: 'ldae cohort synth' makes it again.
"""

Row = dict[str, Any]


def image_path(subject: Subject, session: Session, modality: Modality) -> str:
    """A scan's path inside the cohort."""
    stem = f"{subject.participant_id}_{session.session_id}"
    return f"{subject.participant_id}/{session.session_id}/anat/{stem}_{modality}.nii.gz"


def _session_row(subject: Subject, session: Session, modality: Modality) -> Row:
    """A session's row of the manifest."""
    return {
        "participant_id": subject.participant_id,
        "session_id": session.session_id,
        "image": image_path(subject, session, modality),
        "age": f"{session.age:.2f}",
        "sex": subject.sex,
        "diagnosis": session.diagnosis,
        "months": session.months,
        "site": subject.site,
    }


def truth_row(subject: Subject, session: Session, volumes_ml: dict[str, float]) -> Row:
    """A session's row of truth: volumes (ml), severity, and displacements (mm)."""
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


def write_tables(folder: Path, subjects: Sequence[Subject], truth: Sequence[Row], modality: Modality) -> None:
    """Write the manifest, the truth, and BIDS' tables of subjects and of each one's sessions."""

    def write(name: str, rows: Sequence[Row], *columns: str) -> None:
        table = pd.DataFrame(rows, columns=list(columns or rows[0]), dtype=object)
        table.to_csv(folder / name, sep="\t", index=False, lineterminator="\n")

    visits = [[_session_row(subject, session, modality) for session in subject.sessions] for subject in subjects]
    for rows in visits:
        participant_id = rows[0]["participant_id"]
        write(f"{participant_id}/{participant_id}_sessions.tsv", rows, "session_id", "months", "age", "diagnosis")
    write("participants.tsv", [rows[0] for rows in visits], "participant_id", "age", "sex", "diagnosis", "site")
    write("phantom_truth.tsv", truth)
    write(MANIFEST_NAME, [row for rows in visits for row in rows])


def write_descriptions(folder: Path, version: int, *, modality: Modality, raw: bool, label_maps: bool) -> None:
    """Write the files that describe the data set, of whole heads if `raw`, made from label maps or from the template."""
    levels = dict(zip(DIAGNOSES, ("normal", "mild cognitive impairment", "Alzheimer's disease"), strict=True))
    age, diagnosis = {"Description": "age at the session", "Units": "years"}, {"Levels": levels}
    participants = {
        "age": {**age, "Description": "age at the first session"},
        "sex": {"Levels": {"F": "female", "M": "male"}},
        "diagnosis": {**diagnosis, "Description": "at the first session"},
        "site": {"Description": "scanner"},
    }
    write_json(folder / "participants.json", participants)
    months = {"Description": "since the first session", "Units": "months"}
    write_json(folder / "sessions.json", {"months": months, "age": age, "diagnosis": diagnosis})
    source = "label maps of heads" if label_maps else "the MNI152 template (ICBM 2009a)"
    content = "brains without skull, in MNI space"
    if raw:
        content = "whole heads in native space; derivatives/truth holds where each brain lies"
    licence = "that of the label maps it was made from" if label_maps else "CC0"
    contrast = modality.replace("w", "-weighted")
    readme = DATA_SHEET.format(source=source, content=content, licence=licence, version=version, contrast=contrast)
    generator = [{"Name": "ldae phantom", "Version": str(version)}]
    write_description(
        folder,
        "ldae phantom cohort (synthetic)",
        readme,
        kind="raw",
        ignored=[MANIFEST_NAME, "phantom_*", "*_displacement.nii.gz"],
        GeneratedBy=generator,
        License=licence,
        Authors=["The ldae authors"],
    )
    if raw:
        write_description(
            folder / TRUTH_FOLDER,
            "ldae phantom cohort: what is true of the raw scans",
            readme,
            ignored=["*_desc-truth.json"],
            GeneratedBy=generator,
            DatasetLinks={"raw": "../.."},
        )
