"""The server answers its own machine, its own page and who has the link, and only reads."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from commands import listing
from dashboard_runs import write_run
from experiments.dashboard.catalog import Catalog
from experiments.dashboard.server import POLICY, dashboard

TOKEN = "a-token-that-only-the-link-has"
HOST = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("server") / "runs"
    write_run(folder, "alpha", people=6)
    return folder


@pytest.fixture
def stranger(runs: Path) -> Iterator[TestClient]:
    with TestClient(dashboard(Catalog([], runs), token=TOKEN), base_url=HOST) as client:
        yield client


@pytest.fixture
def client(stranger: TestClient) -> TestClient:
    stranger.headers["authorization"] = f"Bearer {TOKEN}"
    return stranger


STATIC = ("/", "/page/main.js", "/plotly.js")
PATHS = (
    "/api/runs",
    "/api/runs/alpha/run",
    "/api/runs/alpha/people",
    "/api/runs/alpha/filters",
    "/api/runs/alpha/people/p00",
)


@pytest.mark.parametrize("path", [*STATIC, *PATHS])
def test_every_route_answers_with_the_security_headers(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "unsafe-eval" not in POLICY
    assert "script-src 'self';" in POLICY


@pytest.mark.parametrize("path", ["/api/events", "/api/compare", "/api/nosuch", "/%61pi/runs", *PATHS])
@pytest.mark.parametrize("given", [None, "", "Bearer guess", f"Basic {TOKEN}", TOKEN])
def test_without_the_token_nothing_is_told(stranger: TestClient, path: str, given: str | None) -> None:
    answer = stranger.get(path, headers={} if given is None else {"authorization": given})
    assert answer.status_code == 403
    assert answer.json()["error"].startswith("Open the link that `cdcda dashboard` printed")


@pytest.mark.parametrize("path", STATIC)
def test_the_page_needs_no_token_and_tells_none(stranger: TestClient, path: str) -> None:
    answer = stranger.get(path)
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    for private in (TOKEN, "p00", "alpha"):
        # Plotly has many words of its own.
        assert path == "/plotly.js" or private not in answer.text


def test_a_token_in_an_address_or_a_cookie_opens_nothing(stranger: TestClient) -> None:
    stranger.cookies.set(f"cdcda_{TOKEN[:8]}", TOKEN)
    assert stranger.get(f"/api/runs?token={TOKEN}").status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.5:8000", "[::1", ""]
)
def test_another_name_of_this_machine_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/api/runs", headers={"host": host})
    assert (answer.status_code, answer.text) == (403, "This dashboard answers its own machine only.")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "https://localhost", "http://[::1"]
)
def test_another_page_is_refused(client: TestClient, origin: str) -> None:
    assert client.get("/api/runs", headers={"origin": origin}).status_code == 403


def test_its_own_page_is_not(client: TestClient) -> None:
    assert client.get("/api/runs", headers={"origin": HOST}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_there_is_no_route_that_writes(client: TestClient, method: str) -> None:
    for path in ("/", "/api/runs", "/api/runs/alpha/run", "/api/compare", "/page/main.js"):
        assert client.request(method, path).status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs/..%2fprivate/run",
        "/api/runs/%2e%2e/run",
        "/api/runs/alpha/manifest.json",
        "/api/runs/alpha/people/..%2f..%2fmanifest.json",
        "/page/..%2fserver.py",
        "/page/%2e%2e/server.py",
    ],
)
def test_no_url_reaches_another_file(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "import" not in answer.text


def test_a_wrong_name_gets_one_sentence(client: TestClient) -> None:
    assert client.get("/api/runs/beta/run").json() == {"error": "there is no run 'beta' here"}
    wrong = client.get("/api/runs/alpha/run?against=cloud")
    assert wrong.status_code == 404
    assert "choose one of device, direct-ft, cdcda" in wrong.json()["error"]


def test_reading_changes_no_file(client: TestClient, runs: Path) -> None:
    before = listing(runs), _digest(runs)
    for path in PATHS:
        client.get(path)
    assert (listing(runs), _digest(runs)) == before


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(file.read_bytes())
    return total.hexdigest()
