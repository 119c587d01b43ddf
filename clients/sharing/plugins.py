"""Finds the policy that `share-policy` names: built in, by entry point, or `module:Class`."""

import importlib
import importlib.util
import json
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import ConfigError
from clients.sharing.policies import SharePolicy, built_in

ENTRY_POINTS = "cdcda_flower.share_policies"


def make_policy(config: RunConfig) -> SharePolicy:
    """Returns the policy, constructed with `policy-args`; raises ConfigError with the known names or the remedy."""
    own = built_in(config)
    name = config.share_policy
    if name in own:
        if config.policy_args:
            raise ConfigError(
                f"policy-args is {config.policy_args!r}; the built-in policy {name!r} takes none (share-ratio sets it)"
            )
        return own[name]
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name in points:
        return _construct(points[name].load(), config)
    if ":" in name:
        return _construct(_class(name, config), config)
    known = ", ".join([*own, *sorted(points)])
    raise ConfigError(f"share-policy is {name!r}; known policies: {known}; or give module:Class")


def _class(name: str, config: RunConfig) -> Any:  # noqa: ANN401 - a user's class, checked by _construct
    module_name, _, class_name = name.partition(":")
    module = _module(module_name, config)
    found = getattr(module, class_name, None)
    if found is None:
        raise ConfigError(f"share-policy is {name!r}; {module.__file__} has no {class_name!r}")
    return found


def _module(name: str, config: RunConfig) -> ModuleType:
    file = Path(config.plugin_dir, *name.split(".")).with_suffix(".py") if config.plugin_dir else None
    try:
        if file is None or not file.is_file():
            return importlib.import_module(name)
        # Under a name of its own, so that a policy file called `random.py` shadows nothing.
        alias = f"cdcda_plugin_{name.replace('.', '_')}"
        spec = importlib.util.spec_from_file_location(alias, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[alias] = module
        spec.loader.exec_module(module)
        return module
    except ModuleNotFoundError as error:
        where = config.plugin_dir or "no folder (plugin-dir is empty)"
        raise ConfigError(
            f"share-policy names module {name!r}, which is neither in {where} nor importable ({error}); "
            "put the file beside the run's TOML file"
        ) from error
    except SyntaxError as error:
        raise ConfigError(f"share-policy: {error.filename}, line {error.lineno}: {error.msg}") from error


def _construct(policy_class: Any, config: RunConfig) -> SharePolicy:  # noqa: ANN401 - a user's class
    arguments = json.loads(config.policy_args or "{}")
    try:
        policy = policy_class(**arguments)
    except TypeError as error:
        raise ConfigError(
            f"share-policy {config.share_policy!r} refuses policy-args {config.policy_args or '{}'}: {error}"
        ) from error
    if not callable(getattr(policy, "select", None)) or not isinstance(getattr(policy, "name", None), str):
        raise ConfigError(
            f"share-policy {config.share_policy!r} lacks `name` or `select(history, *, seed)`; see docs/share-policies.md"
        )
    chosen: SharePolicy = policy
    return chosen
