"""Checks a config's plug-ins before a run starts: `python -m cdcda_flower.plugins.preflight CONFIG.json`, exit code 2 if one is bad.

It is a process of its own: the code of a plug-in runs neither in the launcher nor, before its time, in a run.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import BadInputError
from cdcda_flower.plugins import Candidate, Example, Provenance, SyntheticPair
from cdcda_flower.plugins.registry import load
from cdcda_flower.plugins.seams import CONSISTENCY_SCORER, FILTER, METRIC, RETRIEVER, Seam, plugins_in

_TEXTS = ("The first of two texts that are made up.", "The second one says something else.")


def _candidates() -> tuple[Candidate, ...]:
    made = Provenance(user_id="made-up", source_id="1", generator="", prompt_digest="", seed=0, sample=0)
    source = Example(id="1", query=_TEXTS[0], response="1")
    return tuple(
        Candidate(
            pair=SyntheticPair(
                id=f"made-up/1/{sample}", query=text, response="1", provenance=replace(made, sample=sample)
            ),
            source=source,
            text=text,
            source_text=source.query,
        )
        for sample, text in enumerate(_TEXTS)
    )


# A plug-in that returns what it may not is said here, before anything is paid for. Share policies and engines are not
# tried: a policy may expect a real history, and an engine's answer may cost money.
_TRIALS: Mapping[Seam, Callable[[Any], object]] = MappingProxyType(
    {
        FILTER: lambda made: made.judge(_candidates()),
        CONSISTENCY_SCORER: lambda made: made.score(_TEXTS, _TEXTS[::-1]),
        RETRIEVER: lambda made: made.rank(_TEXTS, _TEXTS[:1]),
        METRIC: lambda made: (made.score(*_TEXTS), made.score("", _TEXTS[0])),
    }
)


def main(arguments: Sequence[str]) -> int:
    """Constructs and tries every plug-in of the flat JSON config that is named; says all problems, and returns the exit code."""
    config = RunConfig.from_flwr(json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    problems = []
    for plugin in plugins_in(config.to_flwr()):
        try:
            # What a plug-in prints is no part of what is said here.
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                made = load(plugin, config)
                if plugin.seam in _TRIALS:
                    _TRIALS[plugin.seam](made)
        except BadInputError as error:
            problems.append(str(error))
    sys.stderr.write("".join(f"{problem}\n" for problem in problems))
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
