"""The program under the paced load: market data in, now and then an order out; and the load itself.

The same four functions run bare, with our decorator, or with the OpenTelemetry SDK.  Each tick updates a candle and
three averages; a tick that is to trade goes on to the signal, the risk check and the order, four spans in one trace.
A load may have several symbols, each with a strategy of its own, and orders that the exchange would reject.
"""

from __future__ import annotations

import gc
import os
import random
import resource
import time
from array import array
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Function = Callable[..., Any]
    Wrap = Callable[[str], Callable[[Function], Function]]
    Tick = Callable[[float, float, bool], float]

STAGES = ("candle.update", "signal.evaluate", "risk.check", "order.send")
QUANTILES = (0.5, 0.9, 0.99, 0.999, 0.9999, 1.0)
LARGEST_ORDER = 1_000.0
_MOST_EXPOSURE = 1e9


class OrderRejectedError(Exception):
    """An order that is larger than ``LARGEST_ORDER``."""


def strategy(wrap: Wrap, note: Callable[[float, float], object] | None = None) -> Tick:
    """Build the tick handler, each stage wrapped under its name; ``note`` is told each price and quantity first."""
    candle = {"open": 100.0, "high": 100.0, "low": 100.0, "close": 100.0, "volume": 0.0, "turnover": 0.0, "ticks": 0}
    averages = {"fast": 100.0, "slow": 100.0, "variance": 1.0}
    book = {"buy": 0.0, "sell": 0.0, "rejected": 0.0}

    @wrap("risk.check")
    def check(quantity: float, price: float) -> bool:
        return quantity * price + abs(book["buy"] - book["sell"]) * price < _MOST_EXPOSURE

    @wrap("order.send")
    def send(side: str, quantity: float) -> None:
        if quantity > LARGEST_ORDER:
            raise OrderRejectedError(side)
        book[side] += quantity

    @wrap("signal.evaluate")
    def evaluate(price: float, quantity: float) -> None:
        side = "buy" if averages["fast"] < averages["slow"] else "sell"
        if averages["variance"] > 0.0 and check(quantity, price):
            try:
                send(side, quantity)
            except OrderRejectedError:
                book["rejected"] += 1

    @wrap("candle.update")
    def tick(price: float, quantity: float, trade: bool) -> float:  # noqa: FBT001  a column of the load
        if note is not None:
            note(price, quantity)
        if price > candle["high"]:
            candle["high"] = price
        elif price < candle["low"]:
            candle["low"] = price
        candle["close"] = price
        candle["volume"] += quantity
        candle["turnover"] += quantity * price
        candle["ticks"] += 1
        away = price - averages["slow"]
        averages["fast"] += 0.2 * (price - averages["fast"])
        averages["slow"] += 0.02 * away
        averages["variance"] += 0.02 * (away * away - averages["variance"])
        if trade:
            evaluate(price, quantity)
        return price

    return tick


def bare(_name: str) -> Callable[[Function], Function]:
    """Wrap nothing."""
    return lambda function: function


def ours(name: str) -> Callable[[Function], Function]:
    """A probe as decorator: a span that becomes current."""
    import otel_trading as ot

    return ot.probe(name)


def sdk(endpoint: str) -> tuple[Wrap, Callable[[], object]]:
    """Set the OpenTelemetry SDK up: batch processor, OTLP over http; gives the wrapper and the shutdown."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "bench"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")))
    start = provider.get_tracer("bench").start_as_current_span

    def wrap(name: str) -> Callable[[Function], Function]:
        def decorate(function: Function) -> Function:
            def traced(*arguments: Any) -> Any:
                with start(name):
                    return function(*arguments)

            return traced

        return decorate

    return wrap, provider.shutdown


class Load:
    """Ticks and their intended times, made before anything is sent: ``rate`` a second, evenly spaced.

    Which ticks trade, ``orders`` a second of them on average, which of ``symbols`` they are of, and the prices come
    from a seed: every variant of a round gets the same ones.  ``rejected`` is the share of orders that are too large.
    """

    def __init__(
        self, seconds: float, rate: int, orders: int, seed: int, *, symbols: int = 1, rejected: float = 0.0
    ) -> None:
        draw = random.Random(seed)  # noqa: S311  a load, not a secret
        self.count = max(1, round(seconds * rate))
        self.step_ns = 1_000_000_000 // rate
        self.trades = [draw.random() < orders / rate for _ in range(self.count)]
        self.prices = [100.0 + draw.gauss(0.0, 1.0) for _ in range(self.count)]
        self.quantities = [draw.uniform(0.1, 2.0) for _ in range(self.count)]
        self.symbols = [draw.randrange(symbols) for _ in range(self.count)] if symbols > 1 else [0] * self.count
        if rejected:
            for place in [at for at, trade in enumerate(self.trades) if trade and draw.random() < rejected]:
                self.quantities[place] = 2 * LARGEST_ORDER

    def handlers(self, ticks: Sequence[Tick]) -> list[Tick]:
        """Each tick's handler: that of its symbol."""
        return [ticks[symbol] for symbol in self.symbols]

    @property
    def spans(self) -> int:
        """Spans that the ticks make: four for an order tick, one for any other."""
        return self.count + (len(STAGES) - 1) * sum(self.trades)


