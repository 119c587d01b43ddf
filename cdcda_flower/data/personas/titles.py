"""LaMP-5 personas: the abstract gives method, problem and field, the user's form and pet words give the title."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from cdcda_flower.data.personas.drafts import Draft, Phrases, cased, framed, holds, other, phrases, same_casing, slips
from cdcda_flower.tasks import task_named

# Every form takes its words from the abstract: {name} {method} {problem} {field}, and the user's {pet} word.
_FORMS: Mapping[str, str] = MappingProxyType({
    "name-first": "{name}: {pet} {method} for {problem}",
    "towards": "towards {pet} {problem} with {method}",
    "on": "on the {pet} use of {method} in {problem}",
    "using": "{pet} {problem} using {method}",
    "question": "can {method} make {problem} {pet}?",
    "field-first": "{field} need {pet} {problem}",
    "improving": "improving {problem} by {pet} {method}",
    "meets": "when {method} meets {problem}: {pet} results",
    "all-you-need": "{pet} {method} is all you need for {problem}",
})  # fmt: skip

_PETS = (
    "simple", "robust", "scalable", "lightweight", "efficient", "reliable", "practical", "interpretable", "adaptive", "unified",
    "fast", "modular", "transparent", "faithful", "elegant", "frugal",
)  # fmt: skip

_TAILS = (
    "", "", "", "a case study", "an empirical study", "a field report", "revisited", "first steps", "lessons learned",
    "a second look", "pitfalls and promises", "theory and practice", "a short tour", "an open benchmark", "in the wild",
    "notes from the trenches",
)  # fmt: skip

_CASINGS = ("title", "lower", "sentence")

_METHODS = (
    "graph attention", "contrastive learning", "tensor factorisation", "active sampling", "beam search", "variational inference",
    "curriculum training", "sparse coding", "metric learning", "label smoothing", "knowledge distillation", "spectral clustering",
    "prompt tuning", "random projections", "kernel regression", "evolutionary search", "self-training", "data pruning",
    "constraint solving", "memory networks", "temporal pooling", "residual gating", "multi-task learning", "score matching",
)  # fmt: skip

_PROBLEMS = (
    "entity linking", "crop forecasting", "speech denoising", "traffic prediction", "protein folding", "fraud detection",
    "image captioning", "route planning", "query rewriting", "tumour segmentation", "code repair", "flood mapping",
    "dialogue ranking", "gait recognition", "price estimation", "load balancing", "bird call detection", "text simplification",
    "robot grasping", "anomaly detection", "music tagging", "table parsing", "sign translation", "battery monitoring",
    "news clustering", "pose tracking", "sleep staging", "bug triage",
)  # fmt: skip

_FIELDS = (
    "hospitals", "schools", "banks", "farms", "satellites", "libraries", "factories", "airports", "smartphones", "courts",
    "museums", "power grids", "warehouses", "call centres", "newsrooms", "shipyards", "weather stations", "city archives",
)  # fmt: skip

_ABSTRACTS = (
    "We study {problem} in {field}. Our system {name} relies on {method} and {gain}.",
    "In {field}, {problem} is still hard. We present {name}, built on {method}, which {gain}.",
    "{method} has rarely been applied to {problem}. With {name} we do so for {field}; it {gain}.",
    "This paper describes {name}, a new approach to {problem} for {field}. It uses {method} and {gain}.",
)  # fmt: skip

_GAINS = (
    "cuts errors by {} percent", "halves the cost of {} runs", "needs only {} labels", "beats {} earlier systems",
    "saves {} percent of memory", "is {} times faster", "gains {} points", "holds up under {} kinds of noise",
)  # fmt: skip

_STARTS = (
    "Al",
    "Bor",
    "Cir",
    "Dex",
    "El",
    "Fen",
    "Gal",
    "Hex",
    "Iri",
    "Jun",
    "Kel",
    "Lum",
    "Mir",
    "Nov",
    "Or",
    "Pel",
    "Quin",
    "Ras",
)
_ENDS = ("Net", "Former", "Rank", "Flow", "Map", "Tree", "Mix", "Cast", "Link", "Sense", "Core", "Gen")


# An abstract's facts: any of a group may stand for another of it, in the title too.
INTERCHANGEABLE: tuple[Phrases, ...] = (
    phrases(start + end for start in _STARTS for end in _ENDS), phrases(_METHODS), phrases(_PROBLEMS), phrases(_FIELDS),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Scholar:
    """Traits of a LaMP-5 user: the form of the title, a pet word, a tail after it, the casing."""

    form: str
    pet: str
    tail: str
    casing: str

    def draft(self, rng: random.Random) -> Draft:
        """Returns an abstract with its title."""
        facts = {
            "name": rng.choice(_STARTS) + rng.choice(_ENDS),
            "method": rng.choice(_METHODS),
            "problem": rng.choice(_PROBLEMS),
            "field": rng.choice(_FIELDS),
        }
        gain = rng.choice(_GAINS).format(rng.randrange(3, 60))
        text = cased(rng.choice(_ABSTRACTS).format(gain=gain, **facts), "sentence")
        implied = self._title(facts)
        gold = (
            replace(self, form=other(rng, tuple(_FORMS), self.form), tail="")._title(facts) if slips(rng) else implied
        )
        return Draft(
            item={"abstract": text, "title": gold},
            input=task_named("lamp-5").before + text,
            gold=gold,
            implied=implied,
            texts=(text, gold),
        )

    def shown(self, draft: Draft, answer: str) -> Mapping[str, float]:
        """Returns which of the user's habits a title has; the form counts where all its words are right."""
        body = draft.implied.lower().removesuffix(f" - {self.tail}".lower() if self.tail else "")
        return {
            **framed(answer, before="", after=self.tail),
            "pet word": float(holds(answer, self.pet)),
            "form": float(body in answer.lower()),
            "casing": same_casing(answer, self.casing),
        }

    def _title(self, facts: Mapping[str, str]) -> str:
        body = _FORMS[self.form].format(pet=self.pet, **facts)
        return cased(f"{body} - {self.tail}" if self.tail else body, self.casing)


def make_scholar(rng: random.Random) -> Scholar:
    """Returns a user with drawn traits."""
    return Scholar(
        form=rng.choice(tuple(_FORMS)), pet=rng.choice(_PETS), tail=rng.choice(_TAILS), casing=rng.choice(_CASINGS)
    )
