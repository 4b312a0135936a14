"""Orders: ``order`` records one that is sent, and what becomes of it, in the trace that sent it.

What is sent goes into the order table of this process's segment, by client order id.  So an ack or a fill that
arrives on another connection, in another process, or after a restart finds the trace that it belongs to.
"""

from __future__ import annotations

import os
from _thread import RLock
from collections import OrderedDict
from contextvars import Context
from math import inf, nan
from time import time_ns

from otel_trading import _layout as at
from otel_trading import lifecycle, order_values, probes
from otel_trading._backend import core
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, SupportsFloat, TypeAlias

    from otel_trading._backend import Histogram, Probe, Span
    from otel_trading._native import OrderState
    from otel_trading.segment.neighbours import Neighbours

    Number: TypeAlias = SupportsFloat | str

_MOST = 4096  # handles that are held for look-ups; the table remembers the others
_SUBMIT, _ACK, _REJECT, _FILL, _CANCEL = range(5)
_NAMES = ("order.submit", "order.ack", "order.reject", "order.fill", "order.cancel")
_SENT, _FILLED = at.ORDER_SENT, at.ORDER_FILLED
_STATES = ("unknown", "sent", "acked", "partly_filled", "filled", "cancelled", "rejected")
_number = order_values.number_of
_SIDE_NAMES = ("", "buy", "sell")
_BASIS_POINTS = 10_000.0
_ROUNDING = 1e-9  # share of the quantity: sums of fills are floats

_UNKNOWN: OrderState = (0, 0, True, at.ORDER_SENT, 0, 0, 0.0, nan, 0.0, 0.0, "", 0)
_ELSEWHERE = ""  # where an order's state is kept that is in no table of ours: by a living process, or nowhere
_LATE, _REPEATED, _OVERFILLED = "late", "repeated", "overfilled"


def _transitions(state_after: int) -> tuple[tuple[int, str | None], ...]:
    """Give (state after, anomaly) by the state before, of an event that ends an order or acknowledges it."""
    ended = at.ORDER_FILLED, at.ORDER_CANCELLED, at.ORDER_REJECTED
    table: list[tuple[int, str | None]] = []
    for before in range(len(_STATES)):
        if before == state_after:
            table.append((before, _REPEATED))
        elif before in ended or (state_after == at.ORDER_ACKED and before == at.ORDER_PARTLY_FILLED):
            table.append((before, _LATE))
        else:
            table.append((state_after, None))
    return tuple(table)


_AFTER = {
    _ACK: _transitions(at.ORDER_ACKED),
    _REJECT: _transitions(at.ORDER_REJECTED),
    _CANCEL: _transitions(at.ORDER_CANCELLED),
}


class _Shared:
    """What all orders of this process share; the lock is new in a forked child, whose holder may not exist."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.open: OrderedDict[str, Order] = OrderedDict()  # by key, oldest first
        self.probes: list[Probe] = []
        self.slippage: dict[int, Histogram] = {}  # by side
        self.neighbours: Neighbours | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.lock = RLock()
        if self.neighbours is not None:
            self.neighbours.renew()

    def make_probes(self) -> list[Probe]:
        """Take the program's own definitions of our names, which may have an SLA; P0 where there is none."""
        with self.lock:
            if not self.probes:
                self.probes = [probes.defined(name) or probes.probe(name, probes.P0) for name in _NAMES]
        return self.probes

    def slippage_of(self, side: int) -> Histogram:
        """Give the histogram of the slippage of orders of one side."""
        found = self.slippage.get(side)
        if found is None:
            found = self.slippage[side] = probes.histogram(
                "trading.order.slippage",
                probes.P1,
                "{bp}",
                "How much worse than its order's price a fill was, basis points; negative: better.",
                {"trading.order.side": _SIDE_NAMES[side]},
            )
        return found

    def hold(self, key: str, order: Order) -> None:
        self.open[key] = order
        if len(self.open) > _MOST:
            self.open.popitem(last=False)


_shared = _Shared()


