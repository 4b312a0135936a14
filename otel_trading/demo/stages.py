"""The stages of an order's trace: in which process each is, and whose child."""

from __future__ import annotations

from collections import Counter

PROCESSES = ("bot", "gateway", "exchange")
"""In the order in which they are shown."""

RECEIVE, HANDLE, DECISION = "websocket.receive", "market_data.handle", "candle.process"

ORDER: dict[str, tuple[str, tuple[str | None, ...]]] = {
    RECEIVE: ("bot", (None, "gateway.accept")),
    HANDLE: ("bot", (RECEIVE,)),
    DECISION: ("bot", (RECEIVE,)),
    "signal.generate": ("bot", (DECISION,)),
    "risk.check": ("bot", (DECISION,)),
    "order.submit": ("bot", (DECISION,)),
    "websocket.send": ("bot", (DECISION,)),
    "gateway.accept": ("gateway", ("websocket.send",)),
    "gateway.route": ("gateway", ("gateway.accept",)),
    "exchange.match": ("exchange", ("gateway.route",)),
    "order.ack": ("bot", (DECISION,)),
    "order.fill": ("bot", (DECISION,)),
    "order.cancel": ("bot", (DECISION,)),
    "order.reject": ("bot", (DECISION,)),
}
"""Stage → (process, stages that its parent may be of); None: it may be the root."""

EVENTS = ("order.ack", "order.fill", "order.cancel", "order.reject")
"""Stages that last from the sending of the order to what happened to it."""

BEFORE = (RECEIVE, HANDLE)
"""Stages of every update, whether it leads to a decision or not."""

SHOWN = ("websocket.connect", *ORDER)
"""All stages, from the market to the fill."""

FILLED = ("all", "part", "none")
"""How much of an acknowledged order was filled, as the gateway tells it."""


def expected(filled: str) -> Counter[str]:
    """Give the stages that the trace of an acknowledged order has, and how many of each."""
    stages = Counter(ORDER.keys() - {"order.reject", "order.fill", "order.cancel"})
    stages[RECEIVE] += 1  # the ack
    if filled != "none":
        stages.update((RECEIVE, "order.fill"))
    if filled != "all":
        stages.update(("order.cancel",))
    return stages


def expected_of_reject(*, routed: bool) -> Counter[str]:
    """Give the same of an order that was refused, by the exchange or before it was routed there."""
    stages = Counter(ORDER.keys() - {"order.ack", "order.fill", "order.cancel"})
    stages[RECEIVE] += 1
    if not routed:
        del stages["gateway.route"], stages["exchange.match"]
    return stages
