"""The P0 figures of a program as another process reads them, and the alerts that their thresholds raise."""

from __future__ import annotations

from collections import deque

from otel_trading import _layout as at
from otel_trading.alerts import CRITICAL, WARNING, Alert
from otel_trading.budget import catalogue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from otel_trading._native import Reader

_WINDOW_NS = 60 * 1_000_000_000  # rejects and latencies are judged over a minute
_FEWEST_ORDERS = 10  # that a share of them says something
_MOST_VITALS = 1024  # of a look
_LATENCY, _STALENESS, _REJECTS = (
    "trading.order.execution.latency",
    "trading.market_data.staleness",
    "trading.order.reject_rate",
)


class Figures:
    """What is known of one program: orders and rejects of the last minute, the slowest ack, how old market data is.

    An alert is raised where a figure crosses its threshold (docs/tiers.md), and again, resolved, where it is back.
    """

    def __init__(self, service: str, pid: int) -> None:
        """Begin; critical events that are older than the first look are not alerted."""
        self._service = service
        self._labels = {"service": service, "pid": str(pid), "monitor": "emergency"}
        self._vitals = -1  # events ever, at the look before
        self._orders: deque[tuple[int, int, int, float]] = deque()  # unix_ns, sent, rejected, slowest ack
        self._raised: dict[str, str] = {}  # alert: severity
        self.open_orders = 0
        self.breaches = 0
        self.market_age: float | None = None  # seconds, of the freshest symbol

    def look(self, reader: Reader, now_ns: int) -> list[Alert]:
        """Read once; gives the alerts that this raises.  Takes some 10 µs, and 1 ms for 1,000 new events."""
        life = reader.life()
        self.open_orders = life["open_orders"]
        new = life["vitals"] - self._vitals if self._vitals >= 0 else 0
        self._vitals = life["vitals"]
        breaches = self._take(reader.vitals(min(new, _MOST_VITALS)) if new > 0 else [], now_ns)
        self.market_age = _market_age(reader.markets(), now_ns)
        return [*self._breached(breaches), *self._judged()]

    def _take(self, events: list[dict[str, Any]], now_ns: int) -> list[str]:
        """Count critical events; gives the kinds of the risk breaches among them."""
        states = [event["state"] for event in events if event["kind"] == at.VITAL_ORDER]
        acks = [
            event["latency"]
            for event in events
            if event["kind"] == at.VITAL_ORDER and event["state"] == at.ORDER_ACKED and event["latency"] is not None
        ]
        sent, rejected = states.count(at.ORDER_SENT), states.count(at.ORDER_REJECTED)
        if sent or rejected or acks:
            self._orders.append((now_ns, sent, rejected, max(acks, default=0.0)))
        while self._orders and self._orders[0][0] < now_ns - _WINDOW_NS:
            self._orders.popleft()
        return [str(event["name"]) for event in events if event["kind"] == at.VITAL_RISK]

    @property
    def orders(self) -> int:
        """Orders sent in the last minute."""
        return sum(one[1] for one in self._orders)

    @property
    def rejects(self) -> int:
        """Orders rejected in the last minute."""
        return sum(one[2] for one in self._orders)

    @property
    def reject_rate(self) -> float:
        """Their share; 0 where there are too few orders to tell."""
        return min(self.rejects / self.orders, 1.0) if self.orders >= _FEWEST_ORDERS else 0.0

    @property
    def slowest_ack(self) -> float:
        """Seconds, in the last minute."""
        return max((one[3] for one in self._orders), default=0.0)

    def text(self) -> str:
        """Tell the figures in a line."""
        age = "no market data" if self.market_age is None else f"market data {self.market_age:.1f} s old"
        return (
            f"{self._service} (pid {self._labels['pid']}): {self.orders} orders and {self.rejects} rejects in the last "
            f"minute, {self.open_orders} open, slowest ack {self.slowest_ack * 1e3:.1f} ms, {self.breaches} risk "
            f"breaches, {age}"
        )

    def _details(self) -> dict[str, object]:
        return {
            "orders": self.orders,
            "rejects": self.rejects,
            "open_orders": self.open_orders,
            "slowest_ack_s": self.slowest_ack,
            "market_data_age_s": self.market_age,
            "risk_breaches": self.breaches,
        }

    def _breached(self, kinds: list[str]) -> list[Alert]:
        self.breaches += len(kinds)
        return [
            Alert(
                "RiskBreach",
                CRITICAL,
                f"{self._service}: risk limit {kind[:100]} was breached",
                {**self._labels, "kind": kind[:100]},
                self._details(),
            )
            for kind in sorted(set(kinds))[:10]
        ]

    def _judged(self) -> list[Alert]:
        age = self.market_age
        return [
            *self._judge("OrderExecutionSlow", _LATENCY, self.slowest_ack, f"an ack took {self.slowest_ack:.3f} s"),
            *self._judge(
                "MarketDataStale", _STALENESS, age or 0.0, f"the newest market data is {age or 0.0:.1f} s old"
            ),
            *self._judge(
                "OrdersRejected", _REJECTS, self.reject_rate, f"{self.reject_rate:.1%} of the orders are rejected"
            ),
        ]

    def _judge(self, name: str, metric: str, value: float, what: str) -> list[Alert]:
        level = catalogue.level(metric, value)
        before = self._raised.get(name)
        if level == catalogue.OK:
            if before is None:
                return []
            del self._raised[name]
            return [self._resolved(name, before)]
        severity = CRITICAL if level == catalogue.CRITICAL else WARNING
        if severity == before:
            return []
        self._raised[name] = severity
        return [Alert(name, severity, f"{self._service}: {what}", self._labels, self._details())]

    def _resolved(self, name: str, severity: str) -> Alert:
        text = f"{self._service}: back to normal"
        return Alert(name, severity, text, self._labels, self._details(), resolved=True)

    def ended(self) -> list[Alert]:
        """Resolve what is raised: the program is no more."""
        raised, self._raised = self._raised, {}
        return [self._resolved(name, severity) for name, severity in raised.items()]


def _market_age(markets: list[dict[str, Any]], now_ns: int) -> float | None:
    """Give the age of the freshest symbol's data, seconds: a symbol that nobody trades is no fault of the feed."""
    stamps = [one["exchange_ns"] or one["received_ns"] for one in markets if one["updates"]]
    return max(0.0, (now_ns - max(stamps)) / 1e9) if stamps else None
