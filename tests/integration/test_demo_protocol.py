"""The paper exchange and the gateway as their clients see them, over real websockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("websockets", reason="the demo needs websockets")

from websockets.sync.client import ClientConnection, connect

from otel_trading.demo import children, venues
from otel_trading.demo.ticks import BookUpdate

LIMIT = 20.0
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03"
CHANNELS = {
    "spot.trades": ["BTC_USDT"],
    "spot.tickers": ["BTC_USDT", "ETH_USDT"],
    "spot.order_book_update": ["BTC_USDT", "100ms"],
    "spot.candlesticks": ["1s", "BTC_USDT"],
}


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[dict[str, children.Process]]:
    """Give the place for the processes of a test; they are gone after it."""
    with children.family() as started:
        yield started
    assert list(tmp_path.glob("*.seg")) == []


@pytest.fixture
def exchange(tmp_path: Path, processes: dict[str, children.Process]) -> Iterator[ClientConnection]:
    """Start an exchange and connect to it."""
    processes["exchange"] = children.Process("exchange", ["--rate", "400"], tmp_path)
    port = processes["exchange"].wait_ready()["port"]
    with connect(f"ws://127.0.0.1:{port}", open_timeout=LIMIT) as connection:
        yield connection


@pytest.fixture
def gateway(
    tmp_path: Path, processes: dict[str, children.Process], exchange: ClientConnection
) -> Iterator[ClientConnection]:
    """Start a gateway to the exchange, and connect to it when the market is open."""
    url = "ws://127.0.0.1:{}".format(processes["exchange"].ready["port"])
    arguments = ["--exchange", url, "--symbols", "BTC_USDT,ADA_USDT", "--rate", "8"]
    processes["gateway"] = children.Process("gateway", arguments, tmp_path)
    port = processes["gateway"].wait_ready()["port"]
    book(exchange)
    with connect(f"ws://127.0.0.1:{port}", open_timeout=LIMIT) as connection:
        yield connection


def ask(connection: ClientConnection, message: object) -> dict[str, Any]:
    """Send a message; give the next one that is no update."""
    connection.send(message if isinstance(message, str) else json.dumps(message))
    return answer(connection)


def answer(connection: ClientConnection) -> dict[str, Any]:
    """Give the next message that is no update."""
    while True:
        message: dict[str, Any] = json.loads(connection.recv(timeout=LIMIT))
        if message.get("event") != "update":
            return message


def subscribe(channel: str, payload: object, event: str = "subscribe") -> dict[str, object]:
    """Make a subscription."""
    return {"time": 1, "id": 42, "channel": channel, "event": event, "payload": payload}


def book(connection: ClientConnection) -> BookUpdate:
    """Subscribe to the book and give the first one that is whole."""
    ask(connection, subscribe("spot.order_book_update", ["BTC_USDT", "100ms"]))
    while True:
        ticks = venues.gateio_spot(json.loads(connection.recv(timeout=LIMIT)))
        if ticks and isinstance(ticks[0], BookUpdate) and ticks[0].snapshot:
            return ticks[0]


def place(**changes: str) -> dict[str, object]:
    """Make the request of an order."""
    param = {"text": "t-1", "currency_pair": "BTC_USDT", "side": "buy", "amount": "0.01", "time_in_force": "ioc"}
    payload = {"req_id": "r-1", "req_header": {"traceparent": PARENT}, "req_param": {**param, **changes}}
    return {"time": 1, "channel": "spot.order_place", "event": "api", "payload": payload}


def test_subscriptions_are_answered_and_served(exchange: ClientConnection) -> None:
    """Each channel is acknowledged in Gate.io's form and then gives updates of its own kind."""
    for channel, payload in CHANNELS.items():
        reply = ask(exchange, subscribe(channel, payload))
        assert (reply["channel"], reply["event"], reply["id"]) == (channel, "subscribe", 42)
        assert (reply["error"], reply["result"]) == (None, {"status": "success"})
    seen: dict[str, dict[str, Any]] = {}
    while set(seen) != set(CHANNELS):
        message = json.loads(exchange.recv(timeout=LIMIT))
        seen[message["channel"]] = message
    assert all(message["event"] == "update" and message["time_ms"] > 0 for message in seen.values())
    assert {"t", "v", "c", "h", "l", "o", "n"} == seen["spot.candlesticks"]["result"].keys()
    assert seen["spot.trades"]["result"]["currency_pair"] == "BTC_USDT"


def test_the_end_of_a_subscription_is_the_end_of_its_updates(exchange: ClientConnection) -> None:
    """After unsubscribing, a channel says no more."""
    ask(exchange, subscribe("spot.trades", ["BTC_USDT"]))
    ask(exchange, subscribe("spot.tickers", ["BTC_USDT"]))
    assert ask(exchange, subscribe("spot.trades", ["BTC_USDT"], "unsubscribe"))["result"] == {"status": "success"}
    later = [json.loads(exchange.recv(timeout=LIMIT))["channel"] for _ in range(10)]
    assert set(later) == {"spot.tickers"}


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("no json", 1),
        ("[]", 1),
        ({"channel": "spot.trades", "event": "fetch"}, 2),
        (subscribe("spot.nonsense", ["BTC_USDT"]), 2),
        (subscribe("spot.trades", ["NO_SUCH"]), 2),
        (subscribe("spot.trades", "BTC_USDT"), 2),
        (subscribe("spot.trades", []), 2),
        (subscribe("spot.candlesticks", ["BTC_USDT"]), 2),
    ],
)
def test_what_makes_no_sense_is_answered_with_an_error(exchange: ClientConnection, message: object, code: int) -> None:
    """A wrong request gets Gate.io's error code, and the connection lives on."""
    reply = ask(exchange, message)
    assert (reply["error"]["code"], reply["result"]) == (code, None)
    assert ask(exchange, {"time": 1, "channel": "spot.ping"})["channel"] == "spot.pong"


