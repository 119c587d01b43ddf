"""The registry: from a name in the config to the object, checked against its seam's protocol."""

import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import BadInputError, ConfigError
from cdcda_flower.plugins.checked import CHECKED
from cdcda_flower.plugins.seams import CLOUD_ENGINE, Plugin, Seam, check_name, installed, plugins_in

T = TypeVar("T")

PAGE = "docs/reference/plugins.md"


def make(seam: Seam, name: str, config: RunConfig, built_in: Mapping[str, Callable[[], T]]) -> T:
    """Returns what a name stands for at a seam: what `built_in` makes, or a plug-in.

    Raises ConfigError with the known names, or with what the plug-in breaks.
    """
    assert set(built_in) == set(seam.built_in)
    if name in built_in:
        return built_in[name]()
    made: T = load(Plugin(seam, name), config)
    return made


def load(plugin: Plugin, config: RunConfig) -> Any:  # noqa: ANN401 - a user's object, checked against the protocol
    """Returns the plug-in, constructed with its `plugin-args` and behind its seam's checks; raises ConfigError where that fails."""
    seam, name = plugin
    check_name(seam, name)
    arguments = json.loads(config.plugin_args or "{}").get(name, {})
    try:
        offered = installed(seam)
        made = (offered[name].load() if name in offered else _class(plugin, config))(**arguments)
    except BadInputError:
        raise
    except (Exception, SystemExit) as error:  # a user's own code may raise anything, and the user can mend it
        raise ConfigError(
            f"{seam.key}: {name!r} cannot be set up with plugin-args {json.dumps(arguments)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    for problem in (*_problems(seam, made), *_unfit(seam, made, config)):
        raise ConfigError(f"{seam.key}: {name!r} {problem}; see {PAGE}")
    return CHECKED[seam](plugin, made) if seam in CHECKED else made


def file_of(plugin: Plugin, config: RunConfig) -> Path | None:
    """Returns the file beside the run's TOML file that a `module:Class` names; None where there is none."""
    module, colon, _ = plugin.name.partition(":")
    if not (colon and config.plugin_dir):
        return None
    file = Path(config.plugin_dir, *module.split(".")).with_suffix(".py")
    return file if file.is_file() else None


def missing(config: RunConfig) -> Iterator[str]:
    """Yields what can be said of a config's plug-ins without running their code: those that are nowhere."""
    for plugin in plugins_in(config.to_flwr()):
        module, colon, _ = plugin.name.partition(":")
        if colon and file_of(plugin, config) is None and find_spec(module.partition(".")[0]) is None:
            yield _nowhere(plugin, config)


def _nowhere(plugin: Plugin, config: RunConfig) -> str:
    where = config.plugin_dir or "no folder (plugin-dir is empty)"
    return (
        f"{plugin.seam.key} is {plugin.name!r}; its module is neither in {where} nor importable; put the file beside the "
        "run's TOML file"
    )


def _class(plugin: Plugin, config: RunConfig) -> Any:  # noqa: ANN401 - a user's class, checked by load
    module = _module(plugin, config)
    class_name = plugin.name.partition(":")[2]
    found = getattr(module, class_name, None)
    if found is None:
        raise ConfigError(f"{plugin.seam.key} is {plugin.name!r}; {module.__file__} has no {class_name!r}")
    return found


def _module(plugin: Plugin, config: RunConfig) -> ModuleType:
    name, file = plugin.name.partition(":")[0], file_of(plugin, config)
    if file is None:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # found, but what it imports is not
            raise ConfigError(_nowhere(plugin, config)) from error
    # Under a name of its own, so that a file called `random.py` shadows nothing.
    return _executed(f"cdcda_plugin_{name.replace('.', '_')}", file, file.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _executed(alias: str, file: Path, changed: int) -> ModuleType:
    """Returns a file as a module, executed once for each state of it: what it loads at import serves all users."""
    spec = importlib.util.spec_from_file_location(alias, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    spec.loader.exec_module(module)
    return module


def _problems(seam: Seam, made: object) -> Iterator[str]:
    """Yields what a plug-in lacks of its protocol: a method, or one that takes what it will be called with."""
    if isinstance(made, type):
        yield f"gives the class {made.__name__} and no object of it"
    for name, declared in _methods(seam.protocol):
        wanted = inspect.signature(declared)
        parameters = list(wanted.parameters.values())[1:]
        shown = f"`{name}({', '.join(_shown(parameters))})`"
        found = getattr(made, name, None)
        if not callable(found):
            yield f"lacks {shown}"
        elif not _takes(found, parameters):
            yield f"has a `{name}` that takes other arguments than {shown}"


def _unfit(seam: Seam, made: object, config: RunConfig) -> Iterator[str]:
    """Yields what a plug-in cannot do that other keys ask of it."""
    if seam is CLOUD_ENGINE and not isinstance(getattr(made, "guided", None), bool):
        yield "lacks `guided`, which says True or False: whether it can begin an answer and bind it to labels"
    elif seam is CLOUD_ENGINE and config.prompt_form == "guided" and not getattr(made, "guided", False):
        yield 'can neither begin an answer nor bind it to labels (its `guided` is False); set prompt-form = "paper"'


def _methods(protocol: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    return ((name, value) for name, value in vars(protocol).items() if inspect.isfunction(value) and name[0] != "_")


def _shown(parameters: list[inspect.Parameter]) -> Iterator[str]:
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    yield from (p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
    yield from ["*", *keywords] if keywords else []


def _takes(found: Callable[..., Any], parameters: list[inspect.Parameter]) -> bool:
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return True  # written in C: it says when it is called
    keywords = {p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY}
    try:
        signature.bind(*[None] * (len(parameters) - len(keywords)), **keywords)
    except TypeError:
        return False
    return True
