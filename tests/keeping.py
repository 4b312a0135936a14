"""For the tests of the keep rules: a recorder that selects, and the file that its process shares with others."""

from __future__ import annotations

import mmap
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.budget.policy import Policy
from otel_trading.budget.readings import Readings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Recorder

    from otel_trading._native import Span, SpanState
    from otel_trading.budget.readings import Reading

ALL = 1 << at.SAMPLE_BITS  # a threshold that no trace passes
HALF = ALL // 2
INFINITY = float("inf")
LONG = 3600.0  # seconds that no test waits
TRIGGERS = ("error", "reject", "sla", "risk", "interrupted", "pinned", "slow")
TAIL = (0, 0, 0, 0)


class Shared:
    """The page that all processes of a directory share, word by word."""

    def __init__(self, path: Path) -> None:
        """Map the file."""
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.words = memoryview(self._map).cast("Q")

    def close(self) -> None:
        """Let it go."""
        self.words.release()
        self._map.close()

    def _signed(self, word: int) -> int:
        return word - (1 << 64) if word >> 63 else word

    @property
    def tokens(self) -> int:
        """Bytes that may be kept at once."""
        return self._signed(self.words[at.OFF_SHARED_TOKENS // 8])

    @tokens.setter
    def tokens(self, bytes_: int) -> None:
        self.words[at.OFF_SHARED_FILLED_NS // 8] = time.monotonic_ns()  # so that it is not filled up as a new one
        self.words[at.OFF_SHARED_TOKENS // 8] = bytes_ % (1 << 64)

    @property
    def thresholds(self) -> tuple[int, ...]:
        """The planned thresholds, 56 bits."""
        first = at.OFF_SHARED_THRESHOLD // 8
        return tuple(self.words[first : first + at.TIERS])

    @thresholds.setter
    def thresholds(self, numbers: tuple[int, ...]) -> None:
        for tier, number in enumerate(numbers):
            self.words[at.OFF_SHARED_THRESHOLD // 8 + tier] = number

    @property
    def decided(self) -> tuple[int, ...]:
        """Bytes that were decided so far: plain ones a tier, then those of triggers."""
        first = at.OFF_SHARED_CANDIDATES // 8
        return (*self.words[first : first + at.TIERS], self.words[at.OFF_SHARED_TRIGGERED // 8])

    def verdicts(self) -> dict[int, tuple[int, int, int]]:
        """Give {trace id: (verdict, threshold, trigger set)} of all entries."""
        found = {}
        for first in range(at.PAGE // 8, len(self.words), at.SIZE_VERDICT // 8):
            low, high, word, _ = self.words[first : first + 4]
            if low:
                found[high << 64 | low] = (word & 3, word >> 8 & 0xFFFF, word >> 24 & 0xFF)
        return found


class Keeping:
    """A recorder whose drain selects traces; passes are made when a test says so."""

    def __init__(self, recorder: Recorder, shared: Path) -> None:
        """Select by the file ``shared``, with no limits, and nothing that is planned."""
        self.recorder = recorder
        self.shared_path = shared
        self.share()
        self.shared = Shared(shared)
        self.policy = Policy(recorder.path)
        self.policy.write({"hold": LONG, "burst": 60.0, "limit": [INFINITY] * at.TRIGGERS})
        self.network(INFINITY)
        self.policy.active = True
        core.keep(100_000)

    def share(self) -> None:
        """Have the file in common."""
        fd = os.open(self.shared_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            core.share(fd)
        finally:
            os.close(fd)

    def network(self, normal: float, stressed: float = 0.0) -> None:
        """Set the network budget, bytes a second; none at all in EMERGENCY."""
        numbers = list(self.policy.numbers("budget"))
        first = at.BUDGET_NETWORK * at.MODES
        numbers[first : first + at.MODES] = [normal, normal, stressed, 0.0]
        self.policy.write({"budget": numbers})

    def thresholds(self, *numbers: int) -> None:
        """Set the thresholds of P0 to P3; one number: of all."""
        self.shared.thresholds = numbers * at.TIERS if len(numbers) == 1 else numbers

    def limits(self, **limits: float) -> None:
        """Set how many traces a second triggers may keep."""
        numbers = list(self.policy.numbers("limit"))
        for name, limit in limits.items():
            numbers[getattr(at, f"TRIGGER_{name.upper()}")] = limit
        self.policy.write({"limit": numbers})

    def taken(self) -> list[SpanState]:
        """Take all that is kept, as exported."""
        states: list[SpanState] = []
        while len(batch := core.take(1000)):
            states += batch.states()
            batch.settle()
        return states

    def drained(self, decide: bool = False) -> list[SpanState]:  # noqa: FBT001, FBT002  as core.drain
        """Make a pass, and take what is kept."""
        core.drain(decide)
        return self.taken()

    def decided(self) -> list[SpanState]:
        """Have all decided, and take what is kept."""
        return self.drained(True)

    def readings(self, now: float | None = None) -> Reading:
        """Have the governor publish its readings, with a quiet machine; give them."""
        core.govern(quiet(now))
        with Readings(self.recorder.path) as readings:
            return readings.read()

    def account(self, tier: int = 1) -> dict[str, int]:
        """Give a tier's account, balanced."""
        return self.recorder.accounts()[tier]

    def close(self) -> None:
        """Let the files go."""
        self.shared.close()
        self.policy.close()


def quiet(now: float | None = None, **changes: float) -> dict[str, float]:
    """Give what the governor sees on a machine on which nothing happens."""
    names = ("cpu_load", "memory_load", "cpu_stall", "memory_stall", "volatility", "volume")
    usage = ("cpu", "memory", "latency", "network", "disk")
    readings = dict.fromkeys((*names, *usage), 0.0)
    return {**readings, "now": time.monotonic() if now is None else now, **changes}


@pytest.fixture
def make_keeping(make_recorder: Callable[..., Recorder], tmp_path: Path) -> Iterator[Callable[..., Keeping]]:
    """Give a function that makes a recorder which selects, once a test; changes as those of ``make_recorder``."""
    made: list[Keeping] = []

    def make(**changes: Any) -> Keeping:
        made.append(Keeping(make_recorder(**changes), tmp_path / "traces.shared"))
        return made[-1]

    yield make
    for keeping in made:
        keeping.close()


@pytest.fixture
def keeping(make_keeping: Callable[..., Keeping]) -> Keeping:
    """Give a recorder with small rings that selects."""
    return make_keeping()


def record(
    name: str = "keep.plain",
    parent: Span | None = None,
    *,
    tier: int = 1,
    seconds: float = 0.001,
    error: bool = False,
    sla: str | None = None,
    attributes: dict[str, Any] | None = None,
) -> Span:
    """Record a whole span, a root unless it has a parent; but for P1 the probe's name ends in the tier's."""
    end = time.time_ns()
    probe = ot.probe(name if tier == 1 else f"{name}.p{tier}", tier=tier, sla=sla)
    return probe.record(parent, end - round(seconds * 1e9), end, error, attributes)


def trace_of(random: int) -> Span:
    """Give a parent elsewhere, in a trace with these 56 random bits."""
    return core.remote(0xABCDEF << 104 | 1 << 56 | random, 7, True, None)


def spans_of(states: list[SpanState]) -> dict[int, list[int]]:
    """Give {trace id: its spans' ids} in order."""
    spans: dict[int, list[int]] = {}
    for state in states:
        spans.setdefault(state[2], []).append(state[3])
    return spans


def trace_ids(states: list[SpanState]) -> set[int]:
    """Give the traces that spans are of."""
    return {state[2] for state in states}
