"""The policy page of a segment: what the governor and the keep rules of its process are allowed.

All of it can be changed while the process runs; what is written is in force at the governor's next tick.
"""

from __future__ import annotations

import struct
from math import inf

from otel_trading import _layout as at
from otel_trading.budget.modes import BUDGETS, COSTS, MODES, TRIGGERS
from otel_trading.errors import ControlError
from otel_trading.segment.pages import Page

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from typing import Any

_WORD = struct.Struct("<Q")
_NUMBER = struct.Struct("<d")

FIELDS = {
    "budget": (at.OFF_POLICY_BUDGET, at.BUDGETS * at.MODES),
    "enter": (at.OFF_POLICY_ENTER, 4),
    "margin": (at.OFF_POLICY_MARGIN, 1),
    "dwell": (at.OFF_POLICY_DWELL, 1),
    "volatility": (at.OFF_POLICY_VOLATILITY, 1),
    "volume": (at.OFF_POLICY_VOLUME, 1),
    "period": (at.OFF_POLICY_PERIOD, 1),
    "window": (at.OFF_POLICY_WINDOW, 1),
    "recover": (at.OFF_POLICY_RECOVER, 1),
    "violations": (at.OFF_POLICY_VIOLATIONS, 1),
    "hold": (at.OFF_POLICY_HOLD, 1),
    "burst": (at.OFF_POLICY_BURST, 1),
    "limit": (at.OFF_POLICY_LIMIT, at.TRIGGERS),
    "cost": (at.OFF_POLICY_COST, at.COSTS),
    "base_memory": (at.OFF_POLICY_BASE_MEMORY, 1),
    "exporter_memory": (at.OFF_POLICY_EXPORTER_MEMORY, 1),
}
"""Offset and count of each field's numbers; ``budget`` has a row of OT_MODES for each of OT_BUDGETS."""


class Policy(Page):
    """A segment's policy, of this process or of any other; usable as ``with``.

    Seconds, bytes, bytes a second, operations a second, and shares of one core or of a whole.  Infinity is no limit.

    Raises SegmentNotFoundError, SegmentForeignError, SegmentVersionError, SegmentTruncatedError or SegmentDamagedError.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Map the policy page, to be read and written."""
        super().__init__(path, "policy page", at.OFF_HEADER_POLICY_OFFSET, at.SIZE_POLICY)

    def __enter__(self) -> Policy:  # noqa: PYI034  Self is younger than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def active(self) -> bool:
        """Whether anything is governed and selected; off, everything is recorded and exported."""
        return self.words[at.OFF_POLICY_ACTIVE // 8] == 1

    @active.setter
    def active(self, on: bool) -> None:
        self.words[at.OFF_POLICY_ACTIVE // 8] = int(on)

    def numbers(self, field: str) -> tuple[float, ...]:
        """Give all numbers of a field.  Raises KeyError for one that there is not."""
        offset, count = FIELDS[field]
        first = offset // 8
        return tuple(_NUMBER.unpack(_WORD.pack(word))[0] for word in self.words[first : first + count])

    def number(self, field: str) -> float:
        """Give a field's number, the first where it has several."""
        return self.numbers(field)[0]

    def limits(self, mode: int) -> dict[str, float]:
        """Give {name in ``BUDGETS``: what monitoring may use of it in that mode}: bytes, seconds, shares of a core."""
        numbers = self.numbers("budget")
        return {name: numbers[row * at.MODES + mode] for row, name in enumerate(BUDGETS)}

    def trigger_limits(self) -> dict[str, float]:
        """Give {trigger: traces a second that it may keep}."""
        return dict(zip(TRIGGERS, self.numbers("limit"), strict=True))

    def costs(self) -> dict[str, float]:
        """Give {kind of record: seconds that one costs its thread}, as calibrated in that process."""
        return dict(zip(COSTS, self.numbers("cost"), strict=True))

    def write(self, values: Mapping[str, float | Sequence[float]]) -> None:
        """Write fields; those that are not named stay.

        Raises ControlError, and writes nothing, for what is no field, not as many numbers as the field has, a number
        that is negative or not one.
        """
        checked = [(_checked(field, value), FIELDS[field][0] // 8) for field, value in values.items()]
        for numbers, first in checked:
            for place, number in enumerate(numbers, first):
                self.words[place] = _WORD.unpack(_NUMBER.pack(number))[0]

    def set_limit(self, budget: str, mode: int, value: float) -> None:
        """Set one limit of one mode; ``budget`` is one of ``BUDGETS``, ``value`` in its unit.  Raises ControlError."""
        if budget not in BUDGETS or not 0 <= mode < len(MODES):
            raise ControlError(f"there is no limit of {budget!r} in mode {mode!r}")
        numbers = list(self.numbers("budget"))
        numbers[BUDGETS.index(budget) * at.MODES + mode] = value
        self.write({"budget": numbers})


def _checked(field: str, value: float | Sequence[float]) -> tuple[float, ...]:
    if field not in FIELDS:
        raise ControlError(f"the policy has no {field!r}: there are {', '.join(FIELDS)}")
    numbers = (value,) if isinstance(value, (int, float)) else tuple(value)
    if len(numbers) != FIELDS[field][1]:
        raise ControlError(f"policy {field}: {len(numbers)} numbers were given, and it has {FIELDS[field][1]}")
    if not all(number >= 0.0 for number in numbers):  # refuses NaN too
        raise ControlError(f"policy {field}: {value!r:.100} is not a number of 0 or more")
    return numbers


# ---- of a configuration ----

_FACTORS = {"cpu_percent": 1e-2, "memory_mb": 1e6, "latency_us": 1e-6, "network_kbps": 125.0, "disk_iops": 1.0}
"""By ``BUDGETS``: the configuration's name of each, and one of its units in ours."""

_ENGINE = ("margin", "dwell", "volatility", "volume", "period")
_BUDGET = ("window", "recover", "violations")
_KEEP = ("hold", "burst")


def values_of(settings: Mapping[str, Any]) -> dict[str, float | Sequence[float]]:
    """Give what ``Policy.write`` takes, out of ``Settings.values``; costs and memory are not in there."""
    modes = [mode.lower() for mode in MODES]
    loads = ("stressed_cpu", "emergency_cpu", "stressed_memory", "emergency_memory")
    return {
        "budget": [settings[f"budget.{mode}.{name}"] * factor for name, factor in _FACTORS.items() for mode in modes],
        "enter": [settings[f"engine.{load}"] for load in loads],
        "limit": [*(settings[f"keep.limits.{trigger}"] for trigger in TRIGGERS[:-1]), inf],
        **{name: settings[f"engine.{name}"] for name in _ENGINE},
        **{name: settings[f"budget.{name}"] for name in _BUDGET},
        **{name: settings[f"keep.{name}"] for name in _KEEP},
    }
