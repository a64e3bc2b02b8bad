"""One self-contained HTML document from a run folder."""

from ldae.report.document import write_report

__all__ = ["write_report"]
