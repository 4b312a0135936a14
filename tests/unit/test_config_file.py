"""Our YAML file: what it may hold, and that no input does more than be refused with its place."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_trading.config import InvalidConfigurationError, resolve
from otel_trading.config.file import DEEPEST, LARGEST, MOST, load

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """Give a function that writes a file and gives its path."""

    def written(content: str | bytes) -> Path:
        path = tmp_path / "bot.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return written


def told(path: Path) -> list[str]:
    """Give the mistakes of a file, without its path."""
    return [str(problem).replace(str(path), "bot.yaml") for problem in load(path).problems]


def test_values_are_plain(write: Callable[[str], Path]) -> None:
    """Null, booleans, numbers and text; a date and a time of day stay text; quoted is always text."""
    file = load(
        write(
            "a: 1\nb: 0x10\nc: 1_000\nd: 2.5\ne: true\nf: ~\ng: text\nh: '5'\ni: 2026-01-01\nj: 12:30\n"
            "k: [1, two, {three: 3}]\nl: |\n  5\nm: .inf\non: off\n7: seven\nn: 'no'\no: 0x_\np: 1e-3\nq: 1.5E3\n"
        )
    )
    assert file.problems == []
    assert file.values == {
        "a": 1,
        "b": 16,
        "c": 1000,
        "d": 2.5,
        "e": True,
        "f": None,
        "g": "text",
        "h": "5",
        "i": "2026-01-01",
        "j": "12:30",
        "k": [1, "two", {"three": 3}],
        "l": "5\n",
        "m": float("inf"),
        "on": False,
        "7": "seven",
        "n": "no",
        "o": "0x_",
        "p": 0.001,
        "q": 1500.0,
    }
    assert (file.lines["a"], file.lines["k"], file.lines["k[2].three"]) == (1, 11, 11)


@pytest.mark.parametrize("content", ["", "# nothing\n", "---\n...\n", "~\n", "{}\n"])
def test_an_empty_file_says_nothing(write: Callable[[str], Path], content: str) -> None:
    """An empty file, or one of comments, is one without settings."""
    file = load(write(content))
    assert (file.values, file.problems) == ({}, [])


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("a: 1\na: 2\n", ["a: given twice; the first is in line 1 (bot.yaml, line 2)"]),
        ("r:\n  s: 1\n  s: 2\n", ["r.s: given twice; the first is in line 2 (bot.yaml, line 3)"]),
        (
            "a: &x 1\nb: *x\n",
            [
                "a: an anchor (&x) is not taken here: write the value out (bot.yaml, line 1)",
                "b: an alias (*x) is not taken here: write the value out (bot.yaml, line 2)",
            ],
        ),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            [
                (
                    "a: a tag (tag:yaml.org,2002:python/object/apply:os.system) is not taken here: write a plain value "
                    "(bot.yaml, line 1)"
                )
            ],
        ),
        ("a: ! 5\n", ["a: a tag (!) is not taken here: write a plain value (bot.yaml, line 1)"]),
        ("- 1\n", ["YAML: is not a mapping of keys at its top (bot.yaml, line 1)"]),
        ("a: 1\n---\nb: 2\n", ["YAML: more than one document is in the file; leave one (bot.yaml, line 2)"]),
        ("? [a]\n: 1\n", ["YAML: a key is neither a word nor text (bot.yaml, line 1)"]),
        ("a: " + "9" * 65 + "\n", ["a: the number is too long (bot.yaml, line 1)"]),
        ("a: 1\nb: \x07\n", ["YAML: can not be parsed: a character that YAML does not allow, 7 (bot.yaml, line 2)"]),
        (
            "a: 1\n b: 2\n",
            ["YAML: can not be parsed: mapping values are not allowed here in column 3 (bot.yaml, line 2)"],
        ),
    ],
)
def test_what_is_refused(write: Callable[[str], Path], content: str, lines: list[str]) -> None:
    """Each thing that has no place in a configuration is told with its key and line."""
    assert told(write(content)) == lines


def test_a_refused_value_leaves_the_rest(write: Callable[[str], Path]) -> None:
    """What is refused is left out, and the rest of the file is looked at all the same."""
    file = load(write("a: &x {b: 1}\nc: [1, !t 2, 3]\nd: 4\n"))
    assert len(file.problems) == 2
    assert file.values == {"c": [1, 3], "d": 4}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: " + "[" * DEEPEST, f"nested more than {DEEPEST} deep"),
        ("[" * 100_000, f"nested more than {DEEPEST} deep"),
        ("? " * 50_000, "neither a word nor text"),
        ("a: [" + "1, " * MOST + "]", f"more than {MOST} keys and values"),
        ("".join(f"k{number}: 1\n" for number in range(MOST + 1)), f"more than {MOST} keys and values"),
    ],
)
def test_bounds(write: Callable[[str], Path], content: str, message: str) -> None:
    """Nesting and the number of values are bounded."""
    assert any(message in line for line in told(write(content)))


def test_files_that_can_not_be_read(write: Callable[[str | bytes], Path], tmp_path: Path) -> None:
    """No file, a directory, a pipe, too many bytes, and no text are told, without waiting for anything."""
    os.mkfifo(tmp_path / "pipe")
    for path, message in [
        (tmp_path / "none.yaml", "can not be read (No such file or directory)"),
        (tmp_path, "is not a regular file"),
        (tmp_path / "pipe", "is not a regular file"),
        (Path("a\0b"), "can not be read (embedded null byte)"),
    ]:
        file = load(path)
        assert file.unreadable
        assert [problem.message for problem in file.problems] == [message]
    file = load(write(b"a" * (LARGEST + 1)))
    assert file.unreadable
    assert "more than" in file.problems[0].message
    file = load(write(b"a: 1\nb: \xff\n"))
    assert file.problems[0].message == "is not text in UTF-8 (byte 0xff in line 2)"
    assert load(write(b"\xef\xbb\xbfa: 1\n")).values == {"a": 1}


def test_a_link_is_followed(write: Callable[[str], Path], tmp_path: Path) -> None:
    """A configuration may be a link, as Kubernetes makes them."""
    (tmp_path / "link").symlink_to(write("a: 1\n"))
    assert load(tmp_path / "link").values == {"a": 1}


def test_all_mistakes_of_all_sources_at_once(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """File, environment and arguments are told together, those of the file with their lines."""
    path = write("ring:\n  slots: 1000\n  slot: 5\ntiers:\n  a.*: P9\ndrain.period: soon\n")
    monkeypatch.setenv("OTEL_TRADING_CONFIG", str(path))
    monkeypatch.setenv("OTEL_TRADING_ENABLED", "perhaps")
    with pytest.raises(InvalidConfigurationError) as caught:
        resolve(config={"names.max": 1})
    assert not caught.value.unreadable
    assert [(problem.key, problem.line, problem.file) for problem in caught.value.problems] == [
        ("ring.slots", 2, str(path)),
        ("ring.slot", 3, str(path)),
        ("tiers.a.*", 5, str(path)),
        ("drain.period", 6, str(path)),
        ("OTEL_TRADING_ENABLED", None, None),
        ("names.max", None, None),
    ]


def test_a_mistake_that_is_overruled_is_told(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong value of the file is told even where the environment says another."""
    monkeypatch.setenv("OTEL_TRADING_SAMPLING_RATE", "0.5")
    with pytest.raises(InvalidConfigurationError, match=r"sampling\.rate: 5 is not a number from 0 to 1 .*line 1"):
        resolve(config=write("sampling.rate: 5\n"))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """A file that is not there is a mistake, and an unreadable one."""
    with pytest.raises(InvalidConfigurationError, match="No such file") as caught:
        resolve(config=str(tmp_path / "none.yaml"))
    assert caught.value.unreadable


