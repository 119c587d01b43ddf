"""The dashboard in a real Chromium: what a researcher does with it, and what a hostile text cannot do."""

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import Ledger, LedgerReader
from cdcda_flower.runs.progress import Progress
from cdcda_flower.types import UserFailure, Verdict
from dashboard_runs import HOSTILE, write_run
from experiments.dashboard.catalog import Catalog
from experiments.dashboard.dashboard_command import server_of
from experiments.dashboard.single_file import html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian's package chromium)"),
]

TOKEN = "test-token"
VIEWS = (
    "runs",
    "run/alpha",
    "people/alpha",
    f"person/alpha/{HOSTILE}",
    "filters/alpha",
    "compare?left=alpha&right=beta&a=cdcda",
)


@dataclass(frozen=True)
class Shown:
    """A page, the dashboard's address, and what the page complained of."""

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)

    def open(self, view: str) -> Page:
        """Opens a view and waits for its heading."""
        self.page.goto(f"{self.address}#/{view}")
        expect(self.page.locator("main h1").first).to_be_visible()
        return self.page


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "runs"
    write_run(folder, "alpha")
    write_run(folder, "beta", shift=1.0)
    return folder


@contextmanager
def served(runs: Path, port: int = 0) -> Iterator[str]:
    """Serves the runs; yields the dashboard's address."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen()
    own = server_of(Catalog([], runs), token=TOKEN)
    thread = threading.Thread(target=own.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    own.should_exit = True
    thread.join(timeout=10)
    listening.close()


@pytest.fixture(scope="module")
def server(runs: Path) -> Iterator[str]:
    with served(runs) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM)
        yield found
        found.close()


@pytest.fixture
def shown(browser: Browser, server: str) -> Iterator[Shown]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light", accept_downloads=True)
    page = context.new_page()
    one = Shown(page, server)
    page.on("console", lambda message: one.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: one.complaints.append(str(error)))
    page.goto(f"{server}#token={TOKEN}")
    yield one
    context.close()
    assert one.complaints == []


def test_the_list_leads_to_a_run_and_back(shown: Shown) -> None:
    page = shown.open("runs")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("link", name="alpha", exact=True).click()
    expect(page.locator("h1")).to_contain_text("alpha")
    expect(
        page.get_by_text("cdcda is better than direct-ft for 14 of 40 people, worse for 13, equal for 13.")
    ).to_be_visible()
    page.get_by_label("baseline").select_option("device")
    expect(
        page.get_by_text("cdcda is better than device for 40 of 40 people, worse for 0, equal for 0.")
    ).to_be_visible()
    assert "against=device" in page.url
    page.reload()
    expect(page.get_by_label("baseline")).to_have_value("device")


def test_the_token_leaves_the_address_and_opens_further_tabs(shown: Shown, server: str) -> None:
    asked: list[str] = []
    shown.page.context.on("request", lambda request: asked.append(request.url))
    expect(shown.page).to_have_url(server)
    shown.page.reload()
    with shown.page.context.expect_page() as tab:
        shown.page.get_by_role("link", name="alpha", exact=True).click(button="middle")
    expect(tab.value.locator("h1")).to_contain_text("alpha")
    expect(tab.value).to_have_url(f"{server}#/run/alpha")
    assert len(asked) > 2
    assert not any(TOKEN in url for url in asked)
    assert shown.page.context.cookies() == []


def test_a_link_without_the_token_says_which_to_open(browser: Browser, server: str) -> None:
    page = browser.new_page()
    page.goto(f"{server}#/run/alpha")
    expect(page.get_by_role("alert")).to_contain_text("Open the link that `cdcda dashboard` printed")
    # In the tab that is open, this is no new page.
    page.goto(f"{server}#token={TOKEN}")
    expect(page.get_by_role("heading", name="2 runs")).to_be_visible()
    page.close()


def test_a_lost_line_is_taken_up_again(browser: Browser, runs: Path) -> None:
    page = browser.new_page()
    live = write_run(runs, "lost", people=4, status="running")
    try:
        with served(runs) as address:
            page.goto(f"{address}#token={TOKEN}")
            expect(page.locator("tbody tr", has_text="lost")).to_contain_text("running")
        live.update(status="finished", finished="2026-01-01T10:10:00+00:00")
        with served(runs, int(address.rstrip("/").rpartition(":")[2])):
            expect(page.locator("tbody tr", has_text="lost")).to_contain_text("finished", timeout=15_000)
    finally:
        page.close()
        shutil.rmtree(live.path)


def test_people_are_sorted_filtered_and_marked_everywhere(shown: Shown) -> None:
    page = shown.open("people/alpha")
    grid = page.get_by_role("table", name="People and methods")
    expect(page.get_by_text("40 of 120 rows")).to_be_visible()
    page.get_by_label("person", exact=True).fill("p03")
    expect(page.get_by_text("1 of 120 rows")).to_be_visible()
    grid.get_by_role("checkbox").first.check()
    expect(page.get_by_text("1 marked: p03")).to_be_visible()
    # The same person stands out in every figure: all others fade.
    bars = page.locator(".chart").first.locator(".bars .point path")
    expect(bars).to_have_count(40)
    opacities = [bar.evaluate("(path) => path.style.opacity") for bar in bars.all()]
    assert opacities.count("1") == 1
    assert "marked=p03" in page.url
    page.reload()
    expect(page.get_by_text("1 marked: p03")).to_be_visible()
    page.get_by_label("person", exact=True).fill("")
    page.get_by_label("rows of").select_option("all methods")
    expect(page.get_by_text("120 of 120 rows")).to_be_visible()
    page.get_by_label("marked people only").check()
    expect(page.get_by_text("3 of 120 rows")).to_be_visible()
    page.get_by_role("button", name="person", exact=True).click()
    expect(page.get_by_role("columnheader", name="person ↑")).to_have_attribute("aria-sort", "ascending")


def test_people_are_selected_in_a_figure(shown: Shown) -> None:
    page = shown.open("people/alpha")
    figure = page.locator(
        "section.card", has=page.get_by_role("heading", name="cdcda against direct-ft", exact=True)
    ).locator(".chart")
    expect(figure.locator(".points path")).to_have_count(40)
    figure.evaluate("(element) => element.scrollIntoView({ block: 'center' })")
    box = figure.locator(".nsewdrag").bounding_box()
    assert box
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] * 0.4, steps=8)
    page.mouse.up()
    # direct-ft has 1.0 throughout, so the upper part holds those whose error grew: the 13 who lose.
    expect(page.get_by_text("13 marked")).to_be_visible()


def test_a_moved_threshold_says_what_it_would_keep(shown: Shown) -> None:
    page = shown.open("filters/alpha")
    said = page.locator("#would-keep")
    expect(said).to_have_text("These thresholds keep 40 of 80 pairs (50.0 %); the run kept 40.")
    slider = page.locator("[data-threshold='consistency-low']")
    # Second pairs have 0.48, 0.47, 0.46, ...: three of them reach 0.46.
    slider.fill("0.46")
    expect(said).to_contain_text("These thresholds keep 43 of 80 pairs")
    assert "consistency-low=0.46" in page.url
    slider.press("ArrowLeft")
    expect(said).to_contain_text("These thresholds keep 44 of 80 pairs")
    page.get_by_role("button", name="Back to the run's thresholds").click()
    expect(said).to_contain_text("These thresholds keep 40 of 80 pairs")


@pytest.fixture
def plugged(runs: Path) -> Iterator[RunFolder]:
    """A run with a filter of its owner's own, which keeps the first three of eight pairs."""
    folder = write_run(runs, "plugged", people=4)
    pairs = LedgerReader(folder.ledger_path).pairs()
    own = [
        Verdict(pair_id=pair.id, filter="mine:Mine", keep=place < 3, score=7.5 + place, reason="its own")
        for place, pair in enumerate(pairs)
    ]
    with Ledger(folder.ledger_path) as ledger:
        ledger.add_verdicts(own)
    yield folder
    shutil.rmtree(folder.path)


