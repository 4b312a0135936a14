"""The stages of an order's trace: in which process each is, and whose child."""

from __future__ import annotations

PROCESSES = ("bot", "gateway", "exchange")
"""In the order in which they are shown."""

ROOT = "candle.process"

ORDER: dict[str, tuple[str, str | None]] = {
    "candle.process": ("bot", None),
    "signal.generate": ("bot", "candle.process"),
    "risk.check": ("bot", "candle.process"),
    "order.submit": ("bot", "candle.process"),
    "gateway.accept": ("gateway", "order.submit"),
    "gateway.route": ("gateway", "gateway.accept"),
    "exchange.match": ("exchange", "gateway.route"),
    "order.ack": ("bot", "gateway.accept"),
    "order.fill": ("bot", "gateway.accept"),
    "order.reject": ("bot", "gateway.accept"),
}
"""Stage → (process, parent stage)."""

SHOWN = ("market_data.handle", *ORDER)
"""All stages, from the market to the fill."""


def expected(*, filled: bool) -> frozenset[str]:
    """Give the stages that the trace of an acknowledged order has, each once."""
    without = {"order.reject"} if filled else {"order.reject", "order.fill"}
    return frozenset(ORDER) - without
