"""The public API as a type checker sees it: ``mypy --strict`` must accept this file, and nothing runs it."""

from __future__ import annotations

import datetime
import os
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path

from typing_extensions import assert_type

import otel_trading as ot

# ---- the recorder's life

ot.configure()
ot.configure("bot", Path("/tmp"), {"ring": {"slots": 1024}})  # noqa: S108
ot.configure(service="bot", directory=os.fspath("here"), config={"ring.slots": 1024})
assert_type(ot.flush(), bool)
assert_type(ot.flush(timeout=1.0), bool)
ot.enable(False)
ot.shutdown()
ot.shutdown(0.5)
assert_type(ot.backend, str)
assert_type(ot.stats()["order.execute"]["p99_ns"], int)
assert_type(ot.accounts()[ot.P0]["recorded"], int)

# ---- probes

probe = ot.probe("order.execute", tier=ot.P0, sla="5ms", leaf=False, kind="client")
ot.probe("a", sla=0.005)
ot.probe("b", sla=datetime.timedelta(milliseconds=5))


@probe
def plain(symbol: str, qty: float = 1.0) -> int:
    """Keep its signature."""
    return len(symbol) + int(qty)


@probe
async def later(symbol: str) -> str:
    """Keep its signature."""
    return symbol


@probe
def each(count: int) -> Iterator[int]:
    """Keep its signature."""
    yield from range(count)


@probe
async def each_later(count: int) -> AsyncIterator[int]:
    """Keep its signature."""
    for number in range(count):
        yield number


class Venue:
    """Methods keep theirs too."""

    @probe
    def method(self, value: int) -> int:
        """Keep its signature."""
        return value

    @classmethod
    @probe
    def of_class(cls, value: int) -> int:
        """Keep its signature."""
        return value


assert_type(plain("BTCUSDT", qty=2.0), int)
assert_type(list(each(3)), list[int])
assert_type(Venue().method(1), int)
assert_type(Venue.of_class(1), int)
plain(1)  # type: ignore[arg-type]


async def main() -> None:
    """Use what is asynchronous."""
    assert_type(await later("x"), str)
    async for number in each_later(1):
        assert_type(number, int)


with probe as span:
    assert_type(span.trace_id, int)
    assert_type(span.recording, bool)
with probe.span(symbol="BTCUSDT", qty=1.5, retries=3, live=True) as span:
    span.set_attribute("price", 27_000.5)
    span.set_attribute("price", object())
token = probe.start()
probe.stop(token)
probe.stop(probe.start(), ValueError())

# ---- instruments

ot.counter("orders.rejected", tier=ot.P0).add(1)
ot.gauge("queue.depth", unit="{message}", description="Messages waiting").set(3)
ot.histogram("slippage", unit="bps", attributes={"side": "buy", "size": 1, "maker": True}).record(1.2)

# ---- life and death

ot.heartbeat()
ot.heartbeat("feed", late=2)
ot.heartbeat("feed", late=None)
ot.heartbeat(5)  # type: ignore[arg-type]
ot.queue(ot.gauge("queue.depth"))
ot.queue(None)
ot.queue(ot.counter("x"))  # type: ignore[arg-type]
ot.critical("risk.limit_near")
ot.critical("risk.limit_near", key="t-1")
assert_type(ot.dump(), str)
assert_type(ot.dump(Path("record")), str)


async def beating() -> None:
    """Beat from the loop."""
    await ot.heartbeat.every(1.0, "feed", late=3.0)


# ---- propagation

assert_type(ot.current_trace_id(), "str | None")
headers = ot.inject({"content-type": "application/json"})
assert_type(headers, dict[str, str])
with ot.extract(headers) as parent:
    probe.stop(probe.start(parent))
with ot.extract({b"traceparent": b"x"}), probe.span(parent, side="buy"):
    pass
assert_type(ot.inject(bytearray(25)), bytearray)
with ot.extract(bytes(25)), ot.extract(memoryview(b"")):
    pass
assert_type(ot.carry(plain)("BTCUSDT"), int)

# ---- orders

order = ot.order("t-1", symbol="BTCUSDT", side="buy", qty=Decimal("1.5"), price="64000.5")
assert_type(order, ot.Order)
assert_type(order.state, str)
order.ack()
order.fill(64_000.5, Decimal(1))
order.cancel()
ot.order("t-2").reject("insufficient margin")
ot.order("t-3", side=1)  # type: ignore[arg-type]

# ---- the budget, and what trading is about

assert_type(ot.mode(), str)
ot.set_mode("stressed")
ot.set_mode(None)
ot.set_mode(3)  # type: ignore[arg-type]
assert_type(ot.pin(), bool)
assert_type(ot.pin("0af7651916cd43dd8448eb211c80319c"), bool)
ot.market_data("BTCUSDT", 1_700_000_000_000, price="64000.5", volume=Decimal("0.5"))
ot.market_data("BTCUSDT", None)
ot.market_condition(lambda: (0.4, 1.0))
ot.market_condition(None)
ot.market_condition(lambda: 0.4)  # type: ignore[arg-type,return-value]
ot.risk_breach("position_limit", symbol="BTCUSDT", size=12.5)
ot.pnl(Decimal("-2.5"))

# ---- errors

try:
    ot.configure(config={"nonsense": 1})
except ot.ConfigurationError as error:
    assert_type(error.exit_code, int)
error_kinds: list[type[ot.OtelTradingError]] = [ot.BackendError, ot.ConfigurationError, ot.SubinterpreterError]
warning_kind: type[RuntimeWarning] = ot.PureBackendWarning
