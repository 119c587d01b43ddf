"""`cdcda report RUN... --html FILE`: the dashboard's page with its documents in one file, which needs neither server nor network.

The file leaves the machine, so it holds numbers and names and no text: neither shared examples nor pairs nor answers.
"""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from urllib.parse import quote, urlencode

from cdcda_flower.errors import BadInputError
from cdcda_flower.runs.folder import RunFolder
from experiments.dashboard import documents
from experiments.dashboard.catalog import Catalog
from experiments.dashboard.documents import Document
from experiments.dashboard.person import person
from experiments.dashboard.server import PAGE, plotly_file

# Beyond so many people their stories would make the file too large for a mail; all other views have everybody.
MOST_STORIES = 1000
_IMPORT = re.compile(r'^import (?:\{[^}]*\} from )?"\./([a-z_]+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=const|function|async function)", re.MULTILINE)


def html(folders: Sequence[RunFolder]) -> str:
    """Returns the page as one HTML text; refuses runs that `cdcda report` refuses."""
    found = json.dumps(embedded(folders), ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    styles = (PAGE / "style.css").read_text(encoding="utf-8")
    library = plotly_file().read_text(encoding="utf-8").replace("</script", "<\\/script")
    script = bundle()
    allowed = " ".join(f"'sha256-{_digest(text)}'" for text in (library, script))
    policy = f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    for marker, instead in (
        (
            '<meta charset="utf-8">',
            f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">',
        ),
        ('<script src="plotly.js" async></script>\n', ""),
        ('<link rel="stylesheet" href="page/style.css">', f"<style>{styles}</style>"),
        (
            '<script type="module" src="page/main.js"></script>',
            f'<script id="documents" type="application/json">{found}</script>\n<script>{library}</script>\n'
            f'<script type="module">{script}</script>',
        ),
    ):
        assert page.count(marker) == 1, marker
        page = page.replace(marker, instead)
    return page


def embedded(folders: Sequence[RunFolder]) -> dict[str, Document]:
    """Returns path -> document, under the paths by which the page asks the server."""
    catalog = Catalog(folders, Path())
    found: dict[str, Document] = {"api/runs": documents.runs(catalog)}
    for folder in folders:
        first = found[_path(folder, "run")] = documents.run(folder)
        for method in first["methods"]:
            asked = f"{_path(folder, 'run')}?against={quote(method, safe='')}"
            found[asked] = first if method == first["against"] else documents.run(folder, against=method)
        everybody = found[_path(folder, "people")] = documents.people(folder)
        found[_path(folder, "costs")] = documents.costs(folder)
        found[_path(folder, "filters")] = documents.filters(folder)
        for user in everybody["people"][:MOST_STORIES]:
            found[_path(folder, "people", user)] = person(folder, user, texts=False)
        for a, b in permutations(first["methods"], 2):
            found[_compare_path((folder, a), (folder, b))] = documents.compare((folder, a), (folder, b))
    for one, other in permutations(folders, 2):
        for method in found[_path(one, "run")]["methods"]:
            left, right = (one, method), (other, method)
            try:
                found[_compare_path(left, right)] = documents.compare(left, right)
            except BadInputError:
                continue  # runs over different people, or without the method: the page says that it does not hold it
    return found


def _path(folder: RunFolder, *parts: str) -> str:
    # What encodeURIComponent leaves.
    return "/".join(["api/runs", *(quote(part, safe="!'()*") for part in (folder.path.name, *parts))])


def _compare_path(left: tuple[RunFolder, str], right: tuple[RunFolder, str]) -> str:
    (one, a), (other, b) = left, right
    query = {"left": one.path.name, "left-method": a, "right": other.path.name, "right-method": b, "metric": ""}
    return f"api/compare?{urlencode(query)}"


def bundle() -> str:
    """Returns the page's modules as one script, each after those that it imports; their top-level names are all different."""
    done: dict[str, str] = {}

    def add(name: str) -> None:
        text = (PAGE / f"{name}.js").read_text(encoding="utf-8")
        for needed in _IMPORT.findall(text):
            if needed not in done:
                add(needed)
        done[name] = _EXPORT.sub("", _IMPORT.sub("", text))

    add("main")
    return "\n".join(done.values())


def _digest(text: str) -> str:
    return b64encode(hashlib.sha256(text.encode()).digest()).decode()
