"""Formulas as MathML, made by docutils while building: no LaTeX, no script, no network."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

# docutils would set the subscript of an accented letter right below it; an empty group before it prevents that.
ACCENTED = re.compile(r"\\(?:bar|hat)\s*(?:\\[a-zA-Z]+|[a-zA-Z])")

log = logging.getLogger(__name__)


def formula(node: nodes.Element, *, block: bool) -> str:
    """The node's TeX as MathML; TeX that is not understood is a warning, and so fails the build."""
    try:
        mathml = tex2mathml(ACCENTED.sub(r"{{}\g<0>}", node.astext()), as_block=block)
        # Where no mathematical font is installed, browsers draw what is marked as an accent into the letter.
        return str(mathml).replace(' accent="true"', "")
    except MathError as error:
        log.warning("formula not understood: %s: %s", node.astext(), error, location=node)
        return f"<code>{node.astext()}</code>"


def visit_math(writer: Any, node: nodes.Element) -> None:
    writer.body.append(formula(node, block=False))
    raise nodes.SkipNode


def visit_math_block(writer: Any, node: nodes.Element) -> None:
    writer.body.append(writer.starttag(node, "div", CLASS="formula"))
    writer.body.append(formula(node, block=True))
    writer.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
