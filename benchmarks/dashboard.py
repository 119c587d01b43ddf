"""The dashboard's page in a real browser: time to the first figure, memory, and how long it stands still during a run.

`python -m benchmarks.dashboard` needs Chromium; it prints a table and has no peer.
"""

import json
import multiprocessing
import random
import shutil
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
from playwright.sync_api import Browser, BrowserContext, Page, StorageState, sync_playwright

from cdcda_flower.config import read_defaults
from cdcda_flower.methods import METHODS, method_named
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.ledger import Ledger
from cdcda_flower.runs.progress import Progress
from experiments.dashboard.catalog import Catalog
from experiments.dashboard.dashboard_command import server_of
from experiments.dashboard.single_file import html
from experiments.launching.staging import find_app

PEOPLE = (100, 10_000)
VIEWS = ("run", "people", "filters", "compare")
WATCHED_S = 15
TOKEN = "benchmark"
# Notes every stretch of more than 50 ms in which the page answered nobody.
_LONG_TASKS = """
  window.longTasks = [];
  new PerformanceObserver((list) => list.getEntries().forEach((entry) => window.longTasks.push(entry.duration)))
    .observe({ entryTypes: ["longtask"] });
"""


def write_run(runs: Path, name: str, people: int, *, status: str = "finished") -> RunFolder:
    """Writes a run of so many people under all methods, with random ratings' errors; in SQL, as one commit a call takes minutes."""
    folder = RunFolder.create(runs, name)
    config = {
        **read_defaults(find_app().pyproject),
        "task": "lamp-3",
        "num-users": people,
        "methods": ",".join(METHODS),
    }
    folder.update(config=config, status=status, started="2026-01-01T10:00:00+00:00", data_digest="d")
    if status == "finished":
        folder.update(finished="2026-01-01T11:00:00+00:00", phases=[{"name": "share", "seconds": 9.0, "tokens": 0}])
    with Ledger(folder.ledger_path):
        pass  # makes the tables
    rng = random.Random(people)
    users = [f"u{number:05d}" for number in range(people)]
    pairs = [(f"{u}/{item}/{sample}", u, f"{u}-{item}") for u in users for item in range(2) for sample in range(2)]
    rows: dict[str, list[tuple[object, ...]]] = {
        "lengths": [(u, rng.randrange(4, 900)) for u in users],
        "uploads": [(u, "ratio", 10, 2, 2, 300) for u in users],
        "shared": [(u, f"{u}-{item}", "a text", "4") for u in users for item in range(2)],
        "pairs": [(pair, "like a text", "4", u, item, "g", "d", 1, 0) for pair, u, item in pairs],
        "verdicts": [
            (pair, name, 1, rng.random(), "") for pair, *_ in pairs for name in ("consistency", "diversity", "length")
        ],
        "selected": [(u, f"{u}/0/0") for u in users],
        "sent": [("cdcda", u, f"{u}/0/0") for u in users],
        "trainings": [
            (u, m.name, m.name, "", "w", 10, 1, 0, 300, 3, 1.5, 0.5, 2.0)
            for u in users
            for m in METHODS.values()
            if m.trains
        ],
        "results": [_result(u, name, rng) for u in users for name in METHODS],
    }
    with closing(sqlite3.connect(folder.ledger_path)) as connection, connection:
        for table, found in rows.items():
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(found[0]))})", found)
    return folder


def _result(user: str, method: str, rng: random.Random) -> tuple[object, ...]:
    error = float(rng.randrange(8))
    sums = {"n": 2.0, "unparsed": 0.0, "abs": error, "sq": error**2 / 2}
    return user, method, user if method_named(method).trains else None, 2, 0, json.dumps(sums), 1.0


