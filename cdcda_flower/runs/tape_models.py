"""What a config's model keys stand for on a tape: names without files."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from cdcda_flower.errors import DataError
from cdcda_flower.models.sources import is_path
from cdcda_flower.runs.tape import Tape
from cdcda_flower.types import ModelRef

ROLES: Mapping[str, Literal["cloud", "consistency"]] = MappingProxyType(
    {"cloud-model": "cloud", "consistency-model": "consistency"}
)


def asked_name(maker: str, name: str) -> str:
    """Returns a model's name without its folder, which differs between machines."""
    return Path(name).name if is_path(name) and maker != "openai" else name


def replayed_model(tape: Tape, key: str, maker: str, name: str) -> ModelRef:
    """Returns the model that a tape was recorded with under a config key's name.

    Raises DataError where the tape has no answers of such a model, or of several.
    """
    role = ROLES[key]
    known = [model for model in tape.models() if model.role == role]
    named = [model for model in known if (model.maker, model.asked) == (maker, asked_name(maker, name))]
    if not named:
        have = ", ".join(sorted({f"{model.asked} ({model.maker})" for model in known})) or f"no {role} model"
        raise DataError(
            f"{key} is {name!r} ({maker}); tape {tape.path} has answers of {have}; "
            'name that model, another tape, or take tape-mode = "record"'
        )
    if len({model.contents for model in named}) > 1:
        digests = ", ".join(model.digest[:12] for model in named)
        raise DataError(
            f"{key} is {name!r}; tape {tape.path} has answers of several models of that name ({digests}), and a "
            'replay looks at no model\'s files; take tape-mode = "record", which asks only for what is missing'
        )
    return ModelRef(name=named[0].name, path="", digest=named[0].digest)
