"""What trading is about: breaches of risk limits, and what was earned."""

from __future__ import annotations

import os
from _thread import allocate_lock
from math import isfinite, nan
from time import time_ns

from otel_trading import lifecycle, probes
from otel_trading._backend import core
from otel_trading._layout import VITAL_RISK
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, SupportsFloat, TypeAlias

    from otel_trading._backend import Counter, Gauge

    Number: TypeAlias = SupportsFloat | str

_MOST_KINDS = 64
_OTHER = "other"
_RISK_KIND = "trading.risk.kind"


class _Business:
    """What there is once a process; the lock is new in a forked child, whose holder may not exist."""

    def __init__(self) -> None:
        self.lock = allocate_lock()
        self.realized = 0.0
        self.breaches: dict[str, Counter] = {}
        self.pnl: tuple[Gauge, Counter, Counter] | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.lock = allocate_lock()
        self.realized = 0.0  # the parent goes on telling of what was earned before

    def breach_counter(self, kind: str) -> Counter:
        """Give the counter of one kind; kinds without end share one."""
        found = self.breaches.get(kind)
        if found is None:
            if len(self.breaches) >= _MOST_KINDS and kind != _OTHER:
                report(
                    "business:kinds", f"risk_breach: more than {_MOST_KINDS} kinds; further ones count as {_OTHER!r}"
                )
                return self.breach_counter(_OTHER)
            found = self.breaches[kind] = probes.counter(
                "trading.risk.breaches", probes.P0, "{breach}", "Breaches of risk limits.", {_RISK_KIND: kind}
            )
        return found

    def pnl_instruments(self) -> tuple[Gauge, Counter, Counter]:
        """Give the instruments of what was earned."""
        if self.pnl is None:
            self.pnl = (
                probes.gauge("trading.pnl.realized", probes.P1, "", "Realized profit and loss of this process so far."),
                probes.counter("trading.pnl.gained", probes.P1, "", "Sum of all realized profits."),
                probes.counter("trading.pnl.lost", probes.P1, "", "Sum of all realized losses, as a positive number."),
            )
        return self.pnl


_business = _Business()


def risk_breach(kind: str, /, **attributes: Any) -> None:
    """Record that a risk limit was breached, say ``risk_breach("position_limit", symbol="BTCUSDT", size=12.5)``.

    It is a span ``risk.breach`` of tier P0 and of no length, with status ERROR and the attributes, in the current
    trace, which is kept for it; it counts in ``trading.risk.breaches``, by kind (at most 64 of them, then "other"); and
    it is a critical event of the process, see ``critical``.
    Takes about 2 µs.  Never raises for a wrong value: that is a fault.
    """
    if not isinstance(kind, str) or not kind:
        report("business:kind", f"risk_breach: the kind is {type(kind).__name__} {kind!r:.100}, not text")
        kind = _OTHER
    try:
        _business.breach_counter(kind).add(1)
        core.critical(kind if kind in _business.breaches else _OTHER, "", VITAL_RISK, 0, nan)
        now = time_ns()
        probes.probe("risk.breach", probes.P0).record(None, now, now, True, {_RISK_KIND: kind, **attributes})
    except Exception as error:  # noqa: BLE001  a foreign type among the attributes may raise anything
        report("business:breach", f"risk_breach {kind!r:.100}: {error!r:.200}")


def pnl(delta: Number) -> None:
    """Add what was just earned, or lost where negative, in the account's currency.

    The gauge ``trading.pnl.realized`` is the sum so far in this process, the counters ``trading.pnl.gained`` and
    ``trading.pnl.lost`` are the sums of both directions, each 0 or more; all of tier P1.  Takes about 1 µs.
    Never raises for a wrong value: that is a fault.
    """
    try:
        amount = float("nan") if isinstance(delta, bool) else float(delta)
    except Exception:  # noqa: BLE001  whatever a foreign type's __float__ raises
        amount = float("nan")
    if not isfinite(amount):
        report("business:pnl", f"pnl: a delta of type {type(delta).__name__} is not a finite number")
        return
    if lifecycle.settings() is None:
        return  # what nobody records is not earned in this process's gauge either
    gauge, gained, lost = _business.pnl or _business.pnl_instruments()
    with _business.lock:
        _business.realized += amount
        gauge.set(_business.realized)
    if amount > 0.0:
        gained.add(amount)
    elif amount < 0.0:
        lost.add(-amount)
