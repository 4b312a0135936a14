"""What the documentation shows: samples run, commands exist, links lead somewhere."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("**/*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")


class Sample(NamedTuple):
    """A fenced block of a page."""

    page: Path
    language: str
    text: str
    line: int

    @property
    def name(self) -> str:
        """Where it is, for the test's id."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def samples() -> list[Sample]:
    """Every fenced block of every page."""
    found: list[Sample] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found += [
            Sample(page, match[1], match[2], text.count("\n", 0, match.start()) + 1) for match in _FENCE.finditer(text)
        ]
    return found


def commands() -> list[tuple[str, str]]:
    """Every line of every shell block, with its place."""
    found: list[tuple[str, str]] = []
    for sample in samples():
        if sample.language in ("sh", "bash", "console"):
            lines = enumerate(sample.text.replace("\\\n", "").splitlines(), sample.line + 1)
            found += [(f"{sample.page.name}:{number}", line) for number, line in lines if line.strip()]
    return found


def make_targets() -> set[str]:
    """The Makefile's documented targets."""
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def options_of(module: str) -> set[str]:
    """The long options that a subcommand's module declares."""
    import argparse

    parser = argparse.ArgumentParser()
    importlib.import_module(module).add_arguments(parser)
    return {option for action in parser._actions for option in action.option_strings}


def split_at_dashes(words: list[str]) -> tuple[list[str], list[str], list[str]]:
    """A command's own words, the dashes that end them, and the command behind those."""
    if "--" not in words:
        return words, [], []
    at = words.index("--")
    return words[:at], words[at : at + 1], words[at + 1 :]


def check(words: list[str]) -> None:
    """Hold one command against what is there; fails for a kind of command that it does not know."""
    from otel_trading.cli.main import SUBCOMMANDS

    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        assert words[0].startswith(("OTEL_", "PYTHON")), words[0]
        words = words[1:]
    program, arguments = words[0], words[1:]
    if program == "make":
        assert set(arguments) <= make_targets()
    elif program == "otel-trading":
        assert arguments[0] in SUBCOMMANDS
        own, dashes, others = split_at_dashes(arguments[1:])
        used = {word.partition("=")[0] for word in own if word.startswith("--")}
        assert used <= options_of(SUBCOMMANDS[arguments[0]][0])
        assert bool(dashes) == (arguments[0] == "run")
        if dashes:
            check(others)
    elif program == "opentelemetry-instrument":
        check(arguments)
    elif words[:2] == ["pip", "install"]:
        extras = re.findall(r"\[(.+)\]", arguments[-1])
        declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert all(re.search(rf"^{extra} = ", declared, re.MULTILINE) for extra in ",".join(extras).split(",") if extra)
    elif words[:2] == ["python", "-m"]:
        assert (ROOT / f"{words[2].replace('.', '/')}.py").exists() or importlib.util.find_spec(words[2])
    elif program == "python" and arguments[0].endswith(".py"):
        pass  # the reader's own program
    else:
        pytest.fail(f"no check for {program!r}: teach this test how to tell whether {shlex.join(words)!r} works")


@pytest.mark.parametrize("sample", [pytest.param(one, id=one.name) for one in samples() if one.language == "python"])
def test_python_samples_run(sample: Sample, run_python: Callable[..., object]) -> None:
    """Each Python sample runs as it stands, warnings being errors."""
    run_python(sample.text)


@pytest.mark.parametrize("sample", [pytest.param(one, id=one.name) for one in samples() if one.language == "yaml"])
def test_configuration_samples_are_valid(sample: Sample, tmp_path: Path) -> None:
    """Each configuration file that is shown passes the check that a user's own has to pass."""
    from otel_trading import config

    path = tmp_path / "shown.yaml"
    path.write_text(sample.text, encoding="utf-8")
    config.resolve(config=path)


@pytest.mark.parametrize(("place", "line"), [pytest.param(place, line, id=place) for place, line in commands()])
def test_shell_commands_exist(place: str, line: str) -> None:
    """Each shell line calls a target, subcommand, option, extra or module that exists."""
    assert place
    words = shlex.split(line.removeprefix("$ "), comments=True)
    if words:
        check(words)


def test_indented_commands_of_contributing_exist() -> None:
    """The commands that CONTRIBUTING.md lists, indented, exist too."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = re.findall(r"^ {4}((?:make|otel-trading|python) .*)$", text, re.MULTILINE)
    assert lines
    for line in lines:
        check(shlex.split(line, comments=True))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link of a page names a file of the checkout."""
    targets = [match[1] for match in _LINK.finditer(page.read_text(encoding="utf-8")) if "://" not in match[1]]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_dependency_has_its_reason() -> None:
    """Each package that pyproject.toml asks for is named in CONTRIBUTING.md."""
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    names = set(re.findall(r"\"([a-z][a-z0-9-]+)(?:[<>=]=?)[0-9]", declared))
    explained = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert {"rich", "pytest", "setuptools"} <= names
    assert sorted(name for name in names if name not in explained) == []
