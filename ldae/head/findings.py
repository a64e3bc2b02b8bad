"""What a check found: how bad, where, what it means, and what mends it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

__all__ = ["ERROR", "NOTICE", "WARNING", "Finding", "FindingGroup", "Severity", "group_findings", "worst"]


class Severity(IntEnum):
    """How bad a finding is; the worst sorts first."""

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
        severity: how bad.
        code: what kind, in words joined by hyphens; the documentation explains each.
        message: what is wrong here, in one sentence without a final stop.
        remedy: what to do about it.
        scans: keys of the scans concerned; none where the table as a whole is.
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
        return {
            "severity": self.severity.word,
            "code": self.code,
            "message": self.message,
            "remedy": self.remedy,
            "scans": list(self.scans),
            "subjects": list(self.subjects),
        }


@dataclass(frozen=True)
class FindingGroup:
    """All findings of one kind.

    Attributes:
        findings: one or more, of one severity, code and remedy.
    """

    findings: tuple[Finding, ...]

    @property
    def severity(self) -> Severity:
        """Of all of them."""
        return self.findings[0].severity

    @property
    def code(self) -> str:
        """Of all of them."""
        return self.findings[0].code

    @property
    def scans(self) -> tuple[str, ...]:
        """Keys of the scans concerned, each once."""
        return tuple(dict.fromkeys(scan for finding in self.findings for scan in finding.scans))


def group_findings(findings: Iterable[Finding]) -> list[FindingGroup]:
    """Findings of one kind together, the worst kinds first and, among equals, those that concern most."""
    kinds: dict[tuple[Severity, str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.severity, finding.code, finding.remedy), []).append(finding)
    groups = [FindingGroup(tuple(members)) for members in kinds.values()]
    return sorted(groups, key=lambda group: (group.severity, -len(group.findings), group.code))


def worst(findings: Sequence[Finding]) -> Severity | None:
    """The worst severity, or None if nothing was found."""
    return min((finding.severity for finding in findings), default=None)
