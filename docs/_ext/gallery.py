"""The gallery: its phantom cohort before the pages run, and each page's last picture on the index."""

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from ldae.phantom.cohort import PhantomConfig, synthesise_cohort

COHORT = PhantomConfig(n_subjects=60, voxel_size_mm=3, max_sessions=3, seed=1)


class Thumbnails(Directive):
    """`{thumbnails}`: a line a page, `page: question`."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        lines = [line.split(": ", 1) for line in self.content if line.strip()]
        return [Place("", pages=[f"gallery/{page}" for page, _ in lines], words=[words for _, words in lines])]


class Place(nodes.General, nodes.Element):
    """Where thumbnails come, once every page has run."""


def make_cohort(app: Sphinx) -> None:
    synthesise_cohort(Path(app.srcdir) / "gallery" / "phantoms", COHORT, workers=2)


def fill(app: Sphinx, tree: nodes.document, page: str) -> None:
    for place in list(tree.findall(Place)):
        grid = nodes.container(classes=["gallery"])
        for name, words in zip(place["pages"], place["words"], strict=True):
            pictures = list(app.env.get_doctree(name).findall(nodes.image))
            link = nodes.reference("", "", refuri=app.builder.get_relative_uri(page, name), internal=True)
            if pictures:
                link += nodes.image(uri=pictures[-1]["uri"], candidates={"*": pictures[-1]["uri"]}, alt=words)
            link += nodes.inline("", words)
            grid += nodes.paragraph("", "", link)
        place.replace_self(grid)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(Place)
    app.add_directive("thumbnails", Thumbnails)
    app.connect("builder-inited", make_cohort)
    app.connect("doctree-resolved", fill)
    return {"parallel_read_safe": True}