def test_a_filter_of_ones_own_is_used_or_not_and_has_no_threshold(shown: Shown, plugged: RunFolder) -> None:
    page = shown.open("filters/plugged")
    keeps, own = page.locator("#would-keep"), page.locator("section[data-key='mine:Mine']")
    expect(keeps).to_contain_text("These thresholds keep 4 of 8 pairs")
    expect(own.locator("h2")).to_have_text("mine:Mine")
    expect(own.locator("input[type='range']")).to_have_count(0)
    page.get_by_label("use the filter mine:Mine").check()
    expect(keeps).to_contain_text("These thresholds keep 2 of 8 pairs")
    expect(page.get_by_text("rejected by mine:Mine", exact=True)).to_be_visible()
    page.get_by_label("use the filter consistency").uncheck()
    expect(keeps).to_contain_text("These thresholds keep 3 of 8 pairs")
    shown.open("person/plugged/p01")
    expect(page.locator("td", has_text="mine:Mine").first).to_be_attached()


def test_two_runs_are_compared(shown: Shown) -> None:
    page = shown.open("runs")
    page.get_by_label("Select alpha").check()
    page.get_by_label("Select beta").check()
    page.get_by_role("button", name="Compare the two selected runs").click()
    expect(page.get_by_text("cdcda in beta is better than cdcda in alpha for")).to_be_visible()
    page = shown.open("compare?left=alpha&right=beta&a=cdcda&b=cdcda")
    expect(page.get_by_text("worse for 40, equal for 0.")).to_be_visible()
    page.locator("section", has=page.get_by_role("heading", name="Who loses most")).get_by_role("link").first.click()
    expect(page.get_by_role("heading", name="1. What the device has")).to_be_visible()