class Order:
    """An order that was sent; ``order`` makes it.  Usable from any thread, and after the order has ended.

    Each event is a span of tier P0 from the sending of the order to now: ``stats()["order.ack"]`` is the latency of
    the acks.  An event that does not fit what is known of the order is recorded all the same, with the attribute
    ``trading.order.anomaly``: ``late`` (the order had ended, or was filled before its ack), ``repeated``
    or ``overfilled``.  None of the methods raises for a wrong value; that is a fault.
    """

    __slots__ = ("_attributes", "_entry", "_filled", "_key", "_origin", "_paid", "_parent", "_state")

    def __init__(self, key: str, text: str, parent: Span | None, entry: OrderState, origin: str | None = None) -> None:
        """Begin with what a table says of an order; ``order`` is how programs come by one."""
        self._key = key
        self._parent = parent  # None: the first event begins a trace
        self._entry = entry
        self._state, self._filled, self._paid = entry[3], entry[8], entry[9]
        self._origin = origin  # None: our own table has it; _ELSEWHERE; or the segment of an ended process
        self._attributes: dict[str, Any] = {"trading.order.id": text}
        if entry[10]:
            self._attributes["trading.symbol"] = entry[10]

    def __repr__(self) -> str:
        return f"<otel_trading.Order {self._attributes['trading.order.id']!r} {self.state}>"

    @property
    def order_id(self) -> str:
        """The client's order id."""
        return str(self._attributes["trading.order.id"])

    @property
    def open(self) -> bool:
        """Whether it is neither filled, cancelled nor rejected, as far as this process knows."""
        return self._state < _FILLED

    @property
    def known(self) -> bool:
        """Whether the sending was found; if not, the events are in a trace of their own."""
        return self._entry[0] != 0 or self._origin is None

    @property
    def state(self) -> str:
        """``sent``, ``acked``, ``partly_filled``, ``filled``, ``cancelled`` or ``rejected``."""
        return _STATES[self._state]

    @property
    def filled(self) -> float:
        """The quantity that was filled so far, as far as this process knows."""
        return self._filled

    def ack(self) -> None:
        """Record that the venue has taken the order; a span ``order.ack``."""
        self._happened(_ACK, self._attributes)

    def reject(self, reason: str = "") -> None:
        """Record that the order was refused; a span ``order.reject`` with status ERROR and the reason."""
        text = reason if isinstance(reason, str) else order_values.text_of("reason", reason, self.order_id)
        self._happened(_REJECT, {**self._attributes, "trading.order.reject_reason": text} if text else self._attributes)

    def fill(self, price: Number, qty: Number) -> None:
        """Record that ``qty`` was filled at ``price``; a span ``order.fill``.

        The order is filled when the fills come up to its quantity.  Where it has a side and a price, the slippage goes
        into the histogram ``trading.order.slippage``.
        """
        paid = price if type(price) is float and -inf < price < inf else _number("price", price, self.order_id)
        quantity = qty if type(qty) is float and 0.0 < qty < inf else order_values.quantity_of(qty, self.order_id)
        attributes = self._attributes.copy()
        if paid is not None:
            attributes["trading.order.fill_price"] = paid
        if quantity is not None:
            attributes["trading.order.fill_quantity"] = quantity
        limit, side = self._entry[7], self._entry[11]
        if paid is not None and side and (limit < 0.0 or limit > 0.0):  # NaN is neither
            worse = (paid - limit if side == at.SIDE_BUY else limit - paid) / abs(limit) * _BASIS_POINTS
            (_shared.slippage.get(side) or _shared.slippage_of(side)).record(worse)
        self._happened(_FILL, attributes, quantity or 0.0, (paid or 0.0) * (quantity or 0.0))

    def cancel(self) -> None:
        """Record that the order was cancelled; a span ``order.cancel``."""
        self._happened(_CANCEL, self._attributes)

    def _happened(self, what: int, attributes: dict[str, Any], quantity: float = 0.0, paid: float = 0.0) -> None:
        entry = self._entry
        sent_ns = entry[4]
        now = max(time_ns(), sent_ns)  # the clock may have been set back, and the order be another machine's
        with _shared.lock:
            before = self._state
            if what == _FILL:
                self._filled += quantity
                self._paid += paid
                state, anomaly = self._after_fill(before)
            else:
                state, anomaly = _AFTER[what][before]
            if anomaly is not None:
                attributes = {**attributes, "trading.order.anomaly": anomaly}
            parent = self._parent
            if parent is None:
                self._begin_trace(what, now, attributes)
            elif self._origin != _ELSEWHERE and (state != before or what == _FILL):
                core.order_put(
                    self._key,
                    entry[0],
                    entry[1],
                    entry[2],
                    state,
                    sent_ns,
                    now,
                    entry[6],
                    entry[7],
                    self._filled,
                    self._paid,
                    entry[10],
                    entry[11],
                )
            self._state = state
            ended = state >= _FILLED > before
            if ended and _shared.open.get(self._key) is self:
                del _shared.open[self._key]  # from now on the table is enough
        if parent is not None:
            probe = (_shared.probes or _shared.make_probes())[what]
            probe.record(parent, sent_ns, now, what == _REJECT, attributes)
        if ended and self._origin:
            _ended_elsewhere(self._origin, self._key, state)

    def _after_fill(self, before: int) -> tuple[int, str | None]:
        if before >= _FILLED:
            return before, _OVERFILLED if before == _FILLED else _LATE
        quantity, filled = self._entry[6], self._filled
        if quantity <= 0.0 or filled < quantity * (1.0 - _ROUNDING):
            return at.ORDER_PARTLY_FILLED, None
        return _FILLED, _OVERFILLED if filled > quantity * (1.0 + _ROUNDING) else None

    def _begin_trace(self, what: int, now: int, attributes: dict[str, Any]) -> None:
        """Record the first event of an order without a trace: a root, whatever is current here."""
        probe = (_shared.probes or _shared.make_probes())[what]
        span = Context().run(probe.record, None, now, now, what == _REJECT, attributes)
        if span.trace_id:
            self._parent = span
            self._origin = _ELSEWHERE
            self._entry = (*self._entry[:4], now, now, *self._entry[6:])


