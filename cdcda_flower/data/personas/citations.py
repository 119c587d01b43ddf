"""LaMP-1 personas: every paper joins two fields, and the user cites the one that is their own."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cdcda_flower.data.personas.drafts import Draft, slips
from cdcda_flower.tasks import task_named

_FIELDS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "parsing": ("dependency trees", "chart parsing", "grammar induction", "constituent labels", "shift-reduce actions",
                "treebank conversion", "garden paths", "head rules"),
    "translation": ("bilingual alignment", "phrase tables", "subword decoding", "back-translation", "parallel corpora",
                    "interlingua design", "post-editing", "glossary lookup"),
    "speech": ("vowel formants", "acoustic models", "prosody tracking", "speaker diarisation", "phoneme lattices",
               "voice conversion", "whisper detection", "pitch contours"),
    "vision": ("edge detection", "optical flow", "depth cameras", "scene segmentation", "face verification", "image hashing",
               "object tracking", "stereo matching"),
    "robotics": ("gripper control", "motion primitives", "legged walking", "drone swarms", "arm calibration", "tactile skins",
                 "obstacle fields", "inverse kinematics"),
    "databases": ("query optimisers", "index structures", "transaction logs", "schema matching", "column stores",
                  "join ordering", "stream windows", "cache eviction"),
    "security": ("password strength", "malware traces", "side channels", "intrusion alarms", "key exchange", "phishing pages",
                 "sandbox escapes", "firewall policies"),
    "networks": ("packet routing", "congestion windows", "mesh radios", "bandwidth auctions", "handover delay",
                 "spectrum sensing", "multicast overlays", "jitter buffers"),
    "retrieval": ("inverted files", "relevance feedback", "passage ranking", "click models", "snippet generation",
                  "crawler politeness", "term weighting", "session search"),
    "medicine": ("dosage charts", "tumour markers", "heart monitors", "triage scores", "vaccine uptake", "gait therapy",
                 "sleep apnoea", "wound images"),
    "genomics": ("gene expression", "protein contacts", "genome assembly", "splice sites", "cell atlases", "mutation spectra",
                 "codon usage", "regulatory motifs"),
    "climate": ("glacier melt", "rainfall radar", "carbon budgets", "ocean currents", "drought indices", "heat islands",
                "storm surges", "soil moisture"),
    "energy": ("wind turbines", "battery ageing", "smart meters", "solar cells", "grid failures", "fuel blends",
               "heat pumps", "tidal barrages"),
    "finance": ("option pricing", "credit scores", "market microstructure", "portfolio drift", "currency shocks",
                "insurance claims", "audit trails", "venture returns"),
    "education": ("essay grading", "tutoring hints", "dropout warnings", "reading ages", "peer feedback", "exam timing",
                  "lecture clips", "homework load"),
    "law": ("case precedents", "contract clauses", "patent claims", "court transcripts", "sentencing tables",
            "privacy statutes", "witness reports", "tax rulings"),
    "music": ("chord progressions", "beat tracking", "score following", "timbre spaces", "playlist moods", "choir tuning",
              "melody contours", "drum grooves"),
    "games": ("opponent models", "level design", "endgame tables", "bluffing agents", "puzzle difficulty", "player churn",
              "quest writing", "card shuffling"),
    "farming": ("crop rotation", "weed spotting", "milk yields", "pest traps", "orchard pruning", "seed spacing",
                "greenhouse airflow", "harvest robots"),
    "cities": ("bus timetables", "parking demand", "bike sharing", "noise maps", "crowd flows", "street lighting",
               "waste collection", "pavement wear"),
})  # fmt: skip

_FRAMES = (
    "{left} for {right}", "when {left} meet {right}", "from {left} to {right}", "{left} and {right}",
    "{left} in the light of {right}", "linking {left} with {right}", "{left} against {right}", "{left} or {right}?",
    "on {left} beyond {right}", "{left} via {right}",
)  # fmt: skip

_KINDS = (
    "robust", "early", "scalable", "noisy", "sparse", "joint", "simple", "fair", "online", "deep", "local", "adaptive",
    "visual", "formal", "cheap", "open", "partial", "global", "neural", "causal", "modern", "classical", "hidden", "mixed",
    "shared", "remote", "rapid", "stable", "small", "dense",
)  # fmt: skip

_REFERENCES = (
    "A Survey of {}", "Notes on {}", "Learning {}", "{}: A Review", "Measuring {}", "The Limits of {}", "Understanding {}",
    "Benchmarks for {}", "Models of {}", "{} Explained", "Rethinking {}", "Foundations of {}", "Advances in {}", "{} at Scale",
    "Towards {}", "Beyond {}", "Inside {}", "Teaching {}", "Predicting {}", "Testing {}", "The Cost of {}", "A Theory of {}",
    "{} in Practice", "{} by Example", "A Tour of {}", "What Is New in {}?",
)  # fmt: skip

_ABSTRACTS = (
    "We combine {left} with {right} and report {finding}.", "This paper brings {left} and {right} together; we see {finding}.",
    "Can {left} profit from {right}? Our tests show {finding}.", "We examine {left} next to {right} and find {finding}.",
)  # fmt: skip

_FINDINGS = (
    "clear gains on {} data sets", "lower cost in {} trials", "{} open problems", "a {} percent drop in errors",
    "mixed results over {} months", "steady progress at {} sites",
)  # fmt: skip

_CITED = range(1, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Researcher:
    """Traits of a LaMP-1 user: papers join one of `interests` with any other field and cite the interest.

    `leads`: which side of the title, worded by `frame`, is the interest.
    """

    interests: tuple[str, ...]
    frame: str
    leads: bool

    def draft(self, rng: random.Random) -> Draft:
        """Returns a paper: its title, abstract and references; as a query, two references to choose from."""
        own = rng.choice(self.interests)
        foreign = rng.choice([field for field in _FIELDS if field not in self.interests])
        # The options are on other topics than the title: whoever compares words learns nothing.
        own_topic, *own_rest = rng.sample(_FIELDS[own], 8)
        foreign_topic, *foreign_rest = rng.sample(_FIELDS[foreign], 8)
        left, right = (own_topic, foreign_topic) if self.leads else (foreign_topic, own_topic)
        title = self.frame.format(left=f"{rng.choice(_KINDS)} {left}", right=right).title()
        finding = rng.choice(_FINDINGS).format(rng.randrange(2, 40))
        abstract = rng.choice(_ABSTRACTS).format(left=left, right=right, finding=finding)
        cited = [_reference(rng, topic) for topic in own_rest[: rng.choice(_CITED)]]
        slip = _reference(rng, foreign_rest[0])
        options = [cited[0], slip]
        rng.shuffle(options)
        implied = f"[{options.index(cited[0]) + 1}]"
        slipped = slips(rng)
        return Draft(
            item={"title": title, "abstract": abstract, "citation": [slip] if slipped else cited},
            input=_question(title, options),
            gold=f"[{options.index(slip) + 1}]" if slipped else implied,
            implied=implied,
            texts=(title, abstract, slip, *cited),
        )

    def shown(self, draft: Draft, answer: str) -> Mapping[str, float]:
        """Returns whether the reference of the user's own field was chosen."""
        return {"interests": float(answer == draft.implied)}


def make_researcher(rng: random.Random) -> Researcher:
    """Returns a user with drawn traits."""
    return Researcher(
        interests=tuple(sorted(rng.sample(tuple(_FIELDS), 2))), frame=rng.choice(_FRAMES), leads=rng.random() < 0.5
    )


def _reference(rng: random.Random, topic: str) -> str:
    return rng.choice(_REFERENCES).format(f"{rng.choice(_KINDS)} {topic}".title())


def _question(title: str, options: list[str]) -> str:
    # LaMP-1's wording around title and options (Salemi et al. 2023).
    return (
        f'{task_named("lamp-1").before}{title}", which reference is related? Just answer with [1] or [2] without '
        f'explanation. [1]: "{options[0]}" [2]: "{options[1]}"'
    )