def test_thousands_of_people_are_drawn_without_webgl(shown: Shown, runs: Path) -> None:
    # Plotly's WebGL compiles code from text, which the page's policy forbids.
    large = write_run(runs, "thousands", people=1600)
    try:
        page = shown.open("people/thousands")
        figure = page.locator(
            "section.card", has=page.get_by_role("heading", name="cdcda against direct-ft", exact=True)
        )
        expect(figure.locator(".points path")).to_have_count(1600, timeout=30_000)
        expect(page.get_by_text("WebGL")).to_have_count(0)
    finally:
        # The page asks for what it shows as long as it is open.
        shown.page.goto("about:blank")
        shutil.rmtree(large.path)


def test_a_run_without_results_is_not_replaced_by_another(shown: Shown) -> None:
    page = shown.open("compare?left=nosuch&right=beta")
    expect(page.get_by_role("alert")).to_contain_text("Run nosuch has no results that can be compared.")


def test_a_hostile_text_stays_text(shown: Shown) -> None:
    page = shown.open(f"person/alpha/{HOSTILE}")
    text = page.locator(".text", has_text="<script>window.hacked=1</script>").first
    expect(text).to_contain_text("<img src=x onerror='window.hacked=2'>")
    assert page.evaluate("() => window.hacked") is None
    assert page.locator("main script, main img").count() == 0
    assert len(text.inner_text()) > 10_000
    # It scrolls in its box and hides nothing below it.
    box = text.bounding_box()
    assert box
    assert box["height"] < 260
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_everything_goes_by_keyboard(shown: Shown) -> None:
    page = shown.open("runs")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    assert page.url.endswith("#/runs")
    page.get_by_role("link", name="Skip to content").focus()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.textContent") == "alpha":
            break
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("alpha")
    page = shown.open("people/alpha")
    page.get_by_role("table", name="People and methods").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("columnheader", name="✓")).to_have_attribute("aria-sort", "ascending")


