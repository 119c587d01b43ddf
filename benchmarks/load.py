"""Time and peak memory of `prepare` on a generated questions file of official size (`--gigabytes`, 2 by default).

Every row has a user of its own, the worst case: LaMP's real files repeat a user's profile, which is stored once.
The peak is the greatest resident set of the preparing process, pages of the memory-mapped tables included.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cdcda_flower.config import read_defaults
from cdcda_flower.seeding import derive_seed
from cdcda_flower.tasks import task_named

ROOT = Path(__file__).resolve().parents[1]
ITEMS = 190  # LaMP-3's mean history; a row is then about as long as an official one
SENTENCES_PER_REVIEW = 6


def main() -> None:
    """Generates the files, prepares them in a process of its own, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder if not given")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        size, rows = _generate(folder / "lamp", int(given.gigabytes * 1e9))
        print(f"questions file: {size / 1e9:.2f} GB, {rows} rows, as many users", flush=True)
        for pass_name in ("first time (JSON to Arrow, cleaning, writing)", "second time (found by content)"):
            seconds = _prepare(folder)
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # the greatest of all children so far
            print(
                f"{pass_name}: {seconds:.0f} s, peak so far {peak / 1e9:.2f} GB = {peak / size:.2f} x the file",
                flush=True,
            )


def _prepare(folder: Path) -> float:
    """Returns the seconds that `python -m cdcda_flower.data.prepare` takes."""
    keys = {"task": "lamp-3", "data": str(folder / "lamp"), "num-users": 100, "cache-dir": str(folder / "cache")}
    file = folder / "config.json"
    file.write_text(json.dumps(read_defaults(ROOT / "pyproject.toml") | keys), encoding="utf-8")
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "cdcda_flower.data.prepare", str(file)], check=True, cwd=ROOT)
    return time.perf_counter() - started


def _generate(folder: Path, size: int) -> tuple[int, int]:
    """Writes a dev split of `size` bytes and a train split of one row; returns the file's bytes and rows."""
    _write_split(folder, "train", 1)
    rows = _write_split(folder, "dev", size)
    return (folder / "LaMP_3" / "dev" / "dev_questions.json").stat().st_size, rows


def _write_split(folder: Path, split: str, size: int) -> int:
    place = folder / "LaMP_3" / split
    place.mkdir(parents=True)
    ids: list[object] = []
    with (place / f"{split}_questions.json").open("w", encoding="utf-8") as file:
        file.write("[")
        for row in _rows(split):
            file.write(("," if ids else "") + json.dumps(row))
            ids.append(row["id"])
            if file.tell() >= size:
                break
        file.write("]")
    outputs = {"task": "LaMP_3", "golds": [{"id": row_id, "output": "4"} for row_id in ids]}
    (place / f"{split}_outputs.json").write_text(json.dumps(outputs), encoding="utf-8")
    return len(ids)


def _rows(split: str) -> Iterator[dict[str, object]]:
    rng = random.Random(derive_seed(0, "load", split))
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(5000)]
    sentences = [" ".join(rng.choices(words, k=rng.randint(8, 24))) + "." for _ in range(20_000)]

    def review() -> str:
        return " ".join(rng.choices(sentences, k=SENTENCES_PER_REVIEW))

    number = 0
    while True:
        user = f"{split}{number}"
        items = rng.randint(ITEMS // 2, ITEMS * 3 // 2)
        profile = [{"id": f"{user}-{n}", "text": review(), "score": str(rng.randint(1, 5))} for n in range(items)]
        asked = task_named("lamp-3").before + review()
        yield {"id": f"q{number}", "user_id": user, "input": asked, "profile": profile}
        number += 1


if __name__ == "__main__":
    main()
