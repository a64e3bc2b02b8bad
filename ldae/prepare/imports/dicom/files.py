"""The files of a cohort that was imported from DICOM: names, tables, descriptions, and the key to its labels."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from ldae.data.manifest import write_manifest
from ldae.dicom.headers import Header
from ldae.errors import CohortError
from ldae.io.files import write_json, write_text
from ldae.version import __version__

__all__ = ["KeyRow", "read_key", "scan_path", "write_descriptions", "write_key", "write_tables"]


@dataclass(frozen=True)
class KeyRow:
    """Whose scan it is. Identifies.

    Attributes:
        subject: the label without 'sub-'.
        session: the label without 'ses-'.
        patient: PatientID.
        study_date: as in the header.
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        image: relative to the cohort.
    """

    subject: str
    session: str
    patient: str
    study_date: str
    study: str
    series: str
    image: str

    @classmethod
    def of(cls, subject: str, session: str, patient: str, header: Header, image: str) -> "KeyRow":
        """The row of a scan."""
        return cls(
            subject.removeprefix("sub-"),
            session.removeprefix("ses-"),
            patient,
            header.text("StudyDate"),
            header.text("StudyInstanceUID"),
            header.text("SeriesInstanceUID"),
            image,
        )


def scan_path(subject: str, session: str, run: int | None) -> str:
    """A scan's path inside the cohort."""
    entity = "" if run is None else f"_run-{run}"
    return f"{subject}/{session}/anat/{subject}_{session}{entity}_T1w.nii.gz"


def read_key(path: Path) -> list[KeyRow]:
    """The rows of a key; none if there is no such file yet.

    Raises:
        CohortError: if the file is something else.
    """
    if not path.exists():
        return []
    names = [field.name for field in fields(KeyRow)]
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            header, *rows = list(csv.reader(stream, delimiter="\t")) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error):
        header, rows = [], []
    if header != names or any(len(row) != len(names) for row in rows):
        msg = f"{path}: there is something already that is no key of an import; give another file with --key"
        raise CohortError(msg)
    return [KeyRow(*row) for row in rows]


def write_key(path: Path, known: Iterable[KeyRow], rows: Sequence[KeyRow]) -> None:
    """Write the key, readable by its owner alone; every series of former imports stays in it."""
    present = {row.series for row in rows}
    kept = [row for row in known if row.series not in present]
    names = [field.name for field in fields(KeyRow)]
    write_text(path, _tsv([names, *(list(astuple(row)) for row in [*kept, *rows])]))
    path.chmod(0o600)


def write_tables(folder: Path, manifest: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the manifest, the participants and their sessions.

    Args:
        folder: of the cohort.
        manifest: name of the manifest.
        rows: of the manifest, a person's visits in order.
    """
    write_manifest(pd.DataFrame(list(rows), dtype=object), folder / manifest)
    names = {name for row in rows for name in row}
    constant = ["age", "sex", *(name for name in ("diagnosis", "site") if name in names)]
    varying = ["months", "age", *(name for name in ("diagnosis",) if name in names)]
    people: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        people.setdefault(row["participant_id"], []).append(row)
    first = [[subject, *(_cell(own[0].get(name)) for name in constant)] for subject, own in people.items()]
    write_text(folder / "participants.tsv", _tsv([["participant_id", *constant], *first]))
    for subject, own in people.items():
        visits = [[row["session_id"], *(_cell(row.get(name)) for name in varying)] for row in own]
        write_text(folder / subject / f"{subject}_sessions.tsv", _tsv([["session_id", *varying], *visits]))


def _cell(value: Any) -> str:
    return "n/a" if value is None else str(value)


def _tsv(rows: Iterable[Sequence[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter="\t", lineterminator="\n").writerows(rows)
    return stream.getvalue()


def write_descriptions(folder: Path, report: str) -> None:
    """The files that say what the data set is.

    Args:
        folder: of the cohort.
        report: name of the import's report.
    """
    write_json(
        folder / "dataset_description.json",
        {
            "Name": "T1w images imported from DICOM by ldae",
            "BIDSVersion": "1.10.0",
            "DatasetType": "raw",
            "GeneratedBy": [{"Name": "ldae", "Version": __version__}],
        },
    )
    write_json(
        folder / "participants.json",
        {
            "age": {"Description": "age at the first visit; 90 may stand for any age over 89", "Units": "years"},
            "sex": {"Levels": {"F": "female", "M": "male"}},
        },
    )
    write_text(
        folder / "README",
        "T1w images imported from DICOM. Of the headers, only numbers of the acquisition and words of closed lists were\n"
        "kept: no names, dates, identifiers or free text. Months count from the first visit that was imported.\n"
        "The images were not defaced: where a head has its face on, a person can be recognised.\n",
    )
    write_text(folder / ".bidsignore", f"manifest.tsv\n{report}\n")
