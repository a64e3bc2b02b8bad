"""One document from a run folder, or from the probes in a folder: HTML that needs no network, Markdown, or JSON."""

from ldae.report.document import write_probe_report, write_report
from ldae.report.machine import report_schema

__all__ = ["report_schema", "write_probe_report", "write_report"]
