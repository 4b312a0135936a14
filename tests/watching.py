"""What the watchdog's tests share: its two programs, and looks that are written down."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import otel_trading
from otel_trading.agent import watchdog_rules as rules

PROGRAM = Path(otel_trading.__file__).parent / "otel-trading-watchdog"
TWIN = [sys.executable, "-m", "otel_trading.agent.watchdog"]


def native_program() -> list[str]:
    """Give the command of the C program; where nothing is compiled at all, the test is skipped."""
    if not list(PROGRAM.parent.glob("_native*.so")) and not PROGRAM.exists():
        pytest.skip("the C program is not built here, nor is the extension")
    assert PROGRAM.exists(), "build it: OTEL_TRADING_BUILD=yes python setup.py build_ext --inplace"
    return [str(PROGRAM)]


def by_twin(lines: list[str]) -> list[list[str]]:
    """Give, for each "go", what the twin's rules would have done; the C program's ``--simulate`` is the same."""
    made = rules.Rules(1000, 5000, 5, startable=False, supervised=False)
    done: list[list[str]] = []
    for line in lines:
        word, *rest = line.split()
        if word == "config":
            tick, most, restarts, startable, supervised = map(int, rest)
            made = rules.Rules(tick, most, restarts, startable=bool(startable), supervised=bool(supervised))
        elif word == "look":
            now, due, state, age, stopped, alive = rest
            made.begin(int(now), int(due), state, int(age), stopped=stopped == "1", emergency_alive=alive == "1")
        elif word == "drain":
            key, passes, kind, flag = rest
            named = {"agent": rules.DRAIN, "embedded": rules.EMBEDDED, "missing": rules.MISSING}[kind]
            made.subject(named, int(key), int(passes), 0, stopped=flag == "1", label=rules.Label(1, "test"))
        elif word == "loop":
            key, age, late, stopped = rest
            label = rules.Label(1, "test")
            made.subject(rules.LOOP, int(key), int(age), int(late), stopped=stopped == "1", label=label)
        else:
            done.append([f"{one.what} {one.kind} {one.key} {int(one.stopped)}" for one in made.finish()])
    return done


def by_program(lines: list[str]) -> list[list[str]]:
    """Give the same of the C program."""
    text = "\n".join(lines) + "\n"
    ran = subprocess.run(
        [*native_program(), "--simulate"], input=text, capture_output=True, text=True, check=True, timeout=30
    )
    done: list[list[str]] = [[]]
    for line in ran.stdout.splitlines():
        if line == ".":
            done.append([])
        else:
            done[-1].append(line)
    return done[:-1]
