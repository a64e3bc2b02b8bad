"""The document: sections put together and rendered as one HTML file that needs no network."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ldae.errors import TaskError
from ldae.io.files import write_text
from ldae.prepare.preprocess.cohort import PreprocessReport
from ldae.report.blocks import Interactive, Section, Viewer, walk
from ldae.report.machine import write_machine_report
from ldae.report.markdown import write_markdown
from ldae.report.run_folder import open_run, read_json
from ldae.report.sections.code_usage import information
from ldae.report.sections.colophon import methods, probe_methods, repeat
from ldae.report.sections.interpolation import interpolation
from ldae.report.sections.manipulation import manipulation
from ldae.report.sections.overview import key_figures, training, what_was_run
from ldae.report.sections.paper import publication
from ldae.report.sections.prediction import age, diagnosis, probe_section
from ldae.report.sections.preprocessing import failed_scans, pictures_of_scans, rated_scans
from ldae.report.sections.restoration import reconstruction, samples
from ldae.report.wording import asked_for

__all__ = ["Form", "write_preprocessing_page", "write_probe_report", "write_report"]

Form = Literal["html", "md", "json"]

SYNTHETIC = "Synthetic images. Not for diagnosis."
RESEARCH = "For research. Not for diagnosis."

SECTIONS = (
    key_figures,
    what_was_run,
    training,
    reconstruction,
    information,
    diagnosis,
    age,
    manipulation,
    interpolation,
    samples,
    methods,
    publication,
    repeat,
)


def write_report(run: Path, out: Path | None = None, form: Form = "html") -> Path:
    """Render a run folder.

    Args:
        run: folder with results.json, as 'ldae demo' and 'ldae study' leave it. Whatever else is missing, its
            section says so.
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
    who = "whom it has never seen" if folder.trained_here else "of the test split"
    lead = (
        f"A model turns a brain scan into a short code and back. This report shows, on {simulated}subjects {who}, what the "
        "code knows (diagnosis, age), what is lost on the way, and what the model can change or fill in."
    )
    title = f"Latent diffusion autoencoder: report of {folder.path.resolve().name}"
    sections = [build(folder) for build in SECTIONS]
    return _write(title, lead, SYNTHETIC, sections, out or run / f"report.{form}", form, folder.documents)


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
    documents = {path: read_json(path) for path in sorted(folder.glob("probe_*.json"))}
    sections = [
        probe_section(each, path.name, path.stem, f"What the embeddings tell of {asked_for(each['target'])}")
        for path, each in documents.items()
        if isinstance(each, Mapping) and isinstance(each.get("target"), Mapping)
    ]
    if not sections:
        msg = f"{folder}: holds no probe_TARGET.json, so nothing can be reported; run 'ldae probe' first"
        raise TaskError(msg)
    lead = (
        "Embeddings of scans were asked, by simple models, what they tell of people whom those models had not seen; every "
        "interval is over people."
    )
    title = f"Probe report of {folder.resolve().name}"
    named = {path.name: each for path, each in documents.items()}
    return _write(title, lead, RESEARCH, [*sections, probe_methods()], out or folder / f"report.{form}", form, named)


def write_preprocessing_page(report: PreprocessReport, out: Path) -> Path:
    """Write the page that shows what preprocessing did to every scan, worst first.

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
    lead = "Scans in template space. Look at all of them, at least at the first, before anything is computed from them."
    return write_text(out, _render(f"Preprocessed scans: {out.parent.resolve().name}", lead, RESEARCH, sections))


def _write(
    title: str,
    lead: str,
    notice: str,
    sections: Sequence[Section],
    out: Path,
    form: Form,
    documents: Mapping[str, Any],
) -> Path:
    if form == "md":
        return write_markdown(title, lead, notice, sections, out)
    if form == "json":
        return write_machine_report(title, lead, notice, sections, out, documents)
    return write_text(out, _render(title, lead, notice, sections))


def _render(title: str, lead: str, notice: str, sections: Sequence[Section]) -> str:
    environment = Environment(
        loader=PackageLoader("ldae.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_function"] = _dumps
    # Style and scripts are ours and the libraries', read from packages; nothing of a run is among them.
    return environment.get_template("report.html.j2").render(
        title=title,
        lead=lead,
        notice=notice,
        css=Markup(_asset("report.css")),
        libraries=[Markup(each) for each in _libraries(sections)],
        script=Markup(_asset("report.js")),
        sections=sections,
        names=_Names(),
    )


def _dumps(value: Any, **options: Any) -> str:
    """JSON of plain values and of the report's own blocks."""
    return json.dumps(value, default=asdict, allow_nan=False, **options)


def _asset(name: str) -> str:
    return files("ldae.report").joinpath("templates", name).read_text(encoding="utf-8")


def _libraries(sections: Sequence[Section]) -> Iterator[str]:
    """The scripts that these sections need."""
    kinds = {block.kind for section in sections for block in walk(section.blocks)}
    if Interactive.kind in kinds:
        from plotly.offline import get_plotlyjs

        yield get_plotlyjs()
    if Viewer.kind in kinds:
        niivue = files("ldae.report").joinpath("niivue")
        licence = niivue.joinpath("LICENSE").read_text(encoding="utf-8")
        yield f"/*!\n{licence}*/\n" + gzip.decompress(niivue.joinpath("niivue.umd.js.gz").read_bytes()).decode("utf-8")


class _Names:
    """Names of tables and charts, counted, for the files that a reader saves."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def next(self, kind: str) -> str:
        """The next name of a kind."""
        self._counts[kind] += 1
        return f"{kind}-{self._counts[kind]:02d}"
