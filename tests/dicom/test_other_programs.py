"""Exported series in programs of others: the validator dciodvfy, and a viewer's library in Chromium."""

import base64
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ldae.dicom.write import DerivedSeries, write_dicom_series
from ldae.volume import Volume
from tests.browser import CHROMIUM, SOFTWARE_GL

pytest.importorskip("pydicom")
pytestmark = pytest.mark.slow

LIBRARIES = ("cornerstone-core@2.6.1", "dicom-parser@1.8.21", "cornerstone-wado-image-loader@4.13.2")
SCRIPTS = (
    "cornerstone-core/dist/cornerstone.min.js",
    "dicom-parser/dist/dicomParser.min.js",
    "cornerstone-wado-image-loader/dist/cornerstoneWADOImageLoaderNoWebWorkers.bundle.min.js",
)
SHOW = """async encoded => {
    const loader = cornerstoneWADOImageLoader
    loader.external.cornerstone = cornerstone
    loader.external.dicomParser = dicomParser
    const bytes = Uint8Array.from(atob(encoded), letter => letter.charCodeAt(0))
    const image = await cornerstone.loadImage(loader.wadouri.fileManager.add(new Blob([bytes])))
    const element = document.querySelector("div")
    cornerstone.enable(element)
    cornerstone.displayImage(element, image)
    cornerstone.draw(element)
    const canvas = document.createElement("canvas")
    canvas.width = image.columns
    canvas.height = image.rows
    const viewport = cornerstone.getDefaultViewport(canvas, image)
    cornerstone.renderToCanvas(canvas, image, {...viewport, pixelReplication: true})
    const shown = canvas.getContext("2d").getImageData(0, 0, image.columns, image.rows).data
    return {
        values: Array.from(image.getPixelData(), stored => stored * image.slope + image.intercept),
        shown: Array.from(shown).filter((_, index) => index % 4 == 0),
        window: [image.windowCenter, image.windowWidth],
        spacing: [image.columnPixelSpacing, image.rowPixelSpacing],
    }
}"""


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-3, 0.0), (1e-6, 0.2), (3e3, -1e6), (0.0, 0.25)])
@pytest.mark.parametrize("reference", [False, True])
def test_dciodvfy_finds_no_error(
    tmp_path: Path, make_dicom: Callable, blob: Volume, scale: float, shift: float, reference: bool
) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not on PATH; it is in Debian's package dicom3tools")
    like = None
    if reference:
        make_dicom(tmp_path / "reference")
        like = tmp_path / "reference"
    write_dicom_series(Volume(blob.data * scale + shift, blob.affine), tmp_path / "out", DerivedSeries(reference=like))
    for path in sorted((tmp_path / "out").iterdir()):
        said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        assert "MRImage" in said.stderr
        assert not [line for line in said.stderr.splitlines() if line.startswith("Error")]


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with the viewer's library, from npm."""
    folder = tmp_path_factory.mktemp("npm")
    if CHROMIUM is None or shutil.which("npm") is None:
        pytest.skip("needs Chromium and npm on PATH")
    packed = subprocess.run(["npm", "pack", *LIBRARIES], cwd=folder, capture_output=True, text=True, check=False)
    if packed.returncode:
        pytest.skip(f"npm cannot fetch {', '.join(LIBRARIES)}")
    for archive in folder.glob("*.tgz"):
        with tarfile.open(archive) as members:
            members.extractall(folder / archive.name.rpartition("-")[0], filter="data")
    page = folder / "viewer.html"
    scripts = [f'<script src="{script.replace("/", "/package/", 1)}"></script>' for script in SCRIPTS]
    page.write_text("\n".join(['<div style="width: 256px; height: 256px"></div>', *scripts]))
    return page


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-3, 0.0), (3.0, -500.0)])
def test_cornerstone_shows_the_intensities(
    tmp_path: Path, viewer: Path, blob: Volume, scale: float, shift: float
) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    volume = Volume(blob.data / blob.data.max() * 1000 * scale + shift, np.diag([2.0, 2.0, 3.0, 1.0]))
    write_dicom_series(volume, tmp_path / "out", DerivedSeries())
    index = volume.data.shape[2] // 2
    file = sorted((tmp_path / "out").iterdir())[index]
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE_GL)
        page = browser.new_page()
        page.goto(viewer.as_uri())
        seen = page.evaluate(SHOW, base64.b64encode(file.read_bytes()).decode())
        browser.close()
    plane, (low, high) = volume.data[:, :, index].T.ravel(), (volume.data.min(), volume.data.max())
    np.testing.assert_allclose(seen["values"], plane, atol=(high - low) / 65535)
    np.testing.assert_allclose(seen["spacing"], volume.spacing[:2], rtol=1e-6)
    assert seen["window"][1] >= 1
    # Black to white over the image's range, but for a level of rounding at either end.
    np.testing.assert_allclose(seen["shown"], (plane - low) / (high - low) * 255, atol=3)
