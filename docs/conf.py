"""Sphinx with MyST-NB and Furo.

Sphinx, because autodoc reads the type hints and docstrings that the code already carries, because `-W` turns every
broken reference into a failed build, and because it has outlived many a site generator. MyST-NB, so that pages are the
same Markdown as the README, and those of the gallery run. Nothing is fetched, neither while building nor while reading.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from ldae import __version__  # noqa: E402

project = "ldae"
author = "The ldae authors"
copyright = "The ldae authors, Apache-2.0"
release = version = __version__

extensions = [
    "myst_nb",  # myst_parser, and pages that run
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",  # docs/_ext
    "reference",  # docs/_ext
    "gallery",  # docs/_ext
]
exclude_patterns = ["_build", "gallery/phantoms", "gallery/runs"]

# A page runs again when its code has changed, else its outputs are taken from the cache beside the built pages.
nb_execution_mode = "cache"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
# Progress bars and warnings of training are not what a page is about.
nb_output_stderr = "remove"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["ldae.css"]
html_title = f"ldae {release}"
html_copy_source = False
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# '--set' must stay two hyphens.
smartquotes = False

# `name` in a docstring is code.
default_role = "code"
# What scikit-learn adds to every estimator is in its own documentation.
autodoc_default_options = {"members": True, "member-order": "bysource", "exclude-members": "set_score_request"}
# Overridden hooks of torch and Lightning would bring the docstrings of those packages in.
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_display_short_literal_types = True
maximum_signature_line_length = 100
