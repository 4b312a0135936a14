"""Orders that go through ``ccxt``, entered with ``otel_trading.order``; what its answers and streams say of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from otel_trading.instrument import redaction
from otel_trading.orders import order

if TYPE_CHECKING:
    from otel_trading.orders import Order

_MOST = 4096  # orders whose venue id is remembered
_NEWEST = 64  # records of a list that are looked at
_EPSILON = 1e-12
_CLIENT_IDS = ("clientOrderId", "newClientOrderId", "clOrdId", "clientOid", "client_oid", "orderLinkId", "text")


class Sent:
    """An order that this process sent, or heard of."""

    __slots__ = ("acked", "handle", "paid")

    def __init__(self, handle: Order) -> None:
        """Take the order's handle."""
        self.handle = handle
        self.acked = False
        self.paid = 0.0

    def failed(self, kind: type[BaseException]) -> None:
        """Note that the call which sent it failed; whether a lost request has arrived is not known."""
        names = {one.__name__ for one in kind.__mro__}
        if "ExchangeError" in names and "NetworkError" not in names and self.handle.open:
            self.handle.reject(kind.__name__)


_lock = Lock()
_by_venue_id: OrderedDict[str, Sent] = OrderedDict()
_by_client_id: OrderedDict[str, Sent] = OrderedDict()


def number(value: object) -> float | None:
    """Give a number as ccxt takes them: numbers and text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def client_id_in(params: object) -> str | None:
    """Find the client order id among a call's parameters; nothing else of them is looked at."""
    if isinstance(params, Mapping):
        for key in _CLIENT_IDS:
            found = redaction.order_id(params.get(key))
            if found is not None:
                return found
    return None


def send(given: Mapping[str, Any]) -> Sent | None:
    """Enter an order that is about to be sent; None where the program gave it no client order id."""
    client_id = client_id_in(given.get("params"))
    return None if client_id is None else _enter(client_id, given)


def _enter(client_id: str, given: Mapping[str, Any]) -> Sent:
    sent = Sent(
        order(
            client_id,
            symbol=redaction.symbol(given.get("symbol")),
            side=redaction.word(given.get("side")),
            qty=number(given.get("amount")),
            price=number(given.get("price")),
        )
    )
    _remember(_by_client_id, client_id, sent)
    return sent


def _remember(orders: OrderedDict[str, Sent], key: str, sent: Sent) -> None:
    with _lock:
        orders[key] = sent
        if len(orders) > _MOST:
            orders.popitem(last=False)


def acknowledged(sent: Sent | None, given: Mapping[str, Any], result: object) -> None:
    """Note the venue's answer to an order."""
    if not isinstance(result, Mapping):
        return
    venue_id, client_id = redaction.order_id(result.get("id")), redaction.order_id(result.get("clientOrderId"))
    if sent is None:  # the library or the venue chose the id
        known_as = client_id or venue_id
        if known_as is None:
            return
        sent = _enter(known_as, given)
    if venue_id is not None:
        _remember(_by_venue_id, venue_id, sent)
    _note(sent, result)


def settle(records: object) -> None:
    """Note what an order, or a list of orders as ccxt gives them, says has become of them."""
    if isinstance(records, Mapping):
        found: Iterable[object] = (records,)
    elif isinstance(records, list):
        found = records[-_NEWEST:]
    else:
        return
    for record in found:
        if isinstance(record, Mapping):
            sent = _known(record)
            if sent is not None:
                _note(sent, record)


def _known(record: Mapping[Any, Any]) -> Sent | None:
    venue_id, client_id = redaction.order_id(record.get("id")), redaction.order_id(record.get("clientOrderId"))
    sent = _by_venue_id.get(venue_id or "") or _by_client_id.get(client_id or "")
    if sent is None and client_id is not None:
        handle = order(client_id)  # of another process, or from before a restart
        if not handle.known:
            return None
        sent = Sent(handle)
        sent.acked = handle.state != "sent"
        _remember(_by_client_id, client_id, sent)
    return sent


def _note(sent: Sent, record: Mapping[Any, Any]) -> None:
    handle, status = sent.handle, record.get("status")
    if not handle.open:
        return
    if status == "rejected":
        handle.reject(status)
        return
    if not sent.acked:
        sent.acked = True
        handle.ack()
    filled = number(record.get("filled"))
    more = 0.0 if filled is None else filled - handle.filled
    if filled is not None and more > _EPSILON:
        average = number(record.get("average")) or number(record.get("price")) or 0.0
        paid = average * filled
        handle.fill((paid - sent.paid) / more, more)
        sent.paid = paid
    if status in ("canceled", "expired") and handle.open:
        handle.cancel()