def test_a_redraw_keeps_what_the_reader_holds(shown: Shown, runs: Path) -> None:
    live = write_run(runs, "held", people=40, status="running")
    try:
        page = shown.open("people/held")
        bars = page.locator("section.card", has=page.get_by_role("heading", name="Who gains with cdcda over direct-ft"))
        bars.get_by_role("button", name="Table").click()
        grid = page.get_by_role("table", name="People and methods")
        grid.evaluate("(box) => { box.scrollTop = 600; }")
        grid.locator("[aria-rowindex='24'] a").focus()
        name = page.evaluate("() => document.activeElement.textContent")
        with redrawn(page):
            _fail(live)
        expect(bars.locator("tbody tr")).to_have_count(40)
        assert grid.evaluate("(box) => box.scrollTop") == 600
        assert page.evaluate("() => document.activeElement.textContent") == name
        find = page.get_by_label("person", exact=True)
        find.fill("p03")
        find.evaluate("(input) => input.setSelectionRange(1, 2)")
        with redrawn(page):
            _fail(live)
        expect(find).to_be_focused()
        assert find.evaluate("(input) => [input.selectionStart, input.selectionEnd]") == [1, 2]
        page = shown.open("person/held/p03")
        expect(page.get_by_role("heading", name="p03")).to_be_visible()
        turned = page.locator("details").evaluate_all("(all) => all.map((one) => (one.open = !one.open))")
        with redrawn(page):
            _fail(live)
        assert page.locator("details").evaluate_all("(all) => all.map((one) => one.open)") == turned
    finally:
        # The page asks for what it shows as long as it is open.
        shown.page.goto("about:blank")
        shutil.rmtree(live.path)


def _fail(live: RunFolder) -> None:
    with Ledger(live.ledger_path) as ledger:
        ledger.add_failure(UserFailure(user_id="p00", phase="evaluate", reason="made"))


@contextmanager
def redrawn(page: Page) -> Iterator[None]:
    """Waits until what is done inside has drawn the page anew."""
    page.locator("main h1").evaluate("(heading) => heading.setAttribute('data-old', '')")
    yield
    expect(page.locator("main h1:not([data-old])")).to_be_visible(timeout=15_000)


@pytest.mark.parametrize("view", ["run/alpha", "people/alpha", "compare?left=alpha&right=beta&a=cdcda"])
def test_the_focus_stays_on_a_choice_and_a_table_stays_open(shown: Shown, view: str) -> None:
    page = shown.open(view)
    page.get_by_role("button", name="Table").first.click()
    metric = page.get_by_label("metric")
    metric.focus()
    with redrawn(page):
        metric.press("ArrowDown")
    expect(metric).to_have_value("rmse")
    expect(metric).to_be_focused()
    expect(page.get_by_role("button", name="Table").first).to_have_attribute("aria-expanded", "true")


def test_sorting_by_keyboard_keeps_the_focus(shown: Shown) -> None:
    page = shown.open("people/alpha")
    page.get_by_role("button", name="history", exact=True).press("Enter")
    expect(page.get_by_role("button", name="history ↓")).to_be_focused()


def test_figures_have_their_numbers_and_downloads(shown: Shown) -> None:
    page = shown.open("people/alpha")
    figure = page.locator("section.card", has=page.get_by_role("heading", name="Who gains with cdcda over direct-ft"))
    expect(figure.locator(".bars .point path")).to_have_count(40)
    figure.get_by_role("button", name="Table").click()
    expect(figure.locator("tbody tr")).to_have_count(40)
    with page.expect_download() as csv:
        figure.get_by_role("button", name="CSV").click()
    lines = csv.value.path().read_text(encoding="utf-8").splitlines()
    assert lines[0] == "person,gain,direct-ft,cdcda"
    assert len(lines) == 41
    for kind, start in (("PNG", b"\x89PNG"), ("SVG", b"<svg")):
        with page.expect_download() as picture:
            figure.get_by_role("button", name=kind).click()
        assert picture.value.path().read_bytes().startswith(start)