def pace(ticks: Sequence[Tick], load: Load) -> array[int]:
    """Send each tick at its intended time, waiting for it busily; nanoseconds from there to the end of its handling.

    ``ticks`` are the handlers, one a symbol.  A tick that is held up delays those behind it, and they are counted
    from when they should have been sent.
    """
    now = time.perf_counter_ns
    late = array("q", bytes(8 * load.count))
    prices, quantities, trades, handle = load.prices, load.quantities, load.trades, load.handlers(ticks)
    first = now() + 1_000_000
    due = array("q", (first + i * load.step_ns for i in range(load.count)))
    shift = now() + 1_000_000 - first  # making the table took a while
    for i in range(load.count):
        intended = due[i] + shift
        while now() < intended:
            pass
        handle[i](prices[i], quantities[i], trades[i])
        late[i] = now() - intended
    return late


def unpaced(tick: Tick, load: Load) -> float:
    """Nanoseconds a tick, one after the other."""
    begin = time.perf_counter_ns()
    for price, quantity, trade in zip(load.prices, load.quantities, load.trades, strict=True):
        tick(price, quantity, trade)
    return (time.perf_counter_ns() - begin) / load.count


def summarise(late: Sequence[int]) -> dict[str, float]:
    """Quantiles of latencies, in nanoseconds, by name ("p50" … "p99.99", "max")."""
    from otel_trading.bench.intervals import quantile

    ordered = sorted(late)
    return {
        "max" if share == 1.0 else f"p{round(share * 100, 2):g}": float(quantile(ordered, share)) for share in QUANTILES
    }


def measure_paced(
    *,
    variant: str,
    seconds: float,
    rate: int,
    orders: int,
    seed: int,
    cpu: int | None,
    endpoint: str,
) -> dict[str, Any]:
    """Run one variant under the load in this process; latencies in nanoseconds.

    Where ``cpu`` is given, the trading thread alone is pinned to it; threads that the variant starts (our drain, the
    SDK's exporter) are kept to the other processors.
    """
    import otel_trading as ot

    everywhere = os.sched_getaffinity(0) if cpu is not None else set()
    if cpu is not None and everywhere != {cpu}:
        os.sched_setaffinity(0, everywhere - {cpu})
    stop: Callable[[], object] = ot.shutdown
    if variant == "bare":
        wrap: Wrap = bare
    elif variant == "sdk":
        wrap, stop = sdk(endpoint)
    else:
        exporter = "otlp" if variant.endswith("-otlp") else "none"
        config = {"export.traces": exporter, "export.metrics": "none", "budget.enabled": False}  # every span counts
        ot.configure(service="bench", config=config)
        wrap = ours
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})

    tick = strategy(wrap)
    pace([tick], Load(min(0.5, seconds), rate, orders, seed + 1))  # first calls, first exports
    load = Load(seconds, rate, orders, seed)
    before = ot.accounts() if wrap is ours else {}
    gc.collect()
    gc.freeze()
    collections, switches = _collections(), _involuntary()
    late = pace([tick], load)
    result: dict[str, Any] = {
        "variant": variant,
        "ticks": load.count,
        "spans": load.spans,
        "latency_ns": summarise(late),
        "collections": _collections() - collections,
        "involuntary_switches": _involuntary() - switches,
    }
    if wrap is ours:
        after = ot.accounts()
        keys = ("recorded", "exported", "sampled_out", "overwritten", "refused", "pending")
        result["backend"] = ot.backend
        result["accounts"] = {key: sum(after[tier][key] - before[tier][key] for tier in after) for key in keys}
    result["unpaced_ns_per_tick"] = unpaced(tick, Load(min(seconds, 2.0), rate, orders, seed + 2))
    stop()
    return result


def _collections() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())


def _involuntary() -> int:
    """Times that the kernel took the processor away from this thread."""
    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_nivcsw
