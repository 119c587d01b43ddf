"""What an OpenAI-compatible server can do with an answer: go on with one that is begun, bind it, give it a JSON schema's shape.

Servers differ, and what one does not know it refuses, or ignores without a word. So it is asked, once per run and before
anything is shared, for words that no text of a user stands behind. `python -m strategies.cloud.openai_abilities CONFIG.json`
does so before a run starts, and prints what was found; exit code 2 where the config asks for more, 3 where the server fails.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from cdcda_flower.cloud_api import SERVER_VARIABLE
from cdcda_flower.config import RunConfig
from cdcda_flower.errors import BadInputError, CdcdaError, ConfigError
from cdcda_flower.models.model_files import asks_cloud
from cdcda_flower.runs.folder import CloudServer
from cdcda_flower.seeding import Json
from strategies.cloud.openai_calls import Call, GaveUp, Server

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = logging.getLogger(__name__)

# What makes a server go on with a begun answer: vLLM and SGLang ask for both fields, llama.cpp and Ollama for none.
CONTINUED: Mapping[str, Json] = MappingProxyType({"continue_final_message": True, "add_generation_prompt": False})


def _grammar(texts: Sequence[str]) -> str:
    return "root ::= " + " | ".join(json.dumps(text, ensure_ascii=False) for text in texts)


def _in_json(schema: Json) -> Json:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def _string(texts: Sequence[str]) -> dict[str, Json]:
    # Without the space that stands before a choice in a begun answer.
    return {"type": "string", "enum": [text.strip() for text in texts]} if texts else {"type": "string"}


# What binds an answer to some texts, by the field of a request: vLLM's, that of vLLM before 0.11, llama.cpp's, OpenAI's.
BINDS: Mapping[str, Callable[[Sequence[str]], Json]] = MappingProxyType(
    {
        "structured_outputs": lambda texts: {"choice": list(texts)},
        "guided_choice": list,
        "grammar": _grammar,
        "response_format": lambda texts: _in_json(_string(texts)),
    }
)
# A text has at most as many tokens as UTF-8 bytes; JSON's two quotes, the token that ends all, and one to spare. Around the
# name of a part of an object: quotes, colon, comma, braces, and as many spaces.
_AROUND_A_CHOICE, _AROUND_A_NAME = 4, 12

# Begun within a word, and not about what is asked: who begins a new answer neither goes on with it nor writes it again. And
# two texts that nobody would write.
_BEGUN, _GOES_ON = "red-green-blue red-green-blue red", "-green"
_UNLIKELY = ("vermilion-71", "vermilion-72")


def bound_fields(server: CloudServer, choices: Sequence[str]) -> Mapping[str, Json]:
    """Returns the fields of a request with which a server writes one of the choices, behind a space."""
    return {server.binds: BINDS[server.binds]([f" {choice}" for choice in choices])}


def shaped_fields(parts: Mapping[str, Sequence[str]]) -> Mapping[str, Json]:
    """Returns the fields of a request with which a server writes an object of some parts, each free or one of its choices."""
    schema: Json = {
        "type": "object",
        "properties": {name: _string(choices) for name, choices in parts.items()},
        "required": list(parts),
        "additionalProperties": False,
    }
    return {"response_format": _in_json(schema)}


def shape_tokens(names: Iterable[str]) -> int:
    """Returns how many tokens an object takes at most beside its texts."""
    return sum(len(name.encode()) + _AROUND_A_NAME for name in names)


def shaped(text: str, names: Collection[str]) -> tuple[str, ...] | None:
    """Returns the parts of an object, each on one line; None where the text is no such object."""
    with suppress(ValueError):
        read = json.loads(text)
        if isinstance(read, dict) and all(isinstance(read.get(name), str) for name in names):
            return tuple(" ".join(read[name].split()) for name in names)
    return None


def choice_tokens(choices: Sequence[str]) -> int:
    """Returns how many tokens one of the choices takes at most."""
    return max(len(f" {choice}".encode()) for choice in choices) + _AROUND_A_CHOICE


def chosen(text: str, choices: Sequence[str]) -> str | None:
    """Returns the choice that a bound answer is, whether or not it is written as JSON; None where it is none."""
    said: object = text.strip()
    if said not in choices:
        with suppress(ValueError):
            said = json.loads(text)
    return said if isinstance(said, str) and said in choices else None


def check_server(config: RunConfig) -> CloudServer | None:
    """Returns what the run's server can do, None where the run does not need to know.

    Raises ConfigError where the server cannot do what `prompt-form` asks of it.
    """
    if not (config.asks_a_server and config.prompt_form == "guided" and asks_cloud(config)):
        return None
    found = cloud_server(config)
    log.info(found.summary)
    labels = config.chosen_task.labels
    if not (found.shapes or (found.continues and (found.binds or not labels))):
        binds = f", and binds it to the labels of {config.chosen_task.name}" if labels else ""
        raise ConfigError(
            f'prompt-form is "guided"; it needs a server that goes on with an answer that is begun for it{binds}, or writes '
            f'one by a JSON schema, and {config.cloud_model!r} at {found.url} does not; set prompt-form = "paper", or take '
            "another server (docs/how-to/cloud-server.md); a model that reasons first needs that switched off in cloud-body"
        )
    return found


def cloud_server(config: RunConfig) -> CloudServer:
    """Returns what the launcher has found out, else what is found out now, once in this process."""
    handed = os.environ.get(SERVER_VARIABLE)
    return CloudServer.model_validate_json(handed) if handed else _asked(config)


@cache
def _asked(config: RunConfig) -> CloudServer:
    server = Server(config)
    try:
        return asyncio.run(_ask(server))
    except GaveUp as failure:
        raise server.explained(failure, "nothing was shared yet") from None


async def _ask(server: Server) -> CloudServer:
    async with server.client() as client:
        said = await _said(server, client, _BEGUN, {})
        repeats = said.startswith(_BEGUN)
        continues = said.removeprefix(_BEGUN).startswith(_GOES_ON)
        binds, shapes = "", False
        for name, bound in BINDS.items() if continues else ():
            said = await _said(server, client, "Answer:", {name: bound([f" {text}" for text in _UNLIKELY])})
            if chosen(said.removeprefix("Answer:"), _UNLIKELY) is not None:
                binds = name
                break
        if not binds:
            said = await _said(server, client, "", shaped_fields({"Answer": _UNLIKELY}))
            shapes = (shaped(said, ["Answer"]) or ("",))[0] in _UNLIKELY
        if not (continues or shapes):
            # A server that answers nothing at all has failed at something else, which is what must be said.
            await server.answer(client, _call("", {}))
    return CloudServer(
        url=server.url, continues=continues, repeats=repeats, binds=binds, shapes=shapes, usage=server.usage
    )


async def _said(server: Server, client: "AsyncOpenAI", begun: str, fields: Mapping[str, Json]) -> str:
    """Returns a server's answer; "" where it refuses what is asked, or fails at it."""
    try:
        answer = await server.answer(client, _call(begun, {**(CONTINUED if begun else {}), **fields}))
    except GaveUp as failure:
        if not failure.may_be_the_requests:
            raise
        return ""
    return answer.sample.text


def _call(begun: str, fields: Mapping[str, Json]) -> Call:
    return Call(
        prompt="Name a bird.",
        begun=begun,
        fields=fields,
        max_tokens=choice_tokens(_UNLIKELY) + shape_tokens(["Answer"]),
        temperature=0.0,
        seed=0,  # nothing is drawn
        is_doubtful=True,
    )


def main(arguments: Sequence[str]) -> int:
    """Asks the server of the flat JSON config that is named; prints what it can do, and returns the exit code."""
    try:
        found = check_server(RunConfig.from_flwr(json.loads(Path(arguments[0]).read_text(encoding="utf-8"))))
    except CdcdaError as error:
        sys.stderr.write(f"{error}\n")
        return 2 if isinstance(error, BadInputError) else 3
    sys.stdout.write(found.model_dump_json() if found else "")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
