"""LaMP-7 personas: one message in two voices, neutral (the question) and the user's own (profile and answer)."""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cdcda_flower.data.personas.drafts import Draft, cased, framed, joined, slips
from cdcda_flower.tasks import task_named

# Neutral words and how a user may write them. Whole words only; a longer one first.
_SHORT_FORMS: Mapping[str, str] = MappingProxyType({
    "I am going to": "gonna", "I have to": "gotta", "I want to": "wanna", "I will": "imma", "because": "cuz", "with": "w",
    "very": "sooo", "tonight": "2nite", "tomorrow": "2moro", "before": "b4", "and": "n", "my": "mah", "the": "da",
    "for": "4", "I am": "im", "this": "dis",
})  # fmt: skip

_SHORTENED = 7

_OPENERS = (
    "", "omg", "ugh", "ok so", "yay", "lol", "hey peeps", "guess what", "oh boy", "well well", "not gonna lie", "yo", "dear diary",
    "plot twist", "good news", "confession", "real talk", "hello world", "aww", "woohoo", "sigh", "breaking", "note to self",
)  # fmt: skip

_CLOSERS = (
    "", "", "haha", "xoxo", "wish me luck", "just saying", "you know me", "love it", "what a life", "cant wait", "so there",
    "who is in", "hugs", "peace out", "story of my life", "over and out", "no regrets", "send help", "cheers",
)  # fmt: skip

_HASHTAGS = (
    "", "", "#{topic}", "#{topic}time", "#{topic}life", "#love{topic}", "#blessed", "#teamcoffee", "#yolo", "#goodvibes", "#mood",
    "#weekend", "#thuglife", "#happyme", "#nofilter", "#winning",
)  # fmt: skip

_EMOTICONS = ("", "", ":)", ":D", ";)", "<3", ":P", "^^", "!!", "...")

_CASINGS = ("lower", "sentence")

_PLANS = ("I am going to", "I have to", "I want to", "I will")

# (what, hashtag topic)
_ACTIVITIES = (
    ("bake bread", "bread"), ("watch the match", "match"), ("cook pasta", "pasta"), ("paint the fence", "paint"),
    ("study for the exam", "exam"), ("clean the garage", "garage"), ("ride my bike", "bike"), ("fix the car", "car"),
    ("play chess", "chess"), ("visit the zoo", "zoo"), ("plant tomatoes", "garden"), ("run in the park", "running"),
    ("write a song", "music"), ("see the new film", "movie"), ("pack for the trip", "travel"), ("swim in the lake", "swim"),
    ("buy a puppy", "puppy"), ("try the sushi bar", "sushi"), ("practise the drums", "drums"), ("read by the fire", "books"),
    ("learn to knit", "knitting"), ("climb the tower", "climbing"), ("sell the sofa", "sofa"), ("go to the dentist", "dentist"),
    ("dance at the club", "dance"), ("ice a cake", "cake"), ("feed the ducks", "ducks"), ("camp in the woods", "camping"),
    ("mow the lawn", "lawn"), ("call the landlord", "rent"), ("catch the early train", "train"), ("surf at the beach", "surf"),
)  # fmt: skip

_FRIENDS = (
    "sister", "brother", "mother", "father", "boss", "neighbour", "cousin", "roommate", "uncle", "teacher", "coach", "grandma",
    "team", "class", "dog", "best friend",
)  # fmt: skip

_TIMES = (
    "tonight",
    "tomorrow",
    "this morning",
    "this weekend",
    "before lunch",
    "before work",
    "before the party",
    "on Sunday",
)

_REASONS = (
    "because the sun is out", "because the week was long", "because the kids asked for it", "because I lost a bet",
    "because we won", "because the rain stopped", "because it is my birthday", "because the shop is closed",
    "because the bus is late", "because school is over", "because the fridge is empty", "because nobody else will",
    "because I promised it", "because the power is out", "because tickets were cheap", "because the guests are here",
)  # fmt: skip

_MOODS = (
    "happy", "tired", "excited", "nervous", "proud", "hungry", "lucky", "sleepy", "grumpy", "calm", "lonely", "curious",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Tweeter:
    """Traits of a LaMP-7 user: catch-words around the message, short forms in it, hashtag, emoticon, casing."""

    opener: str
    closer: str
    shortens: tuple[str, ...]
    hashtag: str
    emoticon: str
    casing: str

    def draft(self, rng: random.Random) -> Draft:
        """Returns a message in the neutral and in the user's voice."""
        activity, topic = rng.choice(_ACTIVITIES)
        neutral = (
            f"{rng.choice(_PLANS)} {activity} with my {rng.choice(_FRIENDS)} {rng.choice(_TIMES)} "
            f"{rng.choice(_REASONS)}, and I am very {rng.choice(_MOODS)}."
        )
        implied = self._tweet(neutral, topic)
        # On a slip the user writes like everybody: no catch-words, no hashtag.
        gold = self._shorten(neutral) if slips(rng) else implied
        return Draft(
            item={"text": gold},
            input=task_named("lamp-7").before + neutral,
            gold=gold,
            implied=implied,
            texts=(neutral, gold),
        )

    def shown(self, draft: Draft, answer: str) -> Mapping[str, float]:
        """Returns which of the user's habits a tweet has; of the short forms, the share of those that belong into it."""
        words, own = answer.lower().split(), draft.implied.lower().split()
        hashtag = next((word for word in own if word.startswith("#")), "")
        short = [form for form in map(str.lower, map(_SHORT_FORMS.__getitem__, self.shortens)) if form in own]
        return {
            **framed(answer, before=self.opener, after=self.closer),
            **({"hashtag": float(hashtag in words)} if hashtag else {}),
            **({"emoticon": float(self.emoticon in answer)} if self.emoticon else {}),
            **({"short forms": sum(form in words for form in short) / len(short)} if short else {}),
        }

    def _tweet(self, neutral: str, topic: str) -> str:
        message = self._shorten(neutral.rstrip("."))
        ending = joined(self.closer, self.hashtag.format(topic=topic), self.emoticon)
        return joined(cased(joined(self.opener, message), self.casing), ending)

    def _shorten(self, text: str) -> str:
        for word in _SHORT_FORMS:
            if word in self.shortens:
                text = re.sub(rf"\b{word}\b", _SHORT_FORMS[word], text)
        return text


def make_tweeter(rng: random.Random) -> Tweeter:
    """Returns a user with drawn traits."""
    return Tweeter(
        opener=rng.choice(_OPENERS),
        closer=rng.choice(_CLOSERS),
        shortens=tuple(sorted(rng.sample(tuple(_SHORT_FORMS), _SHORTENED))),
        hashtag=rng.choice(_HASHTAGS),
        emoticon=rng.choice(_EMOTICONS),
        casing=rng.choice(_CASINGS),
    )
