"""Checks a config's plug-ins before a run starts: `python -m cdcda_flower.plugins.preflight CONFIG.json`, exit code 2 if one is bad.

It is a process of its own: the code of a plug-in runs neither in the launcher nor, before its time, in a run.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import BadInputError
from cdcda_flower.plugins.registry import load
from cdcda_flower.plugins.seams import plugins_in


def main(arguments: Sequence[str]) -> int:
    """Constructs every plug-in of the flat JSON config that is named; says all problems, and returns the exit code."""
    config = RunConfig.from_flwr(json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    problems = []
    for plugin in plugins_in(config.to_flwr()):
        try:
            load(plugin, config)
        except BadInputError as error:
            problems.append(str(error))
    sys.stderr.write("".join(f"{problem}\n" for problem in problems))
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
