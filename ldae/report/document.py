"""The document: sections put together and rendered as one HTML file that needs no network."""

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ldae.io.files import write_text
from ldae.report.colophon import methods, repeat
from ldae.report.information import information
from ldae.report.overview import key_figures, training, what_was_run
from ldae.report.prediction import age, diagnosis
from ldae.report.progression import interpolation, manipulation
from ldae.report.restoration import reconstruction, samples
from ldae.report.run_folder import RunFolder, open_run

__all__ = ["write_report"]

NOTICE = "Synthetic images. Not for diagnosis."

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


def write_report(run: Path, out: Path | None = None) -> Path:
    """Render a run folder.

    Args:
        run: folder with results.json, as 'ldae demo' and 'ldae study' leave it. Whatever else is missing, its
            section says so.
        out: the HTML file; `report.html` in the run folder if it is not given.

    Returns:
        The file written.

    Raises:
        TaskError: if the folder holds no readable results.
    """
    folder = open_run(run)
    return write_text(out or run / "report.html", _render(folder))


def _render(run: RunFolder) -> str:
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
        name=run.path.resolve().name,
        notice=NOTICE,
        phantom=run.phantom,
        trained_here=run.trained_here,
        css=Markup(css),  # ours, read from the package
        sections=[build(run) for build in SECTIONS],
    )
