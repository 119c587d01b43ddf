"""Whether an adapter tells which texts it was trained on: attacks that compare its losses (Yeom et al. 2018, Carlini et al. 2022).

Members are the user's own history, others are the user's held-out examples, which come from the same person. An attack gives
each text a score; its AUC is the chance that a member scores higher than a text that is none. 0.5 is guessing.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cdcda_flower.models.requests import ModelSpec, StoredAdapter
from cdcda_flower.seeding import derive_seed
from cdcda_flower.statistics import Interval, intervals_over_users
from cdcda_flower.types import Example

# What an attack knows beside the adapter: nothing, M_base, or adapters that other users trained. With `global>NAME` these
# have seen the text as well, if it was shared: they start from the global adapter. The last one
# reads M_base alone, which never saw a text: what it finds is no leak but how history and held-out examples differ.
CONTROL = "control: M_base"
ATTACKS = ("loss", "against M_base", "against other users", CONTROL)


class Texts(NamedTuple):
    """A user's texts: those that the adapter was trained on, and those that it was not."""

    members: tuple[Example, ...]
    others: tuple[Example, ...]

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All texts as (input, answer), the members first."""
        return tuple((one.query, one.response) for one in (*self.members, *self.others))


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """The attacks on one method's adapters: attack -> mean AUC over `users` users, with its interval."""

    method: str
    users: int
    auc: Mapping[str, Interval]

    @property
    def strongest(self) -> str:
        """The attack with the greatest mean AUC: who has the adapter will use it. The control is none."""
        return max((attack for attack in self.auc if attack != CONTROL), key=lambda attack: self.auc[attack].mean)


def auc(members: Sequence[float], others: Sequence[float]) -> float:
    """Returns the chance that a member's score is above another's; equal scores count half."""
    above = sum((member > other) + 0.5 * (member == other) for member in members for other in others)
    return above / (len(members) * len(others))


def membership(
    spec: ModelSpec,
    adapters: Mapping[str, Mapping[str, StoredAdapter]],
    texts: Mapping[str, Texts],
    *,
    shadows: int,
    seed: int,
    on_done: Callable[[int], None],
) -> list[Membership]:
    """Returns the attacks on the adapters, by method and user; `shadows` other users' adapters read each user's texts."""
    # torch takes seconds to import, which bad input need not wait for.
    from cdcda_flower.models.likelihood import Reading, answer_losses

    readings: list[tuple[str, str, str]] = [("", "", user) for user in texts]
    for method, by_user in adapters.items():
        for user in sorted(by_user.keys() & texts.keys()):
            lenders = sorted(by_user.keys() - {user})
            drawn = random.Random(derive_seed(seed, "shadows", user)).sample(lenders, min(shadows, len(lenders)))
            readings += [(method, lender, user) for lender in (user, *drawn)]
    losses = answer_losses(
        spec,
        [
            Reading(adapter=adapters[method][lender] if method else None, texts=texts[user].pairs)
            for method, lender, user in readings
        ],
        on_done=on_done,
    )
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for (method, lender, user), own in zip(readings, losses, strict=True):
        found.setdefault((method, user), {})[lender] = own
    return [_attacked(method, found, texts) for method in adapters]


def _attacked(
    method: str, found: Mapping[tuple[str, str], Mapping[str, Sequence[float]]], texts: Mapping[str, Texts]
) -> Membership:
    """`found` has the losses of each user's texts under (method, user), by whose adapter read them."""
    columns: dict[str, list[float]] = {attack: [] for attack in ATTACKS}
    users = [user for user in texts if (method, user) in found]
    for user in users:
        own, base = found[method, user][user], found["", user][""]
        scores = {
            "loss": [-loss for loss in own],
            "against M_base": _less(base, own),
            "control: M_base": [-loss for loss in base],
        }
        if shadows := [losses for lender, losses in found[method, user].items() if lender != user]:
            scores["against other users"] = _less([sum(at) / len(at) for at in zip(*shadows, strict=True)], own)
        count = len(texts[user].members)
        for attack, values in scores.items():
            columns[attack].append(auc(values[:count], values[count:]))
    filled = [attack for attack in ATTACKS if columns[attack]]
    intervals = intervals_over_users([columns[attack] for attack in filled])
    return Membership(method=method, users=len(users), auc=dict(zip(filled, intervals, strict=True)))


def _less(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(first, second, strict=True)]
