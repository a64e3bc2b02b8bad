"""The document: sections put together and rendered as HTML, Markdown or JSON, each without a network."""

import base64
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup

from ldae.base.files import write_bytes, write_json, write_text
from ldae.errors import TaskError
from ldae.prepare.preprocess.cohort import PreprocessReport
from ldae.report.blocks import ChartFigure, LinkedPicture, Picture, Section, Viewer, walk
from ldae.report.machine import machine_report
from ldae.report.plots.chart import draw_plotly
from ldae.report.run_folder import open_run
from ldae.report.sections.code_usage import code_usage
from ldae.report.sections.colophon import methods, probe_methods, reproduction
from ldae.report.sections.findings import findings
from ldae.report.sections.interpolation import interpolation
from ldae.report.sections.manipulation import manipulation
from ldae.report.sections.overview import key_metrics, training, what_was_run
from ldae.report.sections.paper import publication
from ldae.report.sections.prediction import age, diagnosis, probe_section
from ldae.report.sections.preprocessing import failed_scans, pictures_of_scans, rated_scans
from ldae.report.sections.restoration import reconstruction, samples
from ldae.report.source import json_or_none
from ldae.report.templating import asset, render
from ldae.report.wording import target_name

__all__ = ["Form", "write_preprocessing_page", "write_probe_report", "write_report"]

Form = Literal["html", "md", "json"]

SYNTHETIC = "Synthetic images. Not for diagnosis."
RESEARCH = "For research. Not for diagnosis."

SECTIONS = (
    findings,
    key_metrics,
    what_was_run,
    training,
    reconstruction,
    code_usage,
    diagnosis,
    age,
    manipulation,
    interpolation,
    samples,
    methods,
    publication,
    reproduction,
)
ENDINGS = {"image/png": ".png", "image/svg+xml": ".svg"}


def write_report(run: Path, out: Path | None = None, form: Form = "html") -> Path:
    """Render a run folder.

    Args:
        run: folder with results.json, as 'ldae demo' and 'ldae study' leave it; a section says what else is missing.
        out: the file; `report.html`, `.md` or `.json` in the run folder if it is not given.
        form: one HTML file, Markdown with its pictures in a folder beside it, or JSON
            (:func:`~ldae.report.report_schema`).

    Returns:
        The file written.

    Raises:
        TaskError: if the folder holds no readable results.
    """
    folder = open_run(run)
    simulated = "simulated " if folder.phantom else ""
    seen = "that no stage of training has seen" if folder.trained_here else "of the test split"
    lead = (
        f"A model encodes a brain scan as a short code and decodes it again. This report evaluates it on {simulated}subjects "
        f"{seen}: prediction of diagnosis and age, reconstruction, edits, and missing sessions."
    )
    title = f"Latent diffusion autoencoder: report of {folder.path.resolve().name}"
    sections = [build(folder) for build in SECTIONS]
    return _write(title, lead, SYNTHETIC, sections, out or run / f"report.{form}", form)


def write_probe_report(folder: Path, out: Path | None = None, form: Form = "html") -> Path:
    """Render every probe of a folder, as 'ldae probe' leaves them.

    Args:
        folder: with probe_TARGET.json files.
        out: the file; `report.html`, `.md` or `.json` in the folder if it is not given.
        form: as of :func:`write_report`.

    Returns:
        The file written.

    Raises:
        TaskError: if there is no readable probe.
    """
    documents = {path.name: json_or_none(path) for path in sorted(folder.glob("probe_*.json"))}
    sections = [
        probe_section(each, name, Path(name).stem, f"Prediction of {target_name(each['target'])} from the embeddings")
        for name, each in documents.items()
        if isinstance(each, Mapping) and isinstance(each.get("target"), Mapping)
    ]
    if not sections:
        msg = f"{folder}: holds no probe_TARGET.json, so nothing can be reported; run 'ldae probe' first"
        raise TaskError(msg)
    lead = (
        "Simple models predict targets from embeddings of scans. They are tested on subjects they were not trained on."
    )
    title = f"Probe report of {folder.resolve().name}"
    return _write(title, lead, RESEARCH, [*sections, probe_methods()], out or folder / f"report.{form}", form)


def write_preprocessing_page(report: PreprocessReport, out: Path) -> Path:
    """Write the page that shows the preprocessing of every scan, worst first.

    Args:
        report: of the cohort.
        out: the file; its pictures stay where they are, linked from it.

    Returns:
        The file written.
    """
    sections = [
        failed_scans(report.outcomes),
        rated_scans(report.outcomes),
        pictures_of_scans(report.outcomes, out.parent),
    ]
    lead = "Scans in template space, worst first. Check all of them, or at least the first, before any analysis."
    return _write(f"Preprocessed scans: {out.parent.resolve().name}", lead, RESEARCH, sections, out, "html")


def _write(title: str, lead: str, notice: str, sections: Sequence[Section], out: Path, form: Form) -> Path:
    values: dict[str, Any] = {"title": title, "lead": lead, "notice": notice, "sections": sections}
    if form == "json":
        return write_json(out, machine_report(**values))
    if form == "md":
        return write_text(out, render("report.md.j2", **values, walk=walk, link=_linker(out)))
    # Style and scripts are the package's and the libraries'; no data of a run are among them.
    return write_text(
        out,
        render(
            "report.html.j2",
            **values,
            css=Markup(asset("templates/report.css")),
            libraries=_libraries(sections),
            script=Markup(asset("templates/report.js")),
            plotly=draw_plotly,
            name=_numberer(),
        ),
    )


def _numberer() -> Callable[[str], str]:
    """A function that numbers tables and charts, for the names of the files that a reader saves."""
    counts: Counter[str] = Counter()

    def name(kind: str) -> str:
        counts[kind] += 1
        return f"{kind}-{counts[kind]:02d}"

    return name


def _linker(out: Path) -> Callable[[Picture | LinkedPicture | ChartFigure], str]:
    """A function that writes pictures to a folder beside a Markdown file, and returns their links."""
    folder, name = out.with_name(f"{out.stem}_files"), _numberer()

    def link(block: Picture | LinkedPicture | ChartFigure) -> str:
        if isinstance(block, LinkedPicture):
            return block.uri
        picture = block.picture if isinstance(block, ChartFigure) else block
        path = folder / (name("figure") + ENDINGS[picture.media_type])
        write_bytes(path, picture.draw())
        return f"{folder.name}/{path.name}"

    return link


def _libraries(sections: Sequence[Section]) -> Iterator[tuple[str, str, str]]:
    """Name, licence and base64 of the gzipped script of each library that these sections need."""
    kinds = {block.kind for section in sections for block in walk(section.blocks)}
    for name, block, script in (
        ("plotly", ChartFigure, "plotly-basic.min.js.gz"),
        ("niivue", Viewer, "niivue.umd.js.gz"),
    ):
        if block.kind in kinds:
            folder = files("ldae.report").joinpath(name)
            licence = folder.joinpath("LICENSE").read_text(encoding="utf-8")
            yield name, licence, base64.b64encode(folder.joinpath(script).read_bytes()).decode("ascii")
