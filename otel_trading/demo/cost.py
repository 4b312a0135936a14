"""What monitoring costs a process, measured in that process.

The price of each form of recording is calibrated right here, after the work and with the drain still running:
a loop that records, less the same loop without, the middle of several rounds.  Price times number of events is the
hot path's part; the drain's thread tells its own CPU time; memory is what ``configure`` took plus what of the
segment is resident.

A calibration runs with warm caches, so it is the least that an event costs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import otel_trading as ot
from otel_trading._backend import core
from otel_trading.drain import summary

CALIBRATION = "demo.calibration"
"""Name of the probe and the instruments that calibrate; they start after the report's figures were taken."""

_ROUNDS = 11
_EVENTS = 200
_INSTRUMENTS = {"counter": "counter", "gauge": "gauge", "histogram": "histogram"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one span of ``probe`` is recorded with: forms, by their names in :func:`prices`.

    ``instruments`` are the counters, gauges and histograms that go with it (for the price of an operation; in the
    sum over all operations their own counts of updates are taken).  ``path`` says that the span is on an order's
    way, from the candle to the fill.
    """

    probe: str
    forms: tuple[str, ...]
    instruments: tuple[str, ...] = ()
    path: bool = False


def _forms() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Each form of recording, and what the program would do without it."""
    leaf = ot.probe(CALIBRATION, tier=ot.P3, leaf=True)
    counter = ot.counter(CALIBRATION, tier=ot.P3)
    gauge = ot.gauge(CALIBRATION, tier=ot.P3)
    histogram = ot.histogram(CALIBRATION, tier=ot.P3)
    carrier: dict[str, str] = {}

    def nothing() -> None:
        pass

    @leaf
    def decorated() -> None:
        pass

    @ot.probe(CALIBRATION + ".span", tier=ot.P3)
    def current() -> None:
        pass

    with_attributes = ot.probe(CALIBRATION + ".attributes", tier=ot.P3)

    def attributes() -> None:
        with with_attributes.span(symbol="BTC_USDT", order_id="t-1") as span:
            span.set_attribute("value", 1.5)

    return {
        "leaf": (decorated, nothing),
        "span": (current, nothing),
        "attributes": (attributes, nothing),
        "counter": (lambda: counter.add(1), nothing),
        "gauge": (lambda: gauge.set(1), nothing),
        "histogram": (lambda: histogram.record(1.5), nothing),
        "inject": (lambda: ot.inject(carrier), nothing),
        "extract": (lambda: ot.extract(carrier), nothing),
    }


def _loop(call: Callable[[], object]) -> int:
    started = time.perf_counter_ns()
    for _ in range(_EVENTS):
        call()
    return time.perf_counter_ns() - started


def prices() -> dict[str, float]:
    """Measure what one use of each form costs here and now, in nanoseconds; some ten milliseconds of work."""
    found: dict[str, float] = {}
    with ot.probe(CALIBRATION + ".parent", tier=ot.P3):  # spans on an order's way have a parent; inject needs one
        for form, (with_it, without) in _forms().items():
            differences = [_loop(with_it) - _loop(without) for _ in range(_ROUNDS)]
            found[form] = max(0.0, statistics.median(differences) / _EVENTS)
    return found


def report(recipes: tuple[Recipe, ...]) -> dict[str, object]:
    """Give the snapshot document, the accounts, the prices, and what follows from them."""
    ot.flush(1.0)
    core.drain()
    accounts = core.accounts()
    snapshot = core.snapshot()
    document = summary.document(snapshot, accounts)
    paid = prices()
    counts = {str(stage["name"]): int(stage["count"]) for stage in document["stages"]}
    by_recipe = sum(counts.get(recipe.probe, 0) * _price(recipe, paid) for recipe in recipes)
    by_instrument = sum(
        paid[_INSTRUMENTS[instrument["kind"]]] * instrument["updates"]
        for instrument in document["instruments"]
        if instrument["kind"] in _INSTRUMENTS and instrument["name"] != "gc.pause"
    )
    return {
        "summary": document,
        "prices_ns": paid,
        "cost": {
            "hot_path_ns": by_recipe + by_instrument,
            "drain_ns": int(document["drain"]["cpu_ns"]),
            "segment_resident_bytes": int(document["segment"]["resident_bytes"]),
            "operations_ns": {
                recipe.probe: sum(paid[form] for form in recipe.forms + recipe.instruments) for recipe in recipes
            },
            "order_path": [recipe.probe for recipe in recipes if recipe.path],
        },
    }


def _price(recipe: Recipe, paid: Mapping[str, float]) -> float:
    return sum(paid[form] for form in recipe.forms)
