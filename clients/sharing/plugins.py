"""Finds the policy that `share-policy` names: built in, by entry point, or `module:Class`."""

import importlib
import importlib.util
import json
import sys
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from cdcda_flower.config import RunConfig
from cdcda_flower.errors import BadInputError, ConfigError
from cdcda_flower.runs.identity import POLICY_ENTRY_POINTS, plugin_file
from clients.sharing.policies import SharePolicy, built_in


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
    points = {point.name: point for point in entry_points(group=POLICY_ENTRY_POINTS)}
    if name not in points and ":" not in name:
        known = ", ".join([*own, *sorted(points)])
        raise ConfigError(f"share-policy is {name!r}; known policies: {known}; or give module:Class")
    try:
        policy_class = points[name].load() if name in points else _class(name, config)
        policy = policy_class(**json.loads(config.policy_args or "{}"))
    except BadInputError:
        raise
    except Exception as error:  # a user's own code may raise anything, and the user can mend it
        raise ConfigError(
            f"share-policy {name!r} cannot be set up with policy-args {config.policy_args or '{}'}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(getattr(policy, "select", None)) or not isinstance(getattr(policy, "name", None), str):
        raise ConfigError(
            f"share-policy {name!r} lacks `name` or `select(history, *, seed)`; see docs/how-to/share-policy.md"
        )
    chosen: SharePolicy = policy
    return chosen


def _class(name: str, config: RunConfig) -> Any:  # noqa: ANN401 - a user's class, checked by make_policy
    module_name, _, class_name = name.partition(":")
    module = _module(module_name, config)
    found = getattr(module, class_name, None)
    if found is None:
        raise ConfigError(f"share-policy is {name!r}; {module.__file__} has no {class_name!r}")
    return found


def _module(name: str, config: RunConfig) -> ModuleType:
    file = plugin_file(config)
    if file is None:
        try:
            return importlib.import_module(name)
        except (ModuleNotFoundError, ValueError) as error:
            where = config.plugin_dir or "no folder (plugin-dir is empty)"
            raise ConfigError(
                f"share-policy names module {name!r}, which is neither in {where} nor importable ({error}); "
                "put the file beside the run's TOML file"
            ) from error
    # Under a name of its own, so that a policy file called `random.py` shadows nothing.
    alias = f"cdcda_plugin_{name.replace('.', '_')}"
    spec = importlib.util.spec_from_file_location(alias, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    spec.loader.exec_module(module)
    return module
