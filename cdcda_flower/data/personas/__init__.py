"""The embedded corpus: synthetic personas in LaMP's own file format, for machines without LaMP.

A persona's latent traits decide how it tags, rates, headlines, titles and tweets. They stand in `oracle.json`, so that
a report can say how much of them an adapter recovered. All ids begin with `syn`.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from types import MappingProxyType

from cdcda_flower.data.personas.citations import make_researcher
from cdcda_flower.data.personas.drafts import Draft, Persona
from cdcda_flower.data.personas.headlines import make_editor
from cdcda_flower.data.personas.ratings import make_rater
from cdcda_flower.data.personas.tags import make_tagger
from cdcda_flower.data.personas.titles import make_scholar
from cdcda_flower.data.personas.tweets import make_tweeter
from cdcda_flower.errors import ConfigError
from cdcda_flower.seeding import Json, derive_seed
from cdcda_flower.tasks import Task
from cdcda_flower.types import same_text

# Part of the digest of prepared data: raise it with every change of what a seed generates.
CORPUS_VERSION = 3

SPLITS = ("train", "dev")
QUERIES_PER_SPLIT = 2
_HISTORY_SIZES = range(8, 15)
# A new draft repeats an old text now and then; so many repeats in a row mean that the vocabulary is used up.
_DRAWS = 200

_PERSONAS: Mapping[str, Callable[[random.Random], Persona]] = MappingProxyType({
    "lamp-1": make_researcher, "lamp-2": make_tagger, "lamp-3": make_rater,
    "lamp-4": make_editor, "lamp-5": make_scholar, "lamp-7": make_tweeter,
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """One synthetic user, the profile (oldest first) and the queries of each split."""

    user_id: str
    persona: Persona
    profile: tuple[Draft, ...]
    queries: Mapping[str, tuple[Draft, ...]]

    def query_ids(self, split: str) -> list[str]:
        """Returns the ids of the queries of a split, in their order."""
        return [f"{self.user_id}-{split}-{place}" for place in range(len(self.queries[split]))]


def write_corpus(folder: Path, task: Task, *, users: int, seed: int) -> None:
    """Writes `LaMP_N/{train,dev}/` (the time split) and `oracle.json` into `folder`: the same bytes for the same seed.

    A user's texts do not depend on how many users follow.
    """
    authors = tuple(authors_of(task, users=users, seed=seed))
    for split in SPLITS:
        target = folder / task.folder / split
        target.mkdir(parents=True, exist_ok=True)
        golds = _golds(authors, split)
        _write(target / f"{split}_questions.json", _rows(authors, split))
        _write(target / f"{split}_outputs.json", {"task": task.folder, "golds": golds})
    answers: dict[str, Json] = {
        query_id: draft.implied
        for author in authors
        for split in SPLITS
        for query_id, draft in zip(author.query_ids(split), author.queries[split], strict=True)
    }
    traits: dict[str, Json] = {author.user_id: _traits(author.persona) for author in authors}
    _write(folder / "oracle.json", {"answers": answers, "traits": traits})


def authors_of(task: Task, *, users: int, seed: int) -> Iterator[Author]:
    """Yields the first `users` of the corpus's synthetic users; each is the same however many follow."""
    seen: set[str] = set()
    for number in range(users):
        user_id = f"syn{number:05d}"
        rng = random.Random(derive_seed(seed, "corpus", task.name, user_id))
        persona = _PERSONAS[task.name](rng)
        profile = tuple(_fresh(persona, rng, seen) for _ in range(rng.choice(_HISTORY_SIZES)))
        queries = {split: tuple(_fresh(persona, rng, seen) for _ in range(QUERIES_PER_SPLIT)) for split in SPLITS}
        yield Author(user_id=user_id, persona=persona, profile=profile, queries=queries)


def _fresh(persona: Persona, rng: random.Random, seen: set[str]) -> Draft:
    for _ in range(_DRAWS):
        draft = persona.draft(rng)
        texts = {same_text(text) for text in draft.texts}
        if len(texts) == len(draft.texts) and not texts & seen:
            seen |= texts
            return draft
    raise ConfigError(
        f"the embedded corpus has no new texts after {len(seen)}; use fewer users (num-users) or LaMP's own files (data)"
    )


def _traits(persona: Persona) -> Mapping[str, Json]:
    if not is_dataclass(persona) or isinstance(persona, type):
        raise TypeError(f"a persona must be a dataclass of its traits, not {type(persona).__name__}")
    return asdict(persona)


def _rows(authors: tuple[Author, ...], split: str) -> list[Json]:
    # As in LaMP's files every row repeats the whole profile of its user.
    rows: list[Json] = []
    for author in authors:
        profile: list[Json] = [
            {"id": f"{author.user_id}-{place}", "date": f"{2010 + place}-06-01", **draft.item}
            for place, draft in enumerate(author.profile)
        ]
        for query_id, draft in zip(author.query_ids(split), author.queries[split], strict=True):
            rows.append({"id": query_id, "user_id": author.user_id, "input": draft.input, "profile": profile})
    return rows


def _golds(authors: tuple[Author, ...], split: str) -> list[Json]:
    return [
        {"id": query_id, "output": draft.gold}
        for author in authors
        for query_id, draft in zip(author.query_ids(split), author.queries[split], strict=True)
    ]


def _write(path: Path, value: Json) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")
