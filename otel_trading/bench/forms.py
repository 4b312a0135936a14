"""The forms of recording that are measured, and what each may cost.

Costs are in floors: one floor is two bare ``time.perf_counter_ns()`` calls, what timing by hand costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import otel_trading as ot
from otel_trading.bench.measure import Form

if TYPE_CHECKING:
    from collections.abc import Sequence

TARGETS: dict[str, dict[str, float]] = {
    "native": {
        "start_stop": 0.9,
        "start_stop_root": 0.9,
        "decorator_leaf": 1.0,
        "decorator_child": 3.5,
        "with_child": 3.5,
        "with_attributes": 6.0,
    },
    "pure": {"start_stop": 12.0, "start_stop_root": 12.0},
}
"""What the forms may cost, in floors, by backend and key."""

ALLOCATE_NOTHING = ("start_stop", "start_stop_root", "decorator_leaf")
"""Forms that on the native backend may not allocate at all; no form may leave anything behind."""


def _plain(value: int) -> int:
    return value


def forms(backend: str) -> Sequence[Form]:
    """Every form, on the backend that runs in this process; ``ot.configure`` comes first."""
    plain = ot.probe("bench.span")
    leaf = ot.probe("bench.leaf", leaf=True)
    names: dict[str, Any] = {
        "p": plain,
        "bare": _plain,
        "f": plain(_plain),
        "g": leaf(_plain),
        "parent": ot.probe("bench.parent"),
        "count": ot.counter("bench.count"),
        "level": ot.gauge("bench.level"),
        "spread": ot.histogram("bench.spread"),
    }
    targets = TARGETS[backend]

    def form(key: str, label: str, statement: str, *, child: bool = False, **more: Any) -> Form:
        return Form(key, label, statement, names, around="parent" if child else "", target=targets.get(key), **more)

    def off(key: str, label: str, statement: str, **more: Any) -> Form:
        return form(key, label, statement, before=lambda: ot.enable(False), after=lambda: ot.enable(True), **more)

    return [
        form("start_stop", "start / stop, in a trace", "t = p.start(); p.stop(t)", child=True),
        form("start_stop_root", "start / stop, no trace", "t = p.start(); p.stop(t)"),
        form("decorator_leaf", "decorator, leaf=True, in a trace", "g(1)", baseline="bare(1)", child=True),
        form("decorator_leaf_root", "decorator, leaf=True, no trace", "g(1)", baseline="bare(1)"),
        form("decorator_child", "decorator, child", "f(1)", baseline="bare(1)", child=True),
        form("decorator_root", "decorator, root", "f(1)", baseline="bare(1)"),
        form("with_child", "with p, child", "with p:\n    pass", child=True),
        form("with_root", "with p, root", "with p:\n    pass"),
        form(
            "with_attributes",
            "with p.span(symbol=…, qty=…), child",
            'with p.span(symbol="BTCUSDT", qty=1.5):\n    pass',
            child=True,
        ),
        form("counter", "counter.add(1)", "count.add(1)"),
        form("gauge", "gauge.set(1.5)", "level.set(1.5)"),
        form("histogram", "histogram.record(1.5)", "spread.record(1.5)"),
        off("off_start_stop", "switched off: start / stop", "t = p.start(); p.stop(t)"),
        off("off_decorator", "switched off: decorator", "f(1)", baseline="bare(1)"),
        off("off_with", "switched off: with p", "with p:\n    pass"),
    ]
