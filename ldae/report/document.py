"""The document: sections put together and rendered as one HTML file that needs no network."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ldae.errors import TaskError
from ldae.io.files import write_text
from ldae.report.blocks import Section
from ldae.report.colophon import methods, probe_methods, repeat
from ldae.report.information import information
from ldae.report.markdown import write_markdown
from ldae.report.overview import key_figures, training, what_was_run
from ldae.report.prediction import age, diagnosis, probe_section
from ldae.report.progression import interpolation, manipulation
from ldae.report.restoration import reconstruction, samples
from ldae.report.run_folder import open_run, read_json

__all__ = ["Form", "write_probe_report", "write_report"]

Form = Literal["html", "md"]

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
    repeat,
)


def write_report(run: Path, out: Path | None = None, form: Form = "html") -> Path:
    """Render a run folder.

    Args:
        run: folder with results.json, as 'ldae demo' and 'ldae study' leave it. Whatever else is missing, its
            section says so.
        out: the file; `report.html` or `report.md` in the run folder if it is not given.
        form: one HTML file, or Markdown with its pictures in a folder beside it.

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
    return _write(title, lead, SYNTHETIC, [build(folder) for build in SECTIONS], out or run / f"report.{form}", form)


def write_probe_report(folder: Path, out: Path | None = None, form: Form = "html") -> Path:
    """Render every probe of a folder, as 'ldae probe' leaves them.

    Args:
        folder: with probe_TARGET.json files.
        out: the file; `report.html` or `report.md` in the folder if it is not given.
        form: as of :func:`write_report`.

    Returns:
        The file written.

    Raises:
        TaskError: if there is no readable probe.
    """
    documents = {path: read_json(path) for path in sorted(folder.glob("probe_*.json"))}
    sections = [
        probe_section(each, path.name, path.stem, f"What the embeddings tell of {each['target']['name']}")
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
    return _write(title, lead, RESEARCH, [*sections, probe_methods()], out or folder / f"report.{form}", form)


def _write(title: str, lead: str, notice: str, sections: Sequence[Section], out: Path, form: Form) -> Path:
    if form == "md":
        return write_markdown(title, lead, notice, sections, out)
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
    css = files("ldae.report").joinpath("templates", "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(
        title=title,
        lead=lead,
        notice=notice,
        css=Markup(css),  # ours, read from the package
        sections=sections,
    )
