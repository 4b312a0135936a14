"""What monitoring costs a process, measured in that process.

The price of each form of recording is calibrated right here, after the work and with the drain still running:
a loop that records, less the same loop without, the middle of several rounds.  Price times number of events is the
hot path's part; the drain's thread tells its own CPU time; memory is what ``configure`` took plus what of the
segment is resident.

A message's price is that of all that the instrumentor of websockets does to it, metrics included.

A calibration runs with warm caches, so it is the least that an event costs.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass

import otel_trading as ot
from otel_trading import semconv
from otel_trading._backend import core
from otel_trading.drain import summary

CALIBRATION = "demo.calibration"
"""Name of the probe and the instruments that calibrate; they start after the report's figures were taken."""

_ROUNDS = 11
_EVENTS = 200
_INSTRUMENTS = {"counter": "counter", "gauge": "gauge", "histogram": "histogram"}
_IN_MESSAGES = {semconv.WEBSOCKET_QUEUE_LAG, semconv.WEBSOCKET_BACKLOG, semconv.MESSAGE_AGE, "gc.pause"}
_MESSAGE = (
    '{"time":1700000000,"time_ms":1700000000123,"channel":"spot.order_book_update","event":"update","result":'
    '{"t":1700000000123,"s":"BTC_USDT","b":[["64000.1","0.5"]],"a":[["64000.2","0.7"]]}}'
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one span of ``probe`` is recorded with: forms, by their names in :func:`prices`.

    ``instruments`` are the counters, gauges and histograms that go with it (for the price of an operation; in the
    sum over all operations their own counts of updates are taken).  ``path`` says how many such spans are on an
    order's way, from the update of the market to the fill.
    """

    probe: str
    forms: tuple[str, ...]
    instruments: tuple[str, ...] = ()
    path: int = 0


def _forms(sent: list[ot.Order]) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Each form of recording, and what the program would do without it; orders go into ``sent``."""
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
        **_order_forms(sent),
    }


def _order_forms(sent: list[ot.Order]) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    ids = (f"{CALIBRATION}-{number}" for number in itertools.count())

    def send() -> ot.Order:
        order = ot.order(next(ids), symbol="BTC_USDT", side="buy", qty=1.5, price=64_000.0)
        sent.append(order)
        return order

    def filled() -> None:
        send().fill(64_000.0, 1.5)

    return {"order": (send, lambda: next(ids)), "order event": (filled, send)}


def _message_forms() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    from otel_trading.instrument.streams import Options, Stream, release, with_context

    stream = Stream(Options(venues={"127.0.0.1:1": "paper"}, propagate=True), "127.0.0.1", 1)
    data = _MESSAGE.encode()

    def receive() -> None:
        stream.arrived_ns = time.perf_counter_ns()
        arrival = stream.arrive(data, True, True)
        release()
        stream.hand_over(arrival, _MESSAGE, 0)

    def send() -> None:
        span = stream.sending(_MESSAGE)
        with_context(span, _MESSAGE)
        span.finish()

    return {"receive": (receive, time.perf_counter_ns), "send": (send, lambda: None)}


def _loop(call: Callable[[], object]) -> int:
    started = time.perf_counter_ns()
    for _ in range(_EVENTS):
        call()
    return time.perf_counter_ns() - started


def prices(*, messages: bool = False) -> tuple[dict[str, float], int]:
    """Measure what one use of each form costs here and now, in nanoseconds; some ten milliseconds of work.

    ``messages``: those of websockets too.  Gives the trace's id as well in which that was.
    """
    sent: list[ot.Order] = []
    with ot.probe(CALIBRATION + ".parent", tier=ot.P3) as parent:  # spans on an order's way have one; inject needs one
        found = {form: _price_of(*loops) for form, loops in _forms(sent).items()}
        for order in sent:  # an open one would keep the segment's file
            order.cancel()
    if messages:  # each begins a trace, and is current then: in a context of its own
        found.update((form, Context().run(_price_of, *loops)) for form, loops in _message_forms().items())
    return found, parent.trace_id


def _price_of(with_it: Callable[[], object], without: Callable[[], object]) -> float:
    differences = [_loop(with_it) - _loop(without) for _ in range(_ROUNDS)]
    return max(0.0, statistics.median(differences) / _EVENTS)


def report(recipes: tuple[Recipe, ...]) -> dict[str, object]:
    """Give the snapshot document, the accounts, the prices, and what follows from them."""
    ot.flush(1.0)
    core.drain()
    accounts = core.accounts()
    snapshot = core.snapshot()
    document = summary.document(snapshot, accounts)
    paid, trace_id = prices(messages=any({"receive", "send"} & {*recipe.forms} for recipe in recipes))
    counts = {str(stage["name"]): int(stage["count"]) for stage in document["stages"]}
    by_recipe = sum(counts.get(recipe.probe, 0) * _price(recipe, paid) for recipe in recipes)
    by_instrument = sum(
        paid[_INSTRUMENTS[instrument["kind"]]] * instrument["updates"]
        for instrument in document["instruments"]
        if instrument["kind"] in _INSTRUMENTS and instrument["name"] not in _IN_MESSAGES
    )
    return {
        "summary": document,
        "prices_ns": paid,
        "calibration_trace_id": f"{trace_id:x}",
        "cost": {
            "hot_path_ns": by_recipe + by_instrument,
            "drain_ns": int(document["drain"]["cpu_ns"]),
            "segment_resident_bytes": int(document["segment"]["resident_bytes"]),
            "operations_ns": {
                recipe.probe: sum(paid[form] for form in recipe.forms + recipe.instruments) for recipe in recipes
            },
            "order_path": [recipe.probe for recipe in recipes for _ in range(recipe.path)],
        },
    }


def _price(recipe: Recipe, paid: Mapping[str, float]) -> float:
    return sum(paid[form] for form in recipe.forms)
