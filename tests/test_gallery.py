"""The notebook runs without a screen on one's own scan, and every page of the gallery has a place on the index."""

import json
import re
from pathlib import Path

import pytest

from ldae.phantom.cohort import PhantomConfig, synthesise_cohort

GALLERY = Path(__file__).parents[1] / "docs" / "gallery"
NOTEBOOK = GALLERY / "your_scan.ipynb"


def test_each_page_is_short_and_on_the_index() -> None:
    index = (GALLERY / "index.md").read_text(encoding="utf-8")
    pages = {path.stem for path in (*GALLERY.glob("*.md"), *GALLERY.glob("*.ipynb"))} - {"index"}
    asked = set(re.findall(r"^(\w+): ", index, re.MULTILINE))
    assert asked == pages == set(re.findall(r"^(\w+)$", index, re.MULTILINE))
    for path in GALLERY.glob("*.md"):
        cells = re.findall(r"```\{code-cell\} python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
        assert sum(bool(line.strip()) for cell in cells for line in cell.splitlines()) <= 40, path.name


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")


@pytest.mark.slow
def test_the_notebook_runs_on_ones_own_scan(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    synthesise_cohort(tmp_path / "own", PhantomConfig(n_subjects=1, voxel_size_mm=3, max_sessions=1), workers=1)
    (scan,) = (tmp_path / "own").glob("sub-*/ses-*/anat/*_T1w.nii.gz")
    text, changed = re.subn(r"phantoms/[^ ]*?_T1w\.nii\.gz", str(scan), NOTEBOOK.read_text(encoding="utf-8"))
    assert changed == 1
    notebook = nbformat.reads(text, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("text/html" in each for each in shown) >= 3, "objects show themselves"
    assert "image/png" in shown[-1]
    assert (tmp_path / "runs" / "edited.nii.gz").is_file()
