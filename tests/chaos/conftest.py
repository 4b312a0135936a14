"""How long the chaos suite goes on, and what it tells: briefly in the ordinary suite, at length by ``make chaos``.

CHAOS=long is the long form; CHAOS_SHARE=0.02 with it makes 2 % of its rounds, to try it.  The long form tells once a
minute how far it is, writes what it measures to ``build/chaos.jsonl``, a line each, and sums up at the end.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LONG = os.environ.get("CHAOS") == "long"
SHARE = float(os.environ.get("CHAOS_SHARE", "1"))
FIGURES = Path(__file__).resolve().parent.parent.parent / "build" / "chaos.jsonl"
_PERIOD = 60.0  # seconds between two words of how far it is

_sums: list[str] = []


@pytest.fixture
def rounds() -> Callable[[int, int], int]:
    """Give a function that chooses between a short and a long number of rounds."""
    return lambda few, many: max(1, round(many * SHARE)) if LONG else few


@pytest.fixture
def chosen() -> Callable[[float, float], float]:
    """Give a function that chooses between what holds in the short form and in the long one, whatever its share."""
    return lambda short, long: long if LONG else short


@contextmanager
def _aloud(request: pytest.FixtureRequest) -> Iterator[None]:
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        yield


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Give a function that notes what was measured, in the long form; ``each``: one of many, which the sum is about."""

    def note(what: str, *, each: bool = False, **found: object) -> None:
        if not LONG:
            return
        FIGURES.parent.mkdir(exist_ok=True)
        with FIGURES.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"what": what, **({"each": True} if each else {}), **found}) + "\n")
        if not each:
            told = ", ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in found.items()
            )
            _sums.append(f"{what}: {told}")
            with _aloud(request):
                sys.stderr.write(f"\nchaos: {_sums[-1]}\n")

    return note


@pytest.fixture
def progress(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Give a function that says how far a test is, in the long form, once a minute at most."""
    due = time.monotonic() + _PERIOD

    def say(text: str) -> None:
        nonlocal due
        if LONG and time.monotonic() >= due:
            due = time.monotonic() + _PERIOD
            with _aloud(request):
                sys.stderr.write(f"\nchaos: {time.strftime('%H:%M:%S')} {text}\n")

    return say


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Sum up."""
    if _sums:
        terminalreporter.section("chaos")
        for line in _sums:
            terminalreporter.write_line(line)
