"""Templates of the report: HTML, Markdown and the methods paragraph."""

import json
import re
from dataclasses import asdict
from functools import cache, partial
from importlib.resources import files
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader, StrictUndefined, Template

__all__ = ["asset", "paragraphs", "render"]


def render(template: str, /, **values: Any) -> str:
    """Fill a template; HTML escapes its values, and plain text takes what is missing as empty."""
    return _compiled(template).render(values)


@cache
def _compiled(template: str) -> Template:
    environment = Environment(
        loader=PackageLoader("ldae.report"),
        autoescape=template.endswith(".html.j2"),
        undefined=ChainableUndefined if template.endswith(".txt.j2") else StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # Blocks of a report are dataclasses.
    environment.policies["json.dumps_function"] = partial(json.dumps, default=asdict, allow_nan=False)
    environment.filters["plain"] = _plain
    return environment.get_template(template)


def paragraphs(template: str, /, **values: Any) -> list[str]:
    """Paragraphs of a filled text template, each on one line."""
    return [" ".join(part.split()) for part in render(template, **values).split("\n\n") if part.strip()]


def asset(name: str) -> str:
    """Text of a file of the report's package."""
    return files("ldae.report").joinpath(name).read_text(encoding="utf-8")


def _plain(text: str) -> str:
    """Markdown on one line in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(text.split()))
