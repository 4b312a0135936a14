"""Recordings of websocket sessions, and the venues' messages in them."""

from __future__ import annotations

import contextlib
import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_trading.demo import gateio, recording, venues
from otel_trading.demo.errors import DemoError, RecordingError
from otel_trading.demo.ticks import BookUpdate, MalformedError, Quote, Tick, Trade

GATEIO = "wss://api.gateio.ws/ws/v4/"
HEAD = f"{GATEIO} <-> 1619093531.5\n"
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
RECORDED = Path(__file__).parents[3] / "shared" / "data" / "recorded"

TRADE = {
    "time": 1619093543,
    "channel": "spot.trades",
    "event": "update",
    "result": {
        "id": 1,
        "create_time": 1619093543,
        "create_time_ms": "1619093543708.2642",
        "side": "sell",
        "currency_pair": "DIS_USDT",
        "amount": "0.2010000000",
        "price": "121.58",
    },
}


def write(path: Path, *lines: str) -> str:
    """Write a recording of Gate.io."""
    path.write_text(HEAD + "".join(line + "\n" for line in lines))
    return str(path)


def received(message: object, at: float = 1619093544.25) -> str:
    """Write the line of a message that the exchange sent."""
    return f"{at}: {json.dumps(message)}"


def test_a_trade_of_gateio_is_read(tmp_path: Path) -> None:
    """A recorded trade becomes a tick with its time of receipt and its line."""
    path = write(tmp_path / "r", f'{GATEIO} <- 1619093532.77: {{"event":"subscribe"}}', received(TRADE))
    (event,) = recording.ticks(path)
    assert (event.at, event.line) == (1619093544.25, 3)
    assert event.tick == Trade("DIS_USDT", 1619093543708, Decimal("121.58"), Decimal("0.201"), "sell")


def test_both_arrows_mark_what_was_sent(tmp_path: Path) -> None:
    """Lines of the client's own messages are passed over, whichever way their arrow points."""
    sent = [f"{GATEIO} {arrow} 1619093532.77: {{}}" for arrow in ("->", "<-")]
    assert len(list(recording.ticks(write(tmp_path / "r", *sent, "", received(TRADE))))) == 1


@pytest.mark.parametrize(
    ("lines", "line", "reason"),
    [
        (["hello"], 2, "neither"),
        (["1619093544.1: {"], 2, "not JSON"),
        (["1619093544.1: [1]"], 2, "not a JSON object"),
        (["", "1619093544.1: " + "[" * 100_000], 3, "not JSON"),
        ([received({**TRADE, "result": {}})], 2, "'currency_pair' is missing"),
        ([received({**TRADE, "result": {**TRADE["result"], "price": "-1"}})], 2, "not above 0"),  # type: ignore[dict-item]
        ([received({**TRADE, "result": {**TRADE["result"], "price": "1e999999"}})], 2, "out of range"),  # type: ignore[dict-item]
        ([received({**TRADE, "result": {**TRADE["result"], "price": True}})], 2, "not a number"),  # type: ignore[dict-item]
        ([received({**TRADE, "result": {**TRADE["result"], "side": "up"}})], 2, "side"),  # type: ignore[dict-item]
        (["wss://example.org/feed <-> 1.5"], 2, "no parser for example.org"),
        (["wss://ws.okx.com:8443/ws/v5/public <-> 1.5"], 2, "in a recording of Gate.io spot"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, lines: list[str], line: int, reason: str) -> None:
    """What can not be read raises an error with file, line and reason."""
    path = write(tmp_path / "r", *lines)
    with pytest.raises(RecordingError, match=reason) as caught:
        list(recording.ticks(path))
    assert caught.value.line == line
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert caught.value.exit_code == 2


def test_a_message_before_the_url_is_refused(tmp_path: Path) -> None:
    """Without the URL nobody knows whose messages these are."""
    path = tmp_path / "r"
    path.write_text(received(TRADE) + "\n")
    with pytest.raises(RecordingError, match="line 1: a message before any line"):
        recording.scan(str(path))


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    """A foreign file is told from a recording at its first line."""
    path = tmp_path / "r"
    path.write_bytes(b"\x7fELF\xff\xfe\x00")
    with pytest.raises(RecordingError, match="line 1: not UTF-8"):
        recording.scan(str(path))


def test_a_very_long_line_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without line ends is refused in bounded memory."""
    monkeypatch.setattr(recording, "LONGEST_LINE", 100)
    path = write(tmp_path / "r", "x" * 1000)
    with pytest.raises(RecordingError, match="line 2: longer than 100 bytes"):
        recording.scan(path)


@pytest.mark.parametrize("name", ["missing", "."])
def test_what_can_not_be_opened_is_said(tmp_path: Path, name: str) -> None:
    """A missing file and a directory give an error that names them."""
    with pytest.raises(DemoError, match="can not read the recording"):
        recording.scan(str(tmp_path / name))


def test_a_recording_without_market_data_is_refused(tmp_path: Path) -> None:
    """A session that only subscribed has nothing to replay."""
    with pytest.raises(DemoError, match="no market data"):
        recording.scan(write(tmp_path / "r", received({"event": "subscribe"})))


@pytest.mark.parametrize(
    ("name", "venue", "ticks", "symbol"),
    [
        ("GATEIO", "Gate.io spot", 203, "BTC_USDC"),
        ("GATEIO_FUTURES", "Gate.io futures", 427, "RDNT_USDT"),
        ("BINANCE", "Binance", 263, "RUNE_EUR"),
        ("BINANCE_FUTURES", "Binance", 1468, "SUSHI_USDT"),
        ("OKX", "OKX", 392, "BTC_USD_220527"),
    ],
)
def test_real_sessions_are_read_whole(name: str, venue: str, ticks: int, symbol: str) -> None:
    """Every trade, ticker and book update of real sessions is found."""
    path = RECORDED / f"{name}.ws.1.0"
    if not path.exists():
        pytest.skip(f"the recording {name} is not here")
    found = recording.scan(str(path))
    assert (found.venue, found.ticks) == (venue, ticks)
    assert symbol in found.symbols
    assert 10 < found.seconds < 31


@pytest.mark.parametrize(
    ("parser", "message", "tick"),
    [
        (
            venues.binance,
            {"e": "trade", "s": "BTCUSDT", "T": 5, "p": "2.5", "q": "1", "m": True},
            Trade("BTC_USDT", 5, Decimal("2.5"), Decimal(1), "sell"),
        ),
        (
            venues.binance,
            {"stream": "x", "data": {"u": 1, "s": "NKNUSDT", "b": "1.5", "B": "2", "a": "1.6", "A": "3"}},
            Quote("NKN_USDT", 0, None, Decimal("1.5"), Decimal("1.6"), Decimal(2), Decimal(3)),
        ),
        (
            venues.gateio_futures,
            {
                "event": "update",
                "channel": "futures.trades",
                "result": [{"contract": "A_B", "create_time": 7, "price": "3", "size": -4}],
            },
            Trade("A_B", 7000, Decimal(3), Decimal(4), "sell"),
        ),
        (
            venues.gateio_futures,
            {
                "event": "update",
                "channel": "futures.book_ticker",
                "result": {"s": "A_B", "t": 7, "b": "", "B": 0, "a": "2", "A": 5},
            },
            Quote("A_B", 7, None, None, Decimal(2), Decimal(0), Decimal(5)),
        ),
        (
            venues.okx,
            {
                "arg": {"channel": "books", "instId": "BTC-USDT"},
                "action": "snapshot",
                "data": [{"bids": [["1", "2", "0", "1"]], "asks": [], "ts": "9"}],
            },
            BookUpdate("BTC_USDT", 9, ((Decimal(1), Decimal(2)),), (), snapshot=True),
        ),
    ],
)
def test_messages_of_the_venues(parser: venues.Parser, message: dict[str, object], tick: Tick) -> None:
    """Each venue's message becomes the tick that it means."""
    assert parser(message) == [tick]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)
FIELDS = [*"stbaBAupqmET", "time", "time_ms", "result", "data", "arg", "stream"]
KINDS = {
    "channel": ["spot.trades", "spot.tickers", "spot.order_book_update", "futures.trades", "futures.book_ticker"],
    "event": ["update"],
    "e": ["depthUpdate", "aggTrade", "bookTicker"],
}


@given(
    st.sampled_from([venues.gateio_spot, venues.gateio_futures, venues.binance, venues.okx]),
    st.dictionaries(st.sampled_from(FIELDS), json_values),
    st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in KINDS.items()}),
)
@settings(PATIENT)
def test_a_parser_gives_ticks_or_says_malformed(
    parser: venues.Parser, fields: dict[str, object], kinds: dict[str, str]
) -> None:
    """Whatever a message holds, a parser gives ticks or raises MalformedError, and nothing else."""
    try:
        ticks = parser({**fields, **kinds})
    except MalformedError:
        return
    assert isinstance(ticks, list)


