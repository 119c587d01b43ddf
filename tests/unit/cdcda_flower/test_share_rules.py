"""The files and values behind the share policies' keys, and what is said of bad ones."""

from pathlib import Path

import pytest

from cdcda_flower.errors import ConfigError
from cdcda_flower.share_rules import check_everybody_has_a_ratio, inline_ratios, own_ratio


def _file(folder: Path, text: str) -> str:
    file = folder / "ratios.csv"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_a_file_stands_in_the_config_itself(tmp_path: Path) -> None:
    value = inline_ratios(_file(tmp_path, '\ufeffuser,ratio\r\nu1, 0.25\r\n"u,2",1\r\n\r\n*,0\r\n'))
    assert value == '{"u1": 0.25, "u,2": 1.0, "*": 0.0}'
    assert inline_ratios(value) == value
    assert [own_ratio(value, user, seed=1) for user in ("u1", "u,2", "u3")] == [0.25, 1.0, 0.0]
    assert inline_ratios("0.1..0.9") == "0.1..0.9"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "its first line is not user,ratio"),
        ("u1,0.5\n", "its first line is not user,ratio"),
        ("user,ratio\nu1,1.5\n", "row 2 is no user,ratio"),
        ("user,ratio\nu1,0.5\nu1,0.6\n", "row 3 is no user,ratio with a user that stands in no row above"),
        ("user,ratio\nu1\n", "row 2 is no"),
        ("user,ratio\nu1,nan\n", "row 2 is no"),
        ("user,ratio\nu1,half\n", "row 2 is no"),
        ("user,ratio\n,0.5\n", "row 2 is no"),
    ],
)
def test_a_bad_file_is_said_with_its_row(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        inline_ratios(_file(tmp_path, text))


@pytest.mark.parametrize("value", ["0.5", "0.9..0.1", "0..2", "..", "a..b", "nan..nan", "-0.1..1", "0.1..0.5..0.9"])
def test_a_bad_range_is_said_with_the_rule(value: str) -> None:
    with pytest.raises(ConfigError, match=r"share-ratios is .*; give LOW\.\.HIGH between 0 and 1") as caught:
        inline_ratios(value)
    assert repr(value) in str(caught.value)


def test_files_that_cannot_be_read_and_json_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory; give LOW"):
        inline_ratios(str(tmp_path / "none.csv"))
    with pytest.raises(ConfigError, match=r"share-ratios is 'ratios\.csv'; its path must be absolute"):
        inline_ratios("ratios.csv")
    (tmp_path / "latin.csv").write_bytes(b"user,ratio\n\xe9,0.5\n")
    with pytest.raises(ConfigError, match="no CSV in UTF-8"):
        inline_ratios(str(tmp_path / "latin.csv"))
    for value, said in (("{", "no JSON"), ('{"u": true}', "a ratio is a number"), ('{"u": 2}', "gives 'u' 2; a ratio")):
        with pytest.raises(ConfigError, match=said):
            inline_ratios(value)


def test_everybody_needs_a_ratio() -> None:
    check_everybody_has_a_ratio("", ["u"])
    check_everybody_has_a_ratio("0..1", ["u"])
    check_everybody_has_a_ratio('{"u": 0.1, "v": 0.2}', ["u"])
    check_everybody_has_a_ratio('{"*": 0.1}', ["u"])
    users = [f"u{n}" for n in range(7)]
    with pytest.raises(ConfigError, match=r'for 7 of the target users \(u0, u1, u2, u3, u4, \.\.\.\); .*"\*,0\.5"'):
        check_everybody_has_a_ratio('{"v": 0.1}', users)
