"""The report in a real browser: headless Chromium, no network; skipped where there is none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from ldae.report import write_report
from tests.browser import CHROMIUM, SOFTWARE_GL, WIDTHS, open_viewer, picture_sections, wait_for_charts

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")]


@pytest.fixture(scope="module")
def report(run: Path) -> Path:
    return write_report(run)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE_GL)
        yield opened
        opened.close()


def open_page(browser: Any, report: Path, width: int) -> Any:
    """The report; whatever it complains of or asks the network for is in its `complaints`."""
    opened = browser.new_page(viewport={"width": width, "height": 800})
    opened.complaints = []
    opened.on(
        "console", lambda message: message.type in ("error", "warning") and opened.complaints.append(message.text)
    )
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on("request", lambda request: request.url.startswith("http") and opened.complaints.append(request.url))
    opened.goto(report.as_uri())
    wait_for_charts(opened)
    return opened


@pytest.fixture(scope="module")
def page(browser: Any, report: Path) -> Any:
    return open_page(browser, report, 1280)


def choose(control: Any, value: int) -> None:
    control.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }", value)


def test_page_fits_a_small_screen_and_every_chart_is_drawn(page: Any) -> None:
    for width in (400, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        # The charts follow the new width a moment later; a page that never fits runs into the time limit.
        page.wait_for_function("document.documentElement.scrollWidth <= innerWidth", timeout=10_000)
    assert page.locator(".chart .main-svg").count() > 0
    assert page.evaluate("[...document.querySelectorAll('.chart')].every(c => c.querySelector('.main-svg'))")
    assert page.locator(".chart img").count() == 0


def test_slider_moves_the_edit_and_its_caption(page: Any) -> None:
    viewer = open_viewer(page, 1)
    synthetic, original = (viewer.query_selector(f".{name} canvas") for name in ("synthetic", "original"))
    slider, words = viewer.query_selector("input.choice"), viewer.query_selector(".chosen")
    choose(slider, 0)
    page.wait_for_timeout(1500)
    before = (synthetic.screenshot(), original.screenshot(), words.inner_text())
    choose(slider, 6)
    page.wait_for_timeout(1500)
    after = (synthetic.screenshot(), original.screenshot(), words.inner_text())
    assert before[0] != after[0]
    assert before[1] == after[1]
    assert "step \u22123" in before[2]
    assert "step +3" in after[2]


def test_difference_can_be_laid_over_and_crosshairs_are_linked(page: Any) -> None:
    viewer = open_viewer(page, 0)
    synthetic, original = (viewer.query_selector(f".{name} canvas") for name in ("synthetic", "original"))
    without = synthetic.screenshot()
    viewer.query_selector("input.overlay").check()
    page.wait_for_timeout(1500)
    assert synthetic.screenshot() != without
    where, other = viewer.query_selector(".where").inner_text(), synthetic.screenshot()
    original.scroll_into_view_if_needed()
    page.wait_for_timeout(1500)
    box = original.bounding_box()
    page.mouse.click(box["x"] + 0.22 * box["width"], box["y"] + 0.4 * box["height"])
    page.wait_for_timeout(1500)
    assert viewer.query_selector(".where").inner_text() != where
    assert synthetic.screenshot() != other


def test_hasty_changes_of_scan_end_with_the_last_one(page: Any) -> None:
    viewer = open_viewer(page, 0)
    page.evaluate(
        """async (figure) => {
            const scan = figure.querySelector("select.scan");
            for (const value of ["1", "2", "0", "1"]) { scan.value = value; scan.dispatchEvent(new Event("change")); }
        }""",
        viewer,
    )
    page.wait_for_timeout(2500)
    hasty = viewer.query_selector(".synthetic canvas").screenshot()
    choose_scan = "e => { e.value = '1'; e.dispatchEvent(new Event('change')); }"
    viewer.query_selector("select.scan").evaluate(choose_scan)
    page.wait_for_timeout(1500)
    assert viewer.query_selector(".synthetic canvas").screenshot() == hasty
    assert "failed" not in viewer.query_selector(".where").inner_text()


def test_original_and_synthetic_are_blended_and_flicker(page: Any) -> None:
    viewer = open_viewer(page, 1)
    canvas, kind = viewer.query_selector(".synthetic canvas"), viewer.query_selector(".kind")
    before = canvas.screenshot()
    choose(viewer.query_selector("input.blend"), 0)
    page.wait_for_timeout(1000)
    assert kind.inner_text() == "ORIGINAL"
    assert canvas.screenshot() != before
    flicker = viewer.query_selector("input.flicker")
    flicker.check()
    for word in ("ORIGINAL", "SYNTHETIC", "ORIGINAL"):
        page.wait_for_function("([each, word]) => each.textContent === word", arg=[kind, word], timeout=10_000)
    flicker.uncheck()
    assert kind.inner_text() == "SYNTHETIC"


def test_keys_move_the_crosshair_and_the_wheel_is_the_pages_until_a_click(page: Any) -> None:
    viewer = open_viewer(page, 0)
    where, overlay = viewer.query_selector(".where"), viewer.query_selector("input.overlay")
    for key in ("ArrowLeft", "ArrowUp", "PageUp"):
        viewer.query_selector(".panes").focus()
        before = where.inner_text()
        page.keyboard.press(key)
        page.wait_for_function("([each, text]) => each.textContent !== text", arg=[where, before], timeout=30_000)
    shown = overlay.is_checked()
    page.keyboard.press("d")
    assert overlay.is_checked() != shown
    canvas = viewer.query_selector(".original canvas")
    box, text, top = canvas.bounding_box(), where.inner_text(), page.evaluate("scrollY")
    page.mouse.move(box["x"] + 0.15 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.wheel(0, 40)
    page.wait_for_function("top => scrollY > top", arg=top, timeout=30_000)
    assert where.inner_text() == text
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + 0.15 * box["width"], box["y"] + 0.5 * box["height"])
    page.wait_for_timeout(1000)
    text, top = where.inner_text(), page.evaluate("scrollY")
    page.mouse.wheel(0, 40)
    page.wait_for_function("([each, text]) => each.textContent !== text", arg=[where, text], timeout=30_000)
    assert page.evaluate("scrollY") <= top


def test_tables_are_saved_as_csv(page: Any, tmp_path: Path) -> None:
    with page.expect_download() as found:
        page.locator("#key-figures .tools button", has_text="Save as CSV").first.click()
    found.value.save_as(tmp_path / "table.csv")
    import pandas as pd

    table = pd.read_csv(tmp_path / "table.csv", encoding="utf-8-sig")
    assert table.columns[:2].tolist() == ["Metric", "Value"]
    assert len(table) == page.locator("#key-figures table").first.locator("tbody tr").count()
    assert "\u2212" not in (tmp_path / "table.csv").read_text(encoding="utf-8-sig")


def test_print_leaves_out_what_only_a_screen_can_do(page: Any) -> None:
    page.emulate_media(media="print")
    try:
        assert not page.locator(".viewer").first.is_visible()
        assert not page.locator(".tools").first.is_visible()
        assert page.pdf(format="A4", landscape=True).startswith(b"%PDF")
    finally:
        page.emulate_media(media="screen")


def test_nothing_was_complained_of_or_fetched(page: Any) -> None:
    for index in range(page.locator(".viewer").count()):
        open_viewer(page, index)
    assert page.complaints == []


def test_without_scripts_pictures_and_a_word_are_left(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    still = context.new_page()
    still.goto(report.as_uri())
    assert still.locator(".chart img").count() > 0
    assert still.get_by_text("needs scripts").first.is_visible()
    assert not still.locator(".viewer .stage").first.is_visible()
    context.close()


@pytest.mark.parametrize("width", [1280, 420])
def test_every_section_fits_its_screen_without_complaints(browser: Any, report: Path, width: int) -> None:
    sized = open_page(browser, report, width)
    for index in range(sized.locator(".viewer").count()):
        open_viewer(sized, index)
    contents = sized.locator("nav ul")
    if width < 700:
        assert not contents.is_visible()
        sized.locator("nav summary").click()
    assert contents.is_visible()
    for section in sized.query_selector_all("section"):
        fits = section.evaluate("each => each.scrollWidth <= each.clientWidth")
        assert fits, f"{section.get_attribute('id')} is wider than its screen"
    assert sized.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert sized.complaints == []
    sized.close()


def test_every_section_is_pictured_at_both_widths_and_printed(browser: Any, report: Path) -> None:
    """To be looked at: they stay in build/screenshots."""
    out = Path(__file__).parents[2] / "build" / "screenshots"
    pictures = picture_sections(browser, report, out)
    sections = len(BeautifulSoup(report.read_text(encoding="utf-8"), "html.parser").select("section[id]"))
    assert len(pictures) == len(WIDTHS) * sections > 0
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.width <= int(path.stem.rsplit("_", 1)[1])
            assert np.asarray(picture.convert("L")).std() > 5, f"{path} is blank"
    assert (out / "printed.pdf").read_bytes().startswith(b"%PDF")