def order(
    order_id: str,
    *,
    symbol: str | None = None,
    side: str | None = None,
    qty: Number | None = None,
    price: Number | None = None,
) -> Order:
    """Record that an order is sent; or, with nothing but its id, find one that was.

    ``order_id`` is the client's id of the order, unique among the user's orders; ``side`` is buy or sell, ``qty`` and
    ``price`` are numbers (Decimal and text are taken as well), without ``price`` it is an order at market.
    Sending is a span ``order.submit`` of tier P0, a child of the current span, and takes about 2 µs.

    An order is looked for in this process, then in the segments of the user's other processes in the same directory,
    living or ended.  Where it is unknown the handle works as well, in a trace of its own, and counts in
    ``orders.unknown``.  A miss takes some ten microseconds, and at most once in 50 ms some milliseconds.

    Never raises for a wrong value: that is a fault, and the value is left out.
    """
    if type(order_id) is str and order_id.isascii() and 0 < len(order_id) <= at.ORDER_KEY_BYTES:
        key = text = order_id
    else:
        key, text = order_values.key_of(order_id)
    if symbol is None and side is None and qty is None and price is None:
        return _find(key, text)
    return _send(key, text, symbol, side, qty, price)


def _send(key: str, text: str, symbol: object, side: object, qty: object, price: object) -> Order:
    attributes: dict[str, Any] = {"trading.order.id": text}
    name = symbol if isinstance(symbol, str) else order_values.text_of("symbol", symbol, text)
    if name:
        attributes["trading.symbol"] = name
    number = (order_values.SIDES.get(side) if isinstance(side, str) else None) or order_values.side_of(side, text)
    if number:
        attributes["trading.order.side"] = _SIDE_NAMES[number]
    quantity = limit = None
    if qty is not None:
        quantity = qty if type(qty) is float and 0.0 < qty < inf else order_values.quantity_of(qty, text)
        if quantity is not None:
            attributes["trading.order.quantity"] = quantity
    if price is not None:
        limit = price if type(price) is float and -inf < price < inf else _number("price", price, text)
        if limit is not None:
            attributes["trading.order.price"] = limit

    above = core.current()
    if key in _shared.open:
        attributes["trading.order.anomaly"] = _REPEATED
    span = (_shared.probes or _shared.make_probes())[_SUBMIT].span(None, **attributes)
    span.begin()
    now = time_ns()
    span.finish()
    if above is None:
        above = span
    trace_id = above.trace_id
    if limit is None:
        limit = nan
    entry = trace_id, above.span_id, above.sampled, _SENT, now, now, quantity or 0.0, limit, 0.0, 0.0, name, number
    if not trace_id:  # nothing is recorded now
        return Order(key, text, None, entry)
    made = Order(key, text, above, entry, None if key else _ELSEWHERE)
    if key:
        core.order_put(key, *entry)
        _shared.hold(key, made)
    return made


def _find(key: str, text: str) -> Order:
    held = _shared.open.get(key)
    if held is not None and held.known:
        return held
    found, origin = core.order_get(key) if key else None, None
    if found is None and key:
        found, origin = _look_elsewhere(key)
    with _shared.lock:
        held = _shared.open.get(key, held)  # another thread may have been here
        if held is not None and (held.known or found is None):
            return held
        if found is None:
            made = Order(key, text, None, _UNKNOWN, _ELSEWHERE)
        else:
            made = Order(key, text, core.remote(found[0], found[1], found[2], None), found, origin)
            if origin:
                core.order_put(key, *found)  # so that the order outlives the segment that it was found in
        if key and made.open:
            _shared.hold(key, made)
    if found is None and core.is_open():
        probes.counter("orders.unknown", probes.P0, "{order}", "Orders that were looked for in vain.").add(1)
    return made


def _look_elsewhere(key: str) -> tuple[OrderState | None, str | None]:
    """Give an order's state, and where it is: in a living process's segment, or the path of an ended one's."""
    settings = lifecycle.settings()
    if settings is None:
        return None, None
    try:
        if _shared.neighbours is None:
            from otel_trading.segment.neighbours import Neighbours

            _shared.neighbours = Neighbours()
        found, path, alive = _shared.neighbours.find(key, settings.directory, lifecycle.own_segment())
    except Exception as error:  # noqa: BLE001  a directory may be in any state
        report("orders:look-up", f"the segments of other processes can not be looked through for orders: {error}")
        return None, None
    return found, _ELSEWHERE if alive else path


def _ended_elsewhere(path: str, key: str, state: int) -> None:
    try:
        from otel_trading.segment.neighbours import note_end

        note_end(path, key, state)
    except Exception as error:  # noqa: BLE001  the segment may be gone, or in any state
        report("orders:end", f"{path} can not be told that an order has ended: {error}")
