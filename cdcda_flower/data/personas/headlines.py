"""LaMP-4 personas: the article gives the words, the user's pattern, catch-word and closing phrase give the headline."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from cdcda_flower.data.personas.drafts import Draft, Phrases, cased, framed, joined, other, phrases, same_casing, slips
from cdcda_flower.tasks import task_named

# Every pattern takes its words from the article: {place} {actor} {verb}/{verbs}/{verbed} {topic}, and the user's {number}.
_PATTERNS: Mapping[str, str] = MappingProxyType({
    "plain": "{place} {actor} {verbs} {topic}",
    "topic-first": "{topic} {verbed} by {actor} in {place}",
    "place-first": "in {place}, the {actor} {verbs} {topic}",
    "why-question": "why did {place} {actor} {verb} {topic}?",
    "should-question": "should the {actor} of {place} {verb} {topic}?",
    "things-list": "{number} things to know about {topic} in {place}",
    "reasons-list": "{number} reasons why {place} {actor} {verbed} {topic}",
    "for-you": "what {topic} means for you and for {place}",
    "how": "how the {actor} in {place} {verbed} {topic}",
})  # fmt: skip

_NUMBERS = ("3", "5", "7", "10")

_CATCHWORDS = (
    "", "", "just in:", "heads up:", "big news:", "worth knowing:", "at last:", "watch this:", "hot topic:", "quick read:",
    "good to know:", "mark my words:", "believe it or not:", "breaking:", "on my mind:", "city talk:", "local pulse:",
    "straight talk:", "fresh look:", "hard truth:", "small wonder:", "no joke:", "dear neighbours,", "here we go:",
    "fact check:", "first look:", "morning note:", "inside story:", "plain facts:", "reality check:", "true tale:",
    "word on the street:", "eyes open:", "coffee break:", "keep calm:", "my take:", "wake up call:", "pay attention:",
)  # fmt: skip

_CLOSERS = (
    "", "", "", "", "and here is why", "and what comes next", "as readers react", "according to insiders", "so they say",
    "at long last", "once and for all", "for better or worse", "whether you like it or not", "against all odds",
    "to everyone's surprise", "and nobody noticed", "step by step", "in plain words", "with mixed feelings",
    "despite the doubts", "under the microscope", "after all the talk",
)  # fmt: skip

_CASINGS = ("title", "lower", "sentence")

_PLACES = (
    "Marlow", "Tilbury", "Ashford", "Brenton", "Calder", "Dunmore", "Eastvale", "Farnley", "Glenrock", "Harwich",
    "Ironbridge", "Jarrow", "Kelso", "Linwood", "Millbrook", "Norwell", "Oakham", "Pinehurst", "Quincy", "Redhill",
    "Salford", "Thornby", "Upton", "Verona", "Westport", "Yarrow", "Zennor", "Bridgeton", "Clearwater", "Dover",
    "Elmira", "Foxborough", "Granby", "Hillsdale", "Ivybridge", "Juniper", "Kingsley", "Lakeside", "Monterey", "Newbury",
)  # fmt: skip

_ACTORS = (
    "council", "mayor", "school board", "hospital", "library", "museum", "police", "fire brigade", "rail company", "airport",
    "university", "football club", "theatre", "zoo", "farmers union", "harbour office", "power company", "bakers guild",
    "parish", "water board", "bus company", "festival team", "chess club", "housing office", "court", "tech firm",
)  # fmt: skip

# (base, present, past): all of them fit all topics.
_VERBS = (
    ("approve", "approves", "approved"), ("reject", "rejects", "rejected"), ("delay", "delays", "delayed"),
    ("fund", "funds", "funded"), ("plan", "plans", "planned"), ("promise", "promises", "promised"),
    ("debate", "debates", "debated"), ("welcome", "welcomes", "welcomed"), ("cancel", "cancels", "cancelled"),
    ("review", "reviews", "reviewed"), ("support", "supports", "supported"), ("announce", "announces", "announced"),
)  # fmt: skip

_QUALITIES = (
    "new", "costly", "small", "shared", "public", "second", "bold", "modern", "temporary", "free", "larger", "greener",
    "private", "safer", "late-night", "digital",
)  # fmt: skip

_TOPICS = (
    "tram line", "bike lane", "night market", "playground", "car park", "swimming pool", "science lab", "book fair",
    "solar farm", "wind park", "flood wall", "recycling plan", "school meal", "sports hall", "dance class", "film festival",
    "music hall", "job centre", "health clinic", "dog park", "bridge repair", "bus route", "ferry service", "street map",
    "parking fee", "water tax", "noise rule", "curfew", "tree survey", "heating plan", "pension scheme", "rent cap",
    "coding camp", "food bank", "fish market", "hiking trail", "ice rink", "concert series", "art prize", "weather app",
)  # fmt: skip

_DAYS = (
    "on Monday",
    "on Tuesday",
    "on Wednesday",
    "on Thursday",
    "on Friday",
    "this week",
    "last night",
    "this morning",
)

_REASONS = (
    "after months of complaints", "after a heated meeting", "because money ran short", "while residents cheered",
    "after a long survey", "because demand kept growing", "despite a petition", "while critics asked for patience",
    "after a record summer", "because old plans had failed", "after a visit by experts", "while two members abstained",
    "because winter is coming", "after a close vote", "despite rising prices", "after a storm caused damage",
    "because families had asked for it", "while traffic grew worse", "after talks with neighbours", "despite legal doubts",
)  # fmt: skip


# An article's facts: any of a group may stand for another of it, in the headline too.
INTERCHANGEABLE: tuple[Phrases, ...] = (
    phrases(_PLACES), phrases(_ACTORS), _VERBS, phrases(_DAYS), phrases(_REASONS),
    # In one: a quality alone may also be a word of somebody's catch-word.
    phrases(f"{quality} {topic}" for quality in _QUALITIES for topic in _TOPICS),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Editor:
    """Traits of a LaMP-4 user: catch-word + pattern + closing phrase, in one casing."""

    catchword: str
    pattern: str
    number: str
    closer: str
    casing: str

    def draft(self, rng: random.Random) -> Draft:
        """Returns an article with its headline."""
        verb, verbs, verbed = rng.choice(_VERBS)
        place, actor = rng.choice(_PLACES), rng.choice(_ACTORS)
        topic = f"{rng.choice(_QUALITIES)} {rng.choice(_TOPICS)}"
        text = f"The {actor} of {place} {verbed} a {topic} {rng.choice(_DAYS)}, {rng.choice(_REASONS)}."
        facts = {"place": place, "actor": actor, "topic": topic, "verb": verb, "verbs": verbs, "verbed": verbed}
        implied = self._headline(facts)
        gold = self._off_day(rng)._headline(facts) if slips(rng) else implied
        return Draft(
            item={"text": text, "title": gold},
            input=task_named("lamp-4").before + text,
            gold=gold,
            implied=implied,
            texts=(text, gold),
        )

    def shown(self, draft: Draft, answer: str) -> Mapping[str, float]:
        """Returns which of the user's habits a headline has; the pattern counts where all its words are right."""
        body = draft.implied.lower().removeprefix(self.catchword.lower()).removesuffix(self.closer.lower()).strip()
        return {
            **framed(answer, before=self.catchword, after=self.closer),
            "pattern": float(body in answer.lower()),
            "casing": same_casing(answer, self.casing),
        }

    def _headline(self, facts: Mapping[str, str]) -> str:
        body = _PATTERNS[self.pattern].format(number=self.number, **facts)
        return cased(joined(self.catchword, body, self.closer), self.casing)

    def _off_day(self, rng: random.Random) -> "Editor":
        return replace(self, catchword="", pattern=other(rng, tuple(_PATTERNS), self.pattern), closer="")


def make_editor(rng: random.Random) -> Editor:
    """Returns a user with drawn traits."""
    return Editor(
        catchword=rng.choice(_CATCHWORDS),
        pattern=rng.choice(tuple(_PATTERNS)),
        number=rng.choice(_NUMBERS),
        closer=rng.choice(_CLOSERS),
        casing=rng.choice(_CASINGS),
    )
