"""Findings of quality control: severity, scans concerned, message, and remedy."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import IntEnum

__all__ = ["ERROR", "NOTICE", "WARNING", "Finding", "Severity", "group_findings"]


class Severity(IntEnum):
    """Severity of a finding; the worst sorts first."""

    ERROR = 0
    """The toolkit refuses this, or results made with it are wrong."""
    WARNING = 1
    """Results may be wrong: look before going on."""
    NOTICE = 2
    """Good to know."""

    @property
    def word(self) -> str:
        """In lower case, for tables and files."""
        return self.name.lower()


ERROR, WARNING, NOTICE = Severity


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a scan, some scans, or the table.

    Attributes:
        severity: error, warning or notice.
        code: kind of finding, words joined by hyphens; the documentation explains each.
        message: one sentence without a final stop.
        remedy: the next step for the user.
        scans: keys of the scans concerned; empty if the whole table is.
        subjects: participants concerned.
    """

    severity: Severity
    code: str
    message: str
    remedy: str
    scans: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self) | {"severity": self.severity.word}


def group_findings(findings: Iterable[Finding]) -> list[Finding]:
    """One finding for each kind (severity, code, remedy), with the scans of all; the worst and the most frequent first."""
    kinds: dict[tuple[Severity, str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.severity, finding.code, finding.remedy), []).append(finding)
    groups = sorted(kinds.values(), key=lambda group: (group[0].severity, -len(group), group[0].code))
    return [
        replace(group[0], scans=tuple(dict.fromkeys(key for one in group for key in one.scans))) for group in groups
    ]
