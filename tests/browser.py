"""The browser of the tests that need one, and the sections of a report as pictures: `python -m tests.browser REPORT OUT`."""

import shutil
import sys
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SOFTWARE_GL = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
WIDTHS = (420, 1280)


def wait_for_charts(page: Any) -> None:
    """Charts are drawn once their library is unpacked."""
    drawn = "[...document.querySelectorAll('.chart')].every(each => each.querySelector('.main-svg'))"
    page.wait_for_function(drawn, timeout=60_000)


def open_viewer(page: Any, index: int) -> Any:
    """A viewer of the report, its volumes shown."""
    viewer = page.query_selector_all(".viewer")[index]
    viewer.scroll_into_view_if_needed()
    page.wait_for_function("each => each.classList.contains('ready')", arg=viewer, timeout=120_000)
    return viewer


def picture_sections(browser: Any, report: Path, out: Path) -> list[Path]:
    """Each section of a report at each of `WIDTHS`, and the pages as they are printed, `printed.pdf`."""
    out.mkdir(parents=True, exist_ok=True)
    pictures = []
    for width in WIDTHS:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(report.as_uri())
        wait_for_charts(page)
        for index in range(page.locator(".viewer").count()):
            open_viewer(page, index)
        for section in page.query_selector_all("section[id]"):
            pictures.append(out / f"{section.get_attribute('id')}_{width}.png")
            section.screenshot(path=pictures[-1])
        page.pdf(path=out / "printed.pdf", prefer_css_page_size=True)
        page.close()
    return pictures


if __name__ == "__main__":
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE_GL)
        picture_sections(opened, Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
