"""A plug-in is found, constructed and checked; every mistake of its author has one message that names it."""

import json
from pathlib import Path
from typing import Any

import pytest

from cdcda_flower.errors import BadInputError, ConfigError
from cdcda_flower.plugins import preflight
from cdcda_flower.plugins.registry import load, missing
from cdcda_flower.plugins.seams import SHARE_POLICY, Plugin, plugins_in
from cdcda_flower.types import Example
from lamp_folder import config

HISTORY = tuple(Example(id=str(n), query=f"text {n}", response="4") for n in range(10))
GOOD = """
class Mine:
    def __init__(self, *, n=1):
        self.n = n

    def select(self, history, *, seed):
        return history[: self.n]
"""


def _load(folder: Path, code: str, name: str = "mine:Mine", **arguments: object) -> Any:
    (folder / "mine.py").write_text(code, encoding="utf-8")
    given = json.dumps({name: arguments}) if arguments else ""
    own = config(plugin_dir=str(folder), share_policy=name, plugin_args=given)
    return load(Plugin(SHARE_POLICY, name), own)


def test_a_class_beside_the_toml_file_is_constructed_with_its_arguments(tmp_path: Path) -> None:
    assert _load(tmp_path, GOOD).select(HISTORY, seed=0) == HISTORY[:1]
    assert _load(tmp_path, GOOD, n=3).select(HISTORY, seed=0) == HISTORY[:3]


def test_a_module_in_a_folder_below_is_found_and_shadows_nothing(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text(GOOD, encoding="utf-8")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep.py").write_text(GOOD, encoding="utf-8")
    for name in ("random:Mine", "sub.deep:Mine"):
        assert _load(tmp_path, GOOD, name).select(HISTORY, seed=0) == HISTORY[:1]
    import random

    assert not hasattr(random, "Mine")


def test_a_class_of_an_installed_module_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib" / "chosen").mkdir(parents=True)
    (tmp_path / "lib" / "chosen" / "well.py").write_text(GOOD, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    assert _load(tmp_path, GOOD, "chosen.well:Mine").select(HISTORY, seed=0) == HISTORY[:1]
    with pytest.raises(ConfigError, match=r"its module is neither in .* nor importable"):
        _load(tmp_path, GOOD, "chosen.badly:Mine")


SELECT = "class Mine:\n    def select(self, {}): ...\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("class Mine(:\n", "SyntaxError"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("import sys\nsys.exit(0)\n", "SystemExit"),
        ("import nothing_of_that_name\n", "No module named 'nothing_of_that_name'"),
        ("class Other: ...\n", "mine.py has no 'Mine'"),
        ("Mine = 3\n", "'int' object is not callable"),
        ("class Mine:\n    def __init__(self, n): ...\n", "missing 1 required positional argument: 'n'"),
        ("class Mine: ...\n", r"lacks `select\(history, \*, seed\)`"),
        ("class Mine:\n    select = 3\n", r"lacks `select\(history, \*, seed\)`"),
        (SELECT.format("history"), r"takes other arguments than `select\(history, \*, seed\)`"),
        (SELECT.format("history, *, seed, user"), "takes other arguments"),
        (SELECT.format("*, seed"), "takes other arguments"),
        ("class Own:\n    def select(self, history, *, seed): ...\ndef Mine(): return Own\n", "no object of it"),
    ],
)
def test_an_authors_mistake_is_a_config_error_that_names_the_plugin(tmp_path: Path, code: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        _load(tmp_path, code)
    assert str(caught.value).startswith("share-policy")
    assert "mine:Mine" in str(caught.value)


def test_a_method_may_take_more_than_it_is_given(tmp_path: Path) -> None:
    for more in ("history, seed", "history, *, seed, user=None", "*given, **more"):
        _load(tmp_path, SELECT.format(more))


def test_arguments_that_the_constructor_does_not_take_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'mine:Mine' cannot be set up with plugin-args \{\"m\": 3\}: TypeError"):
        _load(tmp_path, GOOD, m=3)


def _point(folder: Path, package: str, point: str) -> None:
    """Writes what pip leaves of a distribution that offers a share policy by entry point."""
    facts = folder / f"{package}-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    (facts / "entry_points.txt").write_text(f"[{SHARE_POLICY.group}]\n{point}\n", encoding="utf-8")


def test_an_entry_point_is_a_name_and_two_of_one_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "offered.py").write_text(GOOD, encoding="utf-8")
    _point(tmp_path, "one", "first = offered:Mine")
    own = config(share_policy="first", plugin_args='{"first": {"n": 2}}')
    assert load(Plugin(SHARE_POLICY, "first"), own).select(HISTORY, seed=0) == HISTORY[:2]
    with pytest.raises(ConfigError, match=r"known: ratio, recent, .*, all, none, first; or give module:Class"):
        config(share_policy="frist")
    _point(tmp_path, "two", "first = offered:Other")
    with pytest.raises(ConfigError, match="two installed packages offer the share policy 'first'"):
        config(share_policy="first")


def test_what_is_nowhere_is_said_without_running_anything(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise RuntimeError\n", encoding="utf-8")
    given = {"plugin_dir": str(tmp_path)}
    assert list(missing(config(share_policy="mine:Mine", **given))) == []
    assert list(missing(config(share_policy="all", **given))) == []
    [problem] = missing(config(share_policy="theirs:Mine", **given))
    assert problem.startswith("share-policy is 'theirs:Mine'; its module is neither in")


def test_a_config_names_its_plugins_once() -> None:
    assert plugins_in({"share-policy": "ratio"}) == plugins_in({}) == ()
    assert plugins_in({"share-policy": "a:B"}) == (Plugin(SHARE_POLICY, "a:B"),)


def test_preflight_says_what_is_wrong_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(GOOD, encoding="utf-8")
    for policy, code in (("ratio", 0), ("mine:Mine", 0), ("mine:Other", 2)):
        file = tmp_path / "config.json"
        file.write_text(json.dumps(config(plugin_dir=str(tmp_path), share_policy=policy).to_flwr()), encoding="utf-8")
        assert preflight.main([str(file)]) == code
    assert "has no 'Other'" in capsys.readouterr().err


def test_a_plugins_error_is_bad_input() -> None:
    assert issubclass(ConfigError, BadInputError)
