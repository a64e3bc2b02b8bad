"""Documents of what was done: HTML that needs no network, Markdown, or JSON."""

from ldae.report.document import write_preprocessing_page, write_probe_report, write_report
from ldae.report.machine import report_schema

__all__ = ["report_schema", "write_preprocessing_page", "write_probe_report", "write_report"]
