"""The report of an import (taken, left out, and why), kept as JSON beside the manifest.

An import of DICOM has its own (:class:`ldae.prepare.imports.dicom.dataset.DicomReport`): its sources may not be written.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ldae.base.files import write_json
from ldae.errors import CohortError, OutputError

__all__ = ["ImportReport", "Skipped", "Taken", "check_out", "report_path"]


@dataclass(frozen=True)
class Taken:
    """One scan of the manifest.

    Attributes:
        scan: participant and session, as in the manifest.
        source: the file or series that it came from, relative to what was imported.
        note: for the reader; may be empty.
    """

    scan: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class Skipped:
    """One thing that is not in the manifest.

    Attributes:
        source: the file, row, subject or series, relative to what was imported.
        reason: the same words for the same reason.
        expected: nothing is amiss: the import chose another, or never takes such things.
        detail: of this one (the line of the table, the scan taken instead).
    """

    source: str
    reason: str
    expected: bool = False
    detail: str = ""


@dataclass(frozen=True)
class ImportReport:
    """The whole of an import.

    Attributes:
        kind: the importer, as on the command line ("bids", "csv", "table").
        taken: the scans in it, in its order.
        skipped: what is not in it.
        notes: what holds for the whole import.
    """

    kind: str
    source: Path
    manifest: Path
    taken: tuple[Taken, ...]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Nothing that should have matched was left out."""
        return all(item.expected for item in self.skipped)

    @property
    def path(self) -> Path:
        """File of the report."""
        return report_path(self.manifest)

    def reasons(self) -> tuple[tuple[str, bool, tuple[Skipped, ...]], ...]:
        """Skipped items by reason, those amiss first, then by number."""
        groups: dict[tuple[bool, str], list[Skipped]] = {}
        for item in self.skipped:
            groups.setdefault((item.expected, item.reason), []).append(item)
        ordered = sorted(groups.items(), key=lambda group: (group[0][0], -len(group[1]), group[0][1]))
        return tuple((reason, expected, tuple(items)) for (expected, reason), items in ordered)

    def write(self) -> Path:
        """Write the report as JSON beside the manifest, `cohort_import.json` for `cohort.tsv`."""
        return write_json(
            self.path,
            {
                "kind": self.kind,
                "source": str(self.source),
                "manifest": str(self.manifest),
                "counts": {
                    "taken": len(self.taken),
                    "skipped": len(self.skipped),
                    "amiss": sum(not item.expected for item in self.skipped),
                    "reasons": dict(Counter(item.reason for item in self.skipped)),
                },
                "notes": list(self.notes),
                "taken": _rows(self.taken),
                "skipped": _rows(self.skipped),
            },
        )


def report_path(manifest: Path) -> Path:
    """The report's file beside a manifest."""
    return manifest.with_name(f"{manifest.stem}_import.json")


def check_out(out: Path, tables: Iterable[Path] = (), *, force: bool = False) -> None:
    """Refuse to write a manifest over a table that no import wrote. An import's own manifest may be made anew.

    Args:
        out: the manifest to write.
        tables: what is imported.
        force: replace another file, too.

    Raises:
        CohortError: if `out` is one of the tables, or a folder.
        OutputError: if it is a file without an import's report beside it.
    """
    if not out.exists():
        return
    if any(table.exists() and out.samefile(table) for table in tables):
        msg = f"{out}: the manifest would overwrite a table that it is made from; give another name with --out"
        raise CohortError(msg)
    if out.is_dir():
        msg = f"{out}: there is a folder; give another name with --out"
        raise CohortError(msg)
    if not force and not report_path(out).is_file():
        msg = (
            f"{out}: there is a file already, which no import wrote (no {report_path(out).name} beside it); give another name "
            "with --out, or --force to replace it"
        )
        raise OutputError(msg)


def _rows(items: Iterable[Taken | Skipped]) -> list[dict[str, object]]:
    return [{name: value for name, value in asdict(item).items() if value != ""} for item in items]
