"""One self-contained HTML document from a run folder, or from the probes in a folder."""

from ldae.report.document import write_probe_report, write_report

__all__ = ["write_probe_report", "write_report"]
