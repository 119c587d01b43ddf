"""Redaction: e-mail addresses, URLs, phone numbers, handles and numbers in a text become words such as `[email]`.

What a pattern matches is what its kind means; names of people are none of the kinds.
"""

import re
from collections.abc import Collection
from dataclasses import replace
from functools import cache

from cdcda_flower.tasks import Task
from cdcda_flower.types import Example

# An address is a whole run of its characters, so that no part of it stays behind.
_AT, _OF_ADDRESS = "@\uff20\ufe6b", r"\w.+\-"
_RUN = rf"(?<![{_OF_ADDRESS}{_AT}])"
_REST = rf"[{_AT}][{_OF_ADDRESS}{_AT}]*\w"
# A host's labels are at most 63 characters long; few of them bound the work on a text of a million dots.
_HOST = rf"(?<![\w{_AT}\-])(?:\w[\w-]{{0,62}}\.){{1,8}}"

# In the order in which they are tried at one place. Each pattern takes time in proportion to the text.
_PATTERNS = {
    "email": rf"{_RUN}[.+\-]*+\w[{_OF_ADDRESS}]*+{_REST}",
    "url": r"(?<![a-z0-9+.\-])[a-z0-9+.\-]*+://\S++"
    r"|(?<!\w)www\.\S++"
    rf"|{_HOST}(?:[a-z]{{2,63}}/\S*+|(?:com|org|net|edu|gov|info|biz)(?![\w-])(?:[:?#]\S++)?)",
    "phone": r"\+?\d(?:[\s().\-/\u2010-\u2015]{0,3}\d){6,}",
    "handle": rf"{_RUN}[.+\-]*+{_REST}",
    "number": r"\d++(?:[.,]\d++)*+",
}
KINDS = tuple(_PATTERNS)
"""What can be redacted."""


def redacted(example: Example, task: Task, kinds: Collection[str]) -> Example:
    """Returns the example with the kinds redacted in what a user wrote, under its own id.

    The task's fixed words stay, and so does a response that is one of the task's labels.
    """
    if not kinds:
        return example
    before, text, after = task.parts(example.query)
    response = example.response
    return replace(
        example,
        query=before + without(text, kinds) + after,
        response=response if response in task.labels else without(response, kinds),
    )


def without(text: str, kinds: Collection[str]) -> str:
    """Returns the text without what the kinds match: no match of any is left."""
    pattern = _pattern(frozenset(kinds))
    # What stands in a match's place may end another one's beginning, so until nothing changes. It ends: every match holds
    # a digit, an at sign, "://", or a dot between letters, and what stands in its place holds none.
    while (found := pattern.sub(lambda match: f"[{match.lastgroup}]", text)) != text:
        text = found
    return text


@cache
def _pattern(kinds: frozenset[str]) -> re.Pattern[str]:
    named = (f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items() if kind in kinds)
    return re.compile("|".join(named), re.IGNORECASE)
