"""LaMP-2 personas: every plot fits two tags, and the user's favourites decide which one it gets."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cdcda_flower.data.personas.drafts import Draft, Phrases, phrases, slips
from cdcda_flower.tasks import task_named

# Share of the plots that fit one favourite and a rival; the others fit two favourites or none.
_ONE_FAVOURITE = 0.75
_TWO_FAVOURITES = 0.13

# What the hero goes through, by tag.
_MOTIFS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "sci-fi": ("pilots a starship", "befriends an alien", "repairs a time machine", "wakes on a distant planet",
               "uploads a mind into a robot", "mines an asteroid"),
    "based on a book": ("relives the chapters of a famous novel", "steps out of a bestselling novel",
                        "follows the plot of a beloved book", "lives the tale of a classic paperback",
                        "brings a printed saga to the screen", "acts out a well-known novella"),
    "comedy": ("stumbles through silly mishaps", "swaps clothes with a clown", "ruins a wedding in hilarious ways",
               "trains the funniest dog in town", "tells jokes at the worst moments", "gets stuck in a chicken suit"),
    "action": ("outruns gangs in car chases", "jumps from exploding rooftops", "fights through an armed convoy",
               "stops a speeding train", "duels on a burning bridge", "storms a guarded fortress"),
    "twist ending": ("learns in the last scene that nothing was real", "turns out to be the culprit all along",
                     "finds a final clue that changes everything", "meets the victim alive at the very end",
                     "discovers at the end an identical twin", "reads a closing letter that flips the story"),
    "dystopia": ("obeys a regime that bans names", "escapes a city ruled by cameras", "hides from a state that rations air",
                 "lives under numbered masters", "smuggles seeds past the thought police", "rebels in a walled wasteland"),
    "dark comedy": ("hides a corpse at a dinner party", "laughs through a botched funeral", "sells coffins with cheerful songs",
                    "poisons the wrong uncle by mistake", "insures people who die absurdly", "jokes with the hangman"),
    "classic": ("dances in a black-and-white musical", "smokes in an old studio noir", "waltzes through a golden-age drama",
                "rides in a vintage western", "stars in a restored silent film", "sings in a timeless old picture"),
    "psychology": ("doubts every memory", "argues with inner voices", "relives a trauma on the couch",
                   "slips into a delusion", "studies the mind of a patient", "fights a split personality"),
    "fantasy": ("tames a dragon", "inherits a magic ring", "bargains with elves", "guards an enchanted forest",
                "learns spells from a witch", "rides a griffin to war"),
    "romance": ("falls in love with a rival", "writes love letters to a stranger", "kisses an old flame in the rain",
                "chases a soulmate to the airport", "marries a childhood sweetheart", "loses the heart to a dancer"),
    "thought-provoking": ("asks what makes a life worthwhile", "weighs one life against many", "wonders whether choice exists",
                          "faces a moral riddle without answer", "questions the meaning of truth",
                          "debates whether memory is identity"),
    "social commentary": ("exposes the gap between rich and poor", "strikes against unfair wages", "challenges racism in court",
                          "films evictions in a poor district", "mocks the greed of landlords", "fights for a forgotten suburb"),
    "violence": ("leaves a trail of blood", "takes brutal revenge", "survives a savage beating", "joins a bloody feud",
                 "tortures a traitor", "wages a merciless gang war"),
    "true story": ("retraces events that really happened", "lives the real life of a hero", "acts as a person from the news",
                   "follows actual court records", "survives a disaster that truly took place",
                   "honours a historical biography"),
})  # fmt: skip

_NATURES = (
    "retired", "young", "lonely", "stubborn", "famous", "shy", "gifted", "tired", "reckless", "gentle", "proud", "clumsy",
    "wealthy", "homeless", "curious", "bitter", "loyal", "nervous", "blind", "cheerful", "restless", "humble",
)  # fmt: skip

_HEROES = (
    "baker", "sailor", "teacher", "boxer", "nurse", "lawyer", "farmer", "pianist", "thief", "soldier", "chemist", "driver",
    "waiter", "painter", "barber", "widow", "student", "miner", "priest", "gardener", "reporter", "surgeon", "jockey", "clerk",
    "tailor", "fisher", "guard", "poet", "banker", "cook",
)  # fmt: skip

_PLACES = (
    "Lisbon", "Oslo", "Cairo", "Havana", "Prague", "Dublin", "Kyoto", "Naples", "Lagos", "Quito", "Seoul", "Vienna", "Tunis",
    "Perth", "Boston", "Krakow", "Manila", "Lima", "Athens", "Zagreb", "Tampa", "Mumbai", "Riga", "Geneva", "Dakar", "Porto",
)  # fmt: skip


# What both tags of a plot leave open: any of a group may stand for another of it.
INTERCHANGEABLE: tuple[Phrases, ...] = (
    phrases(_NATURES),
    phrases(_HEROES),
    phrases(_PLACES),
    *map(phrases, _MOTIFS.values()),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagger:
    """Traits of a LaMP-2 user: `favourites`, the strongest first, win over other tags; else `prefers` decides."""

    favourites: tuple[str, ...]
    prefers: str

    def draft(self, rng: random.Random) -> Draft:
        """Returns a plot with its tag."""
        first, last = self._two_tags(rng)
        hero = f"A {rng.choice(_NATURES)} {rng.choice(_HEROES)} from {rng.choice(_PLACES)}"
        text = f"{hero} {rng.choice(_MOTIFS[first])} and {rng.choice(_MOTIFS[last])}."
        implied = self._tag(first, last)
        gold = (last if implied == first else first) if slips(rng) else implied
        return Draft(
            item={"description": text, "tag": gold},
            input=task_named("lamp-2").before + text,
            gold=gold,
            implied=implied,
            texts=(text,),
        )

    def shown(self, draft: Draft, answer: str) -> Mapping[str, float]:
        """Returns whether the tag is the user's: by a favourite, or where no favourite is there by the preference."""
        by = "favourites" if draft.implied in self.favourites else "preference"
        return {by: float(answer == draft.implied)}

    def _two_tags(self, rng: random.Random) -> list[str]:
        kind = rng.random()
        rivals = [tag for tag in _MOTIFS if tag not in self.favourites]
        if kind < _ONE_FAVOURITE:
            tags = [rng.choice(self.favourites), rng.choice(rivals)]
        else:
            tags = rng.sample(self.favourites if kind < _ONE_FAVOURITE + _TWO_FAVOURITES else rivals, 2)
        rng.shuffle(tags)
        return tags

    def _tag(self, first: str, last: str) -> str:
        for favourite in self.favourites:
            if favourite in (first, last):
                return favourite
        return first if self.prefers == "first" else last


def make_tagger(rng: random.Random) -> Tagger:
    """Returns a user with drawn traits."""
    return Tagger(favourites=tuple(rng.sample(tuple(_MOTIFS), 3)), prefers=rng.choice(("first", "last")))