def test_a_live_run_is_followed_to_its_end(shown: Shown, runs: Path) -> None:
    live = write_run(runs, "live", people=4, status="running")
    try:
        page = shown.open("runs")
        progress = Progress(live.progress_path)
        progress.start("personalize", 4)
        progress.advance(3, 900)
        expect(page.locator("#live")).to_contain_text("personalize: 3 of 4", timeout=15_000)
        page.reload()
        expect(page.locator("tbody tr", has_text="live")).to_contain_text("running")
        live.update(status="finished", finished="2026-01-01T10:10:00+00:00")
        expect(page.locator("tbody tr", has_text="live")).to_contain_text("finished", timeout=15_000)
        expect(page.locator("#live")).to_be_hidden()
    finally:
        # The page asks for what it shows as long as it is open.
        shown.page.goto("about:blank")
        shutil.rmtree(live.path)


def test_a_run_that_appears_is_listed(shown: Shown, runs: Path, tmp_path: Path) -> None:
    page = shown.open("runs")
    expect(page.locator("tbody tr")).to_have_count(2)
    # It appears whole: nothing of it changes afterwards.
    late = write_run(tmp_path / "elsewhere", "late", people=2).path.rename(runs / "late")
    try:
        expect(page.get_by_role("link", name="late", exact=True)).to_be_visible(timeout=15_000)
        expect(page.locator("tbody tr")).to_have_count(3)
    finally:
        # The page asks for what it shows as long as it is open.
        shown.page.goto("about:blank")
        shutil.rmtree(late)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_no_view_has_a_serious_fault_of_accessibility(shown: Shown, view: str, theme: str) -> None:
    page = shown.open(view)
    if theme == "dark":
        page.get_by_role("button", name="Switch between light and dark").click()
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("main h1").first).to_be_visible()
    page.wait_for_timeout(600)
    found = Axe().run(page).response["violations"]
    serious = [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in {"serious", "critical"}]
    assert serious == []


@pytest.mark.parametrize("width", [1440, 800, 390])
def test_no_view_is_wider_than_its_window(shown: Shown, width: int) -> None:
    shown.page.set_viewport_size({"width": width, "height": 900})
    for view in VIEWS:
        page = shown.open(view)
        page.wait_for_timeout(300)
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), view


def test_one_file_shows_the_same_without_a_server(browser: Browser, runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(html([RunFolder(runs / "alpha")]), encoding="utf-8")
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for view in ("runs", "run/alpha", "people/alpha", f"person/alpha/{HOSTILE}", "filters/alpha", "compare"):
        page.goto(f"{file.as_uri()}#/{view}")
        page.reload()
        expect(page.locator("main h1").first).to_be_visible()
        expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_text("cdcda is better than direct-ft for 14 of 40 people")).to_be_visible()
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    page.close()


def test_a_thousand_people_times_eleven_rows_scroll(shown: Shown, runs: Path) -> None:
    large = write_run(runs, "large", people=1000)
    try:
        page = shown.open("people/large")
        expect(page.get_by_text("1,000 of 3,000 rows")).to_be_visible()
        grid = page.get_by_role("table", name="People and methods")
        started = time.monotonic()
        for place in range(0, 60_000, 6_000):
            grid.evaluate(f"(box) => {{ box.scrollTop = {place}; }}")
        grid.evaluate("(box) => { box.scrollTop = box.scrollHeight; }")
        expect(grid.get_by_role("row").last).to_have_attribute("aria-rowindex", "1001")
        # Only what is in sight is in the page.
        assert grid.get_by_role("row").count() < 80
        assert json.dumps(time.monotonic() - started)
    finally:
        # The page asks for what it shows as long as it is open.
        shown.page.goto("about:blank")
        shutil.rmtree(large.path)
