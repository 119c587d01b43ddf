"""The control's knowledge: the persona who wrote a text would have answered its rewording as it is answered."""

import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from cdcda_flower.data.personas import headlines, ratings, rewording, tags, titles
from cdcda_flower.data.personas.drafts import Persona, holds
from cdcda_flower.data.personas.rewording import REWORDED_TASKS, reworded
from cdcda_flower.tasks import task_named
from cdcda_flower.types import same_text

DRAWS = 300


def plot_tag(persona: tags.Tagger, text: str) -> str:
    """Returns the tag that a user gives to a plot of two motifs."""
    found = sorted(
        (text.index(motif), tag) for tag, motifs in tags._MOTIFS.items() for motif in motifs if motif in text
    )
    (_, first), (_, last) = found
    return persona._tag(first, last)


def stars(persona: ratings.Rater, text: str) -> str:
    """Returns the rating that a user gives to a review."""
    levels = {
        level
        for level, (qualities, effects) in ratings._VERDICTS.items()
        for quality in qualities
        for effect in effects
        if f" It is {quality} and {effect}." in text
    }
    [level] = levels
    complaints = [aspect for aspect, said in ratings._COMPLAINTS.items() if any(one in text for one in said)]
    return str(ratings._stars(level + persona.offset - (persona.focus in complaints)))


def headline(persona: headlines.Editor, text: str) -> str:
    """Returns the headline that a user gives to an article."""
    days, verbeds = "|".join(headlines._DAYS), "|".join(verb[2] for verb in headlines._VERBS)
    found = re.fullmatch(rf"The (.+) of (\w+) ({verbeds}) a (.+) (?:{days}), .+\.", text)
    assert found, text
    actor, place, verbed, topic = found.groups()
    [(verb, verbs, _)] = [one for one in headlines._VERBS if one[2] == verbed]
    facts = {"place": place, "actor": actor, "topic": topic, "verb": verb, "verbs": verbs, "verbed": verbed}
    return persona._headline(facts)


def title(persona: titles.Scholar, text: str) -> str:
    """Returns the title that a user gives to an abstract."""
    phrases = {"method": titles._METHODS, "problem": titles._PROBLEMS, "field": titles._FIELDS}
    facts = {kind: next(one for one in known if one in text.lower()) for kind, known in phrases.items()}
    names = (start + end for start in titles._STARTS for end in titles._ENDS)
    return persona._title({**facts, "name": next(name for name in names if re.search(rf"\b{name}\b", text))})


# Each takes a persona of its own task.
ANSWERS: dict[str, Callable[[Any, str], str]] = {
    "lamp-2": plot_tag,
    "lamp-3": stars,
    "lamp-4": headline,
    "lamp-5": title,
}
MAKERS: dict[str, Callable[[random.Random], Persona]] = {
    "lamp-2": tags.make_tagger,
    "lamp-3": ratings.make_rater,
    "lamp-4": headlines.make_editor,
    "lamp-5": titles.make_scholar,
}


@pytest.mark.parametrize("name", REWORDED_TASKS)
def test_the_persona_would_have_answered_the_new_text_so(name: str) -> None:
    task = task_named(name)
    for seed in range(DRAWS):
        rng = random.Random(seed)
        persona = MAKERS[name](rng)
        draft = persona.draft(rng)
        text = task.parts(draft.input).text
        new, answer = reworded(name, text, draft.implied, rng)
        assert same_text(new) != same_text(text)
        kept = draft.implied if draft.implied in task.labels else answer
        assert ANSWERS[name](persona, new) == kept, (text, new)


@pytest.mark.parametrize("name", REWORDED_TASKS)
def test_rewordings_range_from_close_to_new(name: str) -> None:
    rng = random.Random(1)
    text = task_named(name).parts(MAKERS[name](rng).draft(rng).input).text
    own = set(text.split())
    shared = [len(own & set(reworded(name, text, "", random.Random(seed))[0].split())) / len(own) for seed in range(60)]
    assert min(shared) + 0.2 < max(shared)


def test_no_words_of_a_persona_are_exchanged() -> None:
    own = {
        "lamp-4": [*headlines._CATCHWORDS, *headlines._CLOSERS, *headlines._PATTERNS.values()],
        "lamp-5": [*titles._PETS, *titles._TAILS, *titles._FORMS.values()],
    }
    for name, texts in own.items():
        exchangeable = {form.lower() for kind in rewording._KINDS[name] for phrase in kind for form in phrase}
        for text in texts:
            assert not [form for form in exchangeable if holds(text, form)], text


def test_a_slip_stays_a_slip() -> None:
    """The control does not know the persona: it rewords the answer that was shared."""
    text = "Bought this kettle for my sister. It is awful and I hate it."
    assert reworded("lamp-3", text, "5", random.Random(1))[1] == "5"


def test_same_seed_same_rewording() -> None:
    text = "Bought this kettle for my sister. It is awful and I hate it."
    one, same, other = (reworded("lamp-3", text, "1", random.Random(seed)) for seed in (3, 3, 4))
    assert one == same != other


def test_a_text_of_another_hand_comes_back() -> None:
    assert reworded("lamp-4", "No such words.", "Nor here", random.Random(1)) == ("No such words.", "Nor here")


def test_every_phrase_of_a_kind_has_as_many_forms() -> None:
    for kinds in rewording._KINDS.values():
        for kind in kinds:
            assert len({len(phrase) for phrase in kind}) == 1
            assert len({form.lower() for phrase in kind for form in phrase}) == sum(map(len, kind))
