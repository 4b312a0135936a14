"""The program under stress, as it is seen from outside: its mode and decisions by its segment, its load by commands."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

from otel_trading.bench.children import BenchmarkError
from otel_trading.budget.modes import name_of, number_of
from otel_trading.budget.policy import Policy
from otel_trading.budget.readings import Readings
from otel_trading.errors import SegmentError
from otel_trading.impact import groups
from otel_trading.impact.attendants import PATIENCE, Attendant

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

_LOOK = 0.005
"""Seconds between two looks while something is waited for."""


class Subject:
    """A bot that trades and is instrumented; usable as ``with``, and gone at its end.

    ``group``: the control group that it is put into before it begins.  Raises BenchmarkError where it does not start,
    and SegmentError where its segment can not be read.
    """

    def __init__(
        self, options: Mapping[str, Any], extra: Mapping[str, str], seconds: float, group: Path | None = None
    ) -> None:
        """Start it, and wait until it records."""
        with contextlib.ExitStack() as stack:
            self._bot = stack.enter_context(Attendant("bot", seconds, json.dumps(dict(options)), extra=extra))
            self._bot.hear("ready")
            if group is not None:
                groups.join(group, self._bot.pid)
            self._bot.tell("go")
            segment = self._bot.hear("segment")["segment"]
            if segment is None:
                message = "the program under stress records nothing: otel-trading doctor tells why"
                raise BenchmarkError(message)
            self._readings = stack.enter_context(Readings(segment))
            self._policy = stack.enter_context(Policy(segment))
            self._await_governor()
            self._stack = stack.pop_all()
        self.pid = self._bot.pid

    def _await_governor(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._readings.read().ticks == 0:
            if time.monotonic() > deadline or not self._policy.active:
                message = "the program under stress is not governed: its budget is switched off, or its governor fails"
                raise BenchmarkError(message)
            time.sleep(_LOOK)

    def __enter__(self) -> Subject:  # noqa: PYI034  Self is younger than Python 3.10
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def mode(self) -> str:
        """The mode in force."""
        return name_of(self._readings.read().mode)

    @property
    def decisions(self) -> int:
        """How many decisions there have been."""
        return self._readings.read().decisions

    def changes(self, since: int) -> list[tuple[int, str]]:
        """Changes of mode from decision number ``since`` on: Unix time in ns, and the mode from then on."""
        return [
            (decision.unix_ns, decision.mode_name)
            for decision in self._readings.decisions(since)
            if decision.kind_name == "mode"
        ]

    def readings(self) -> dict[str, Any]:
        """What its governor sees and measures now."""
        found = self._readings.read()
        return {**found._asdict(), "usage": found.usage._asdict(), "mode": name_of(found.mode)}

    def limits(self, mode: str) -> dict[str, float]:
        """What its monitoring may use in a mode; by ``modes.BUDGETS``."""
        return self._policy.limits(number_of(mode))

    def wait_for(self, mode: str, seconds: float) -> bool:
        """Wait until it is in that mode; False where that takes longer than ``seconds``."""
        deadline = time.monotonic() + seconds
        while self.mode != mode:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK)
        return True

    def set(self, load: Mapping[str, float]) -> None:
        """Change its load: ``orders`` and ``rate`` a second, ``volatility`` a year, ``volume`` as a factor."""
        self._bot.tell({"set": dict(load)})

    def report(self) -> dict[str, Any]:
        """What it says of the time since its last report: orders, their latency in ns, CPU, accounts."""
        self._bot.tell({"report": True})
        found: dict[str, Any] = self._bot.hear("report")["report"]
        return found

    def end(self) -> None:
        """Have it end in an orderly way."""
        self._bot.tell({"end": True})
        with contextlib.suppress(SegmentError):
            self._bot.hear("ended", 2 * PATIENCE)
