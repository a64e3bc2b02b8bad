"""The report in a real browser: headless Chromium, no network; skipped where there is none."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ldae.report import write_report
from tests.browser import CHROMIUM, SOFTWARE_GL

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")]


@pytest.fixture(scope="module")
def report(copy_of_run: Callable[[], Path]) -> Path:
    return write_report(copy_of_run())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE_GL)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page(browser: Any, report: Path) -> Any:
    """The report opened at 1280 px; whatever it complains of or asks the network for is in `page.complaints`."""
    opened = browser.new_page(viewport={"width": 1280, "height": 800})
    opened.complaints = []
    opened.on(
        "console", lambda message: message.type in ("error", "warning") and opened.complaints.append(message.text)
    )
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on("request", lambda request: request.url.startswith("http") and opened.complaints.append(request.url))
    opened.goto(report.as_uri())
    return opened


def open_viewer(page: Any, index: int) -> Any:
    viewer = page.query_selector_all(".viewer")[index]
    viewer.scroll_into_view_if_needed()
    page.wait_for_function("each => each.classList.contains('ready')", arg=viewer, timeout=120_000)
    return viewer


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


def test_tables_are_saved_as_csv(page: Any, tmp_path: Path) -> None:
    with page.expect_download() as found:
        page.locator("#key-figures .tools button", has_text="Save as CSV").click()
    found.value.save_as(tmp_path / "table.csv")
    import pandas as pd

    table = pd.read_csv(tmp_path / "table.csv", encoding="utf-8-sig")
    assert table.columns[:2].tolist() == ["Metric", "Value"]
    assert len(table) == page.locator("#key-figures tbody tr").count()
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
