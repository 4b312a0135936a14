"""A governor whose readings a test gives, tick by tick."""

from __future__ import annotations

import mmap
import struct
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.budget.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from conftest import Recorder

CPU, MEMORY, LATENCY, NETWORK, DISK = range(at.BUDGETS)
NORMAL, HIGH_VOLATILITY, STRESSED, EMERGENCY = range(at.MODES)

# The limits of docs/budget.md.
LIMITS = (
    *(0.025, 0.025, 0.010, 0.003),
    *(30e6, 30e6, 15e6, 5e6),
    *(200e-6, 200e-6, 50e-6, 10e-6),
    *(32000.0, 32000.0, 8000.0, 0.0),
    *(25.0, 25.0, 5.0, 0.0),
)
QUIET = {
    "cpu_load": 0.1,
    "memory_load": 0.1,
    "volatility": 0.0,
    "volume": 1.0,
    "cpu": 0.0,
    "memory": 0.0,
    "latency": 0.0,
    "network": 0.0,
    "disk": 0.0,
}


class Decision(NamedTuple):
    """A decision, without its time."""

    kind: int
    reason: int
    tier: int
    mode: int
    figure: float
    limit: float
    before: float
    after: float


def limits(**unlimited: Sequence[int]) -> list[float]:
    """Give the limits of docs/budget.md, or infinity for each budget's modes that are named."""
    names = ("cpu", "memory", "latency", "network", "disk")
    return [
        inf if number % at.MODES in unlimited.get(names[number // at.MODES], ()) else value
        for number, value in enumerate(LIMITS)
    ]


def share(word: int) -> float:
    """Give the share of a tier's traces that a tier's word lets through; 0 where it is off."""
    return 1.0 - (word >> 8) / (1 << at.SAMPLE_BITS) if word & at.TIER_ON else 0.0


class Governed:
    """The governor of a recorder that is running in this process; no tick but those that the test makes."""

    def __init__(self, recorder: Recorder, **policy: Any) -> None:
        """Give it the policy of docs/budget.md, but for what is named."""
        self.recorder = recorder
        self.now = 1000.0
        self.told = 0
        values: dict[str, Any] = {
            "budget": LIMITS,
            "enter": (0.70, 0.85, 0.80, 0.90),
            "margin": 0.05,
            "dwell": 2.0,
            "volatility": 0.8,
            "volume": 2.0,
            "period": 3600.0,
            "window": 1.0,
            "recover": 5.0,
            "violations": 3.0,
            "hold": 5.0,
            "burst": 60.0,
            "limit": [inf] * at.TRIGGERS,
            **policy,
        }
        self.policy = Policy(recorder.path)
        self.policy.write(values)
        self.policy.active = True
        with recorder.path.open("r+b") as file:
            self.page = mmap.mmap(file.fileno(), 0)
        self._control, self._readings, self._decisions, self.instruments = (
            struct.unpack_from("<Q", self.page, offset)[0]
            for offset in (
                at.OFF_HEADER_CONTROL_OFFSET,
                at.OFF_HEADER_READINGS_OFFSET,
                at.OFF_HEADER_DECISIONS_OFFSET,
                at.OFF_HEADER_INSTRUMENTS_OFFSET,
            )
        )

    def close(self) -> None:
        """Let the segment go."""
        self.policy.close()
        self.page.close()

    # ---- ticks

    def tick(self, after: float = 0.0, /, **readings: float) -> list[Decision]:
        """Tick ``after`` seconds later, all quiet but what is named; give the decisions of the tick."""
        self.now += after
        core.govern({"now": self.now, **QUIET, **readings})
        return self.decisions()

    def ticks(self, seconds: float, every: float = 0.1, /, **readings: float) -> list[Decision]:
        """Tick for so long; give all decisions."""
        found: list[Decision] = []
        for _ in range(round(seconds / every)):
            found += self.tick(every, **readings)
        return found

    def measured(self, after: float = 0.0, /, **readings: float) -> list[Decision]:
        """Tick, and have everything measured that is not named; no pressure, so that the machine's does not show."""
        self.now += after
        core.govern({"now": self.now, "cpu_load": 0.1, "memory_load": 0.1, **readings})
        return self.decisions()

    def decisions(self) -> list[Decision]:
        """Give the decisions that have not been given yet."""
        count = int(self.number("decisions"))
        found = []
        for number in range(max(self.told, count - at.DECISIONS), count):
            place = self._decisions + number % at.DECISIONS * at.SIZE_DECISION
            seq, unix_ns, figure, limit, before, after, kind, reason, tier, mode = struct.unpack_from(
                "<QQ4dBBBB", self.page, place
            )
            assert seq == 2 * number + 2
            assert unix_ns > 0
            found.append(Decision(kind, reason, tier, mode, figure, limit, before, after))
        self.told = count
        return found

    # ---- what the pages say

    def word(self, field: str, index: int = 0) -> int:
        """Give a word of the control page."""
        offset = self._control + getattr(at, f"OFF_CONTROL_{field.upper()}") + 8 * index
        return int(struct.unpack_from("<Q", self.page, offset)[0])

    def put(self, field: str, value: int, index: int = 0) -> None:
        """Set a word of the control page."""
        struct.pack_into(
            "<Q", self.page, self._control + getattr(at, f"OFF_CONTROL_{field.upper()}") + 8 * index, value
        )

    def number(self, field: str, index: int = 0) -> int:
        """Give a reading that is a number."""
        offset = self._readings + getattr(at, f"OFF_READINGS_{field.upper()}") + 8 * index
        return int(struct.unpack_from("<Q", self.page, offset)[0])

    def reading(self, field: str, index: int = 0) -> float:
        """Give a reading."""
        offset = self._readings + getattr(at, f"OFF_READINGS_{field.upper()}") + 8 * index
        return float(struct.unpack_from("<d", self.page, offset)[0])

    @property
    def mode(self) -> int:
        """The mode in force."""
        mode, told, again = self.word("mode"), core.mode(), self.word("mode")
        assert told == mode or again != mode, (mode, told)  # a thread may govern meanwhile
        return mode

    @property
    def shares(self) -> tuple[float, ...]:
        """What is recorded of each tier."""
        assert all(share(self.word("shed", tier)) >= share(self.word("tier_word", tier)) for tier in range(at.TIERS))
        return tuple(share(self.word("tier_word", tier)) for tier in range(at.TIERS))