def test_an_order_is_acknowledged_and_then_filled(exchange: ClientConnection) -> None:
    """An order gets two answers, and what it took is taken from the book and told as a trade."""
    best = book(exchange).asks[0]
    ask(exchange, subscribe("spot.trades", ["BTC_USDT"]))
    ack = ask(exchange, place(price=str(best[0] + 50)))
    assert (ack["request_id"], ack["ack"], ack["header"]["status"]) == ("r-1", True, "200")
    result = answer(exchange)
    done = result["data"]["result"]
    assert (done["text"], done["status"], done["left"], done["finish_as"]) == ("t-1", "closed", "0.00", "filled")
    assert float(done["avg_deal_price"]) <= float(best[0] + 50)
    assert result["header"]["traceparent"].split("-")[1] == PARENT.split("-")[1]
    assert result["header"]["traceparent"].split("-")[2] != PARENT.split("-")[2]


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"currency_pair": "NO_SUCH"}, "INVALID_CURRENCY_PAIR"),
        ({"text": "1"}, "INVALID_PARAM_VALUE"),
        ({"type": "market"}, "INVALID_PARAM_VALUE"),
        ({"amount": "much"}, "INVALID_PARAM_VALUE"),
        ({"price": "1"}, "PRICE_TOO_DEVIATED"),
        ({"amount": "1000000"}, "BALANCE_NOT_ENOUGH"),
    ],
)
def test_a_refused_order_is_answered_with_its_label(
    exchange: ClientConnection, changes: dict[str, str], label: str
) -> None:
    """A refusal has status 400 and Gate.io's label."""
    price = str(book(exchange).asks[0][0])
    assert ask(exchange, place(**{"price": price, **changes}))["ack"] is True
    refusal = answer(exchange)
    assert refusal["header"]["status"] == "400"
    assert refusal["data"]["errs"]["label"] == label


def test_an_order_without_a_body_is_refused(exchange: ClientConnection) -> None:
    """A request whose payload is nothing of the kind gets an error, and does no harm."""
    ask(exchange, {"channel": "spot.order_place", "event": "api", "payload": 5})
    assert answer(exchange)["data"]["errs"]["label"] == "INVALID_REQUEST_BODY"


def order(number: int, **changes: object) -> dict[str, object]:
    """Make an order for the gateway."""
    made = {"type": "order", "order_id": f"t-{number}", "symbol": "BTC_USDT", "side": "sell", "quantity": "0.01"}
    return {**made, "price": "59000", "traceparent": PARENT, **changes}


def test_the_gateway_passes_ack_and_fill_on(gateway: ClientConnection) -> None:
    """An order comes back as an ack and a fill, both in its trace."""
    ack, fill = ask(gateway, order(1)), answer(gateway)
    assert (ack["type"], ack["order_id"], ack["filled"]) == ("ack", "t-1", True)
    assert (fill["type"], fill["order_id"], fill["finish_as"]) == ("fill", "t-1", "filled")
    assert ack["traceparent"] == fill["traceparent"]
    assert ack["traceparent"].split("-")[1] == PARENT.split("-")[1]


def test_the_gateway_refuses_what_is_wrong(gateway: ClientConnection) -> None:
    """Its own checks and the exchange's both come back as a reject with the reason, and the connection lives on."""
    assert "order_id" in ask(gateway, "no json")["reason"]
    assert ask(gateway, order(2, symbol="ADA_USDT"))["reason"] == "INVALID_CURRENCY_PAIR"
    assert ask(gateway, order(2))["reason"] == "duplicate order_id"
    assert ask(gateway, order(3, price="1"))["reason"] == "PRICE_TOO_DEVIATED"
    reasons = [ask(gateway, order(number, price="1"))["reason"] for number in range(4, 20)]
    assert reasons[-1] == "rate limit"


def test_a_process_answers_its_runner(exchange: ClientConnection, processes: dict[str, children.Process]) -> None:
    """The line protocol: live figures, the end of new work, and a report; an unknown command is told as one."""
    process = processes["exchange"]
    book(exchange)
    assert process.ask("status")["sent"] >= 1
    assert "unknown command" in process.ask("dance")["error"]
    assert process.ask("quiet")["idle"] is True
    sent = process.ask("status")["sent"]
    report = process.ask("report")
    assert report["sent"] == sent
    assert report["summary"]["accounts"]["P0"]["recorded"] == 0
    assert report["cost"]["operations_ns"]["exchange.match"] > 0