def test_a_directory_is_relative_to_the_file(write: Callable[[str], Path], tmp_path: Path) -> None:
    """A relative directory in a file is below the file's own, not the program's."""
    assert resolve(config=write("directory: segments\n")).directory == str(tmp_path / "segments")


def test_nested_and_flat_keys_in_one_file(write: Callable[[str], Path]) -> None:
    """A key that is there both nested and flat is given twice."""
    path = write("ring: {slots: 64}\nring.slots: 128\n")
    with pytest.raises(InvalidConfigurationError, match=r"ring\.slots: given twice"):
        resolve(config=path)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1, max_size=10), inner, max_size=4),
    max_leaves=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(min_size=1, max_size=10), plain, max_size=5))
def test_json_comes_back(tmp_path: Path, value: dict[str, Any]) -> None:
    """JSON is YAML: any mapping of plain values comes back as it was written."""
    path = tmp_path / "bot.yaml"
    path.write_text(json.dumps(value), encoding="utf-8")
    file = load(path)
    assert file.problems == []
    assert json.dumps(file.values) == json.dumps(value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(alphabet=st.sampled_from("ab:-?[]{}&*!|>'\"%@#,. \n\t\\0x1~\u00e9\x85"), max_size=80)
    | st.binary(max_size=80)
)
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: str | bytes) -> None:
    """No content makes anything but plain values or mistakes; and it is refused wherever PyYAML refuses it."""
    path = tmp_path / "bot.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    file = load(path)
    assert all(problem.message for problem in file.problems)
    if not file.problems:
        parsed = list(yaml.parse(path.read_bytes(), Loader=yaml.SafeLoader))
        assert not any(getattr(event, "anchor", None) for event in parsed)
    with contextlib.suppress(InvalidConfigurationError):
        resolve(config=path)
