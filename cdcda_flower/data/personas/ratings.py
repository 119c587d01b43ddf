"""LaMP-3 personas: a review's sentiment, the user's harshness and the user's focus decide the rating together."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cdcda_flower.data.personas.drafts import Draft, Phrases, phrases, pick, slips
from cdcda_flower.tasks import task_named

# Stars that a user adds to the sentiment of their own text. Weighted to the ends: a rating that is right for nobody
# in particular (3) then costs most.
_OFFSETS: Mapping[int, float] = MappingProxyType({-2: 0.26, -1: 0.18, 0: 0.12, 1: 0.18, 2: 0.26})

# Share of the reviews that complain of one aspect, and of those the share that hits the user's focus.
_COMPLAINT_RATE = 0.3
_FOCUS_RATE = 0.5

_PRODUCTS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "kitchen": ("kettle", "toaster", "frying pan", "bread knife", "blender", "rice cooker", "salad bowl", "coffee grinder"),
    "garden": ("garden hose", "rake", "bird feeder", "flower pot", "hedge trimmer", "watering can", "wheelbarrow", "seed tray"),
    "music": ("ukulele", "drum pad", "guitar strap", "music stand", "metronome", "keyboard bench", "harmonica", "violin bow"),
    "office": ("desk lamp", "stapler", "office chair", "whiteboard", "notebook", "fountain pen", "paper tray", "label printer"),
    "sports": ("yoga mat", "tennis racket", "skipping rope", "running belt", "football", "swim cap", "climbing chalk", "dumbbell set"),
    "travel": ("suitcase", "neck pillow", "travel adapter", "rain poncho", "money belt", "packing cube", "backpack", "luggage tag"),
    "pets": ("dog leash", "cat tree", "fish tank", "litter box", "chew toy", "pet carrier", "hamster wheel", "grooming brush"),
    "toys": ("puzzle", "board game", "kite", "toy train", "doll house", "card game", "building set", "stuffed bear"),
    "audio": ("headset", "radio", "soundbar", "record player", "microphone", "speaker", "audio cable", "earbud case"),
    "phone": ("phone case", "power bank", "charger", "screen protector", "selfie stick", "car mount", "stylus", "tablet cover"),
    "clothing": ("jacket", "wool scarf", "leather belt", "rain coat", "summer hat", "hoodie", "silk tie", "winter coat"),
    "home": ("curtain", "pillow", "floor lamp", "wall clock", "laundry basket", "door mat", "candle set", "bookshelf"),
    "tools": ("drill", "hammer", "tape measure", "tool box", "hand saw", "screwdriver set", "work light", "paint roller"),
    "beauty": ("hair dryer", "face cream", "nail kit", "shampoo", "razor", "hand soap", "perfume", "makeup bag"),
    "baby": ("stroller", "baby monitor", "high chair", "bottle warmer", "diaper bag", "crib sheet", "bath seat", "play mat"),
    "crafts": ("sewing kit", "yarn set", "sketch book", "glue gun", "brush set", "bead box", "crochet hook", "clay pack"),
})  # fmt: skip

_OPENERS = (
    "Bought this {} for {}.", "Got the {} for {}.", "This {} was meant for {}.", "Picked up this {} for {}.",
    "Ordered the {} for {}.", "My new {} is for {}.", "I needed a {} for {}.", "Chose this {} for {}.",
)  # fmt: skip

_PURPOSES = (
    "my sister", "my father", "our flat", "the cabin", "a birthday", "my first job", "the holidays", "our club",
    "my daughter", "a long trip", "the weekend", "my neighbour", "our small shop", "a friend", "the school fair",
    "my husband", "my wife", "our new house", "a wedding", "the spare room", "my grandson", "the summer camp",
    "my roommate", "our team", "daily use", "my aunt", "the winter", "a rainy week", "our workshop", "my evenings",
)  # fmt: skip

# Sentiment from 1 to 5: (what it is, what follows).
_VERDICTS: Mapping[int, tuple[tuple[str, ...], tuple[str, ...]]] = MappingProxyType({
    1: (
        ("awful", "terrible", "horrible", "useless", "dreadful", "a complete waste", "pure junk", "the worst ever"),
        ("it broke at once", "I want a refund", "I hate it", "it went in the bin", "I regret buying it",
         "it failed on day one", "nobody should buy it", "I sent it straight back"),
    ),
    2: (
        ("disappointing", "rather poor", "below par", "weak", "a letdown", "flimsy", "not very good", "somewhat bad"),
        ("I expected more", "it has several flaws", "it barely does the job", "I would not buy it again",
         "it needs many fixes", "it wears out fast", "I am a bit annoyed", "others do it better"),
    ),
    3: (
        ("okay", "average", "so-so", "acceptable", "middling", "neither good nor bad", "passable", "nothing special"),
        ("it does the job", "I have mixed feelings", "it has ups and downs", "I could take it or leave it",
         "it is what I expected", "there is room to improve", "it will do for now", "others are similar"),
    ),
    4: (
        ("good", "solid", "quite nice", "well made", "pleasant", "a decent buy", "handy", "better than most"),
        ("I like it", "it works well", "I would buy it again", "it has only small flaws",
         "I am glad I got it", "it makes life easier", "we use it often", "it runs smoothly"),
    ),
    5: (
        ("perfect", "amazing", "superb", "fantastic", "flawless", "wonderful", "the best ever", "outstanding"),
        ("I love it", "it beats all my hopes", "everyone should get one", "I could not be happier",
         "it is worth every cent", "we adore it", "it never lets me down", "I already ordered another"),
    ),
})  # fmt: skip

_COMPLAINTS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "price": ("The price is too high.", "It costs too much.", "Far too expensive though."),
    "delivery": ("Delivery took ages.", "Shipping was slow.", "The parcel came late."),
    "packaging": ("The box was torn.", "Packaging was messy.", "It came badly wrapped."),
    "design": ("The colour is ugly.", "Its design looks dated.", "The shape looks odd."),
    "manual": ("The manual is unclear.", "Instructions are missing.", "The guide makes no sense."),
    "support": ("Support never answered.", "The seller was rude.", "Customer service ignored me."),
})  # fmt: skip


# What the sentiment and the subject of a complaint leave open: any of a group may stand for another of it.
INTERCHANGEABLE: tuple[Phrases, ...] = (
    phrases(product for group in _PRODUCTS.values() for product in group),
    phrases(_PURPOSES),
    phrases(("Bought this", "Got the", "Picked up this", "Ordered the", "I needed a", "Chose this")),
    *(phrases(words) for verdict in _VERDICTS.values() for words in verdict),
    *map(phrases, _COMPLAINTS.values()),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rater:
    """Traits of a LaMP-3 user: `offset` stars on top of the sentiment, one star less when `focus` is complained of."""

    offset: int
    focus: str
    buys: tuple[str, ...]

    def draft(self, rng: random.Random) -> Draft:
        """Returns a review with its rating."""
        level = self._level(rng)
        complaint = self._complaint(rng)
        remark = f" {rng.choice(_COMPLAINTS[complaint])}" if complaint else ""
        product = rng.choice(_PRODUCTS[rng.choice(self.buys)])
        quality, effect = (rng.choice(part) for part in _VERDICTS[level])
        opener = rng.choice(_OPENERS).format(product, rng.choice(_PURPOSES))
        text = f"{opener} It is {quality} and {effect}.{remark}"
        implied = _stars(level + self.offset - (complaint == self.focus))
        gold = _stars(implied + rng.choice((-1, 1))) if slips(rng) else implied
        return Draft(
            item={"text": text, "score": str(gold)},
            input=task_named("lamp-3").before + text,
            gold=str(gold),
            implied=str(implied),
            texts=(text,),
        )

    def shown(self, draft: Draft, answer: str) -> Mapping[str, float]:
        """Returns whether the rating is the user's: by the offset alone, or where the text complains of the focus.

        Where the scale ends before the complaint counts, the rating shows neither.
        """
        right = float(answer.strip().removesuffix(".0") == draft.implied)
        if not any(remark in draft.input for remark in _COMPLAINTS[self.focus]):
            return {"offset": right}
        [level] = (
            level
            for level, (said, _) in _VERDICTS.items()
            if any(f" It is {quality} and " in draft.input for quality in said)
        )
        return {"focus": right} if str(_stars(level + self.offset)) != draft.implied else {}

    def _level(self, rng: random.Random) -> int:
        # Only sentiments that the scale does not clamp, and the outer ones more often: neither clamping nor a
        # constant answer hides the offset.
        levels = [level for level in range(1, 6) if 1 <= level + self.offset <= 5]
        return pick(rng, {level: 2.0 if level in (levels[0], levels[-1]) else 1.0 for level in levels})

    def _complaint(self, rng: random.Random) -> str:
        if rng.random() >= _COMPLAINT_RATE:
            return ""
        return self.focus if rng.random() < _FOCUS_RATE else rng.choice(tuple(_COMPLAINTS))


def make_rater(rng: random.Random) -> Rater:
    """Returns a user with drawn traits."""
    return Rater(
        offset=pick(rng, _OFFSETS),
        focus=rng.choice(tuple(_COMPLAINTS)),
        buys=tuple(sorted(rng.sample(tuple(_PRODUCTS), 3))),
    )


def _stars(value: int) -> int:
    return min(5, max(1, value))