@contextmanager
def served(runs: Path) -> Iterator[str]:
    """Serves the runs from a process of its own, as a user's dashboard is; nothing is in its memory yet."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(runs, listening), daemon=True)
    process.start()
    listening.close()
    try:
        yield address
    finally:
        process.terminate()
        process.join()


def _serve(runs: Path, listening: socket.socket) -> None:
    server_of(Catalog([], runs), token=TOKEN).run(sockets=[listening])


def _context(browser: Browser, address: str) -> BrowserContext:
    """Returns a new user of the browser, who has opened the printed link."""
    kept: StorageState = {
        "origins": [{"origin": address.rstrip("/"), "localStorage": [{"name": "token", "value": TOKEN}]}]
    }
    return browser.new_context(viewport={"width": 1440, "height": 900}, storage_state=kept)


def first_figure(browser: Browser, address: str, view: str, run: str) -> tuple[float, float, float]:
    """Returns seconds from a fresh page to the view's first figure, and the page's memory in MB: its heap, its process."""
    context = _context(browser, address)
    page = context.new_page()
    # The page, and no document yet.
    page.goto(f"{address}#/person/{run}/nobody")
    page.locator("main h1").first.wait_for(timeout=120_000)
    page.goto("about:blank")
    place = f"compare?left={run}&right={run}" if view == "compare" else f"{view}/{run}"
    started = time.perf_counter()
    page.goto(f"{address}#/{place}")
    page.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=120_000)
    seconds = time.perf_counter() - started
    page.wait_for_timeout(1500)
    heap = page.evaluate("() => performance.memory.usedJSHeapSize / 1e6")
    renderers = [p for p in psutil.process_iter(["cmdline"]) if "--type=renderer" in (p.info["cmdline"] or ())]
    resident = max(process.memory_info().rss for process in renderers) / 1e6
    context.close()
    return seconds, heap, resident


def longest_task(browser: Browser, address: str, live: RunFolder, view: str) -> float:
    """Returns the longest stretch, in milliseconds, in which the page stood still while a run went on beside it."""
    context = _context(browser, address)
    context.add_init_script(_LONG_TASKS)
    page = context.new_page()
    page.goto(f"{address}#/{view}/{live.path.name}")
    page.locator("main h1").first.wait_for()
    page.wait_for_timeout(3000)
    page.evaluate("() => { window.longTasks.length = 0; }")
    _go_on(page, live, view)
    found: float = page.evaluate("() => Math.max(0, ...window.longTasks)")
    context.close()
    return found


def _go_on(page: Page, live: RunFolder, view: str) -> None:
    progress = Progress(live.progress_path)
    progress.start("evaluate", 1000)
    with Ledger(live.ledger_path) as ledger:
        for number in range(WATCHED_S * 2):
            progress.advance(5, 1000)
            row = _result(f"{view}{number:03d}", "device", random.Random(number))
            with ledger._transaction() as connection:
                connection.execute("INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            page.wait_for_timeout(500)


def main() -> None:
    """Measures and prints."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("benchmarks.dashboard needs Chromium (Debian's package chromium)")
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        print(
            "| people x methods | view | first figure, s | the page's heap, MB | its process, MB |\n|---|---|---|---|---|"
        )
        for people in PEOPLE:
            runs = Path(scratch, str(people), "runs")
            folder = write_run(runs, "measured", people)
            for view in VIEWS:
                with served(runs) as address:
                    seconds, heap, resident = first_figure(browser, address, view, "measured")
                print(
                    f"| {people:,} x {len(METHODS)} | {view} | {seconds:.2f} | {heap:.0f} | {resident:.0f} |",
                    flush=True,
                )
            if people == PEOPLE[0]:
                print(f"\n`--html` of {people} people: {len(html([folder]).encode()) / 1e6:.1f} MB\n")
        runs = Path(scratch, "live", "runs")
        live = write_run(runs, "live", PEOPLE[0], status="running")
        with served(runs) as address:
            for view in ("runs", "run", "people"):
                print(
                    f"{view}: stood still for at most {longest_task(browser, address, live, view):.0f} ms", flush=True
                )
        browser.close()


if __name__ == "__main__":
    main()