@given(st.lists(st.binary(max_size=60) | st.just(received(TRADE).encode()), max_size=8))
@settings(PATIENT, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_file_gives_ticks_or_a_line(tmp_path: Path, lines: list[bytes]) -> None:
    """Any bytes after the first line are read, or refused with the line's number."""
    path = tmp_path / "any"
    path.write_bytes(HEAD.encode() + b"\n".join(lines))
    line = 1
    with contextlib.suppress(RecordingError):
        try:
            list(recording.ticks(str(path)))
        except RecordingError as error:
            line = error.line
            raise
    assert 1 <= line <= path.read_bytes().count(b"\n") + 1


prices = st.decimals("0.00000001", "1000000", places=8)
sizes = st.decimals("0", "1000000", places=8)
levels = st.lists(st.tuples(prices, sizes), max_size=5).map(tuple)
times = st.integers(1, 10**13)


@given(times, prices, sizes, st.sampled_from(["buy", "sell"]))
def test_a_trade_survives_the_protocol(time_ms: int, price: Decimal, size: Decimal, side: str) -> None:
    """What the paper exchange sends as Gate.io's JSON is read back as the same trade."""
    tick = Trade("A_B", time_ms, price, size, side)
    assert venues.gateio_spot(json.loads(gateio.trade(tick, 1, time_ms * 10**6))) == [tick]


@given(times, levels, levels, st.booleans())
def test_a_book_update_survives_the_protocol(time_ms: int, bids: object, asks: object, snapshot: bool) -> None:  # noqa: FBT001
    """A book update is read back as it was, whole books included."""
    tick = BookUpdate("A_B", time_ms, bids, asks, snapshot=snapshot)  # type: ignore[arg-type]
    assert venues.gateio_spot(json.loads(gateio.book(tick, 1, time_ms * 10**6))) == [tick]


@given(times, st.none() | prices, st.none() | prices, st.none() | prices)
def test_a_ticker_survives_the_protocol(
    time_ms: int, last: Decimal | None, bid: Decimal | None, ask: Decimal | None
) -> None:
    """A ticker is read back as it was; prices that are not there stay away."""
    tick = Quote("A_B", time_ms, last, bid, ask)
    assert venues.gateio_spot(json.loads(gateio.ticker(tick, None, time_ms * 10**6))) == [tick]
