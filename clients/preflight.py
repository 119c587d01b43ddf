"""Checks a config's share policy before a run starts: `python -m clients.preflight CONFIG.json`, exit code 2 if it is bad."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import BadInputError
from clients.sharing.plugins import make_policy


def main(arguments: Sequence[str]) -> int:
    """Constructs the policy of the flat JSON config that is named; returns the exit code."""
    try:
        make_policy(RunConfig.from_flwr(json.loads(Path(arguments[0]).read_text(encoding="utf-8"))))
    except BadInputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
