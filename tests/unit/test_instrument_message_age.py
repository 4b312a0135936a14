"""Finding an exchange's stamp in a message."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_trading.instrument.message_age import SCANNED, guarded, stamps_of

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "data" / "recorded"
NOW_MS = 1_700_000_000_123


@pytest.mark.parametrize(
    ("venue", "message", "stamp"),
    [
        ("gateio", {"time": 1_606_292_218, "time_ms": NOW_MS + 9, "result": {"t": NOW_MS, "E": 1_606_292_218}}, NOW_MS),
        ("gateio", {"time_ms": NOW_MS, "channel": "spot.candlesticks", "result": {"t": "1606292600"}}, NOW_MS),
        ("gateio", {"time_ms": NOW_MS + 1, "result": {"id": 1, "create_time_ms": f"{NOW_MS}.4578"}}, NOW_MS),
        ("binance", {"stream": "x@trade", "data": {"e": "trade", "E": NOW_MS, "t": 12345, "T": NOW_MS - 2}}, NOW_MS),
        ("binance", {"u": 400900217, "s": "BNBUSDT", "b": "25.35", "T": NOW_MS}, NOW_MS),
        ("okx", {"arg": {"channel": "tickers"}, "data": [{"instId": "BTC-USDT", "ts": str(NOW_MS)}]}, NOW_MS),
        ("mexc", {"c": "spot@public.deals.v3.api", "d": {}, "t": NOW_MS}, NOW_MS),
        (None, {"event": "x", "timestamp": NOW_MS * 1000}, NOW_MS),
        ("elsewhere", {"ts": NOW_MS * 1_000_000}, NOW_MS),
        ("gateio", {"event": "subscribe"}, None),
        ("binance", {"E": 12345, "T": "soon"}, None),
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("encoded", [False, True])
def test_each_venue_has_its_fields(
    venue: str | None, message: dict[str, object], stamp: int | None, separators: tuple[str, str], *, encoded: bool
) -> None:
    """The venue's fields are found in their order of preference, in text and bytes, with blanks or without."""
    text = json.dumps(message, separators=separators)
    found = stamps_of(venue)(text.encode() if encoded else text)
    assert found == (None if stamp is None else pytest.approx(stamp / 1e3))


def test_only_the_beginning_is_scanned() -> None:
    """A stamp that begins after the first 512 characters is not looked for."""
    late, early = (f'{{"x":"{"y" * length}","T":{NOW_MS},"z":"{"z" * 600}"}}' for length in (SCANNED, SCANNED - 40))
    for text in (late, late.encode()):
        assert stamps_of("binance")(text) is None
    for text in (early, early.encode()):
        assert stamps_of("binance")(text) == NOW_MS / 1e3


def test_okx_books_end_with_their_stamp() -> None:
    """Of OKX's messages the end is looked at as well, behind a book of any length."""
    book = '{"data":[{"asks":[' + ",".join(["[1,2]"] * 500) + f'],"ts":"{NOW_MS}","checksum":-1}}]}}'
    for text in (book, book.encode()):
        assert stamps_of("okx")(text) == NOW_MS / 1e3
        assert stamps_of("binance")(text) is None


def varint(value: int) -> bytes:
    """Encode a number as protobuf does."""
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def test_mexc_push_has_its_stamps_in_protobuf() -> None:
    """Of MEXC's wrapper ``sendTime`` is taken, without it ``createTime``, and what comes after the body is not read."""
    channel = b"\x0a\x05a@b.c" + b"\x1a\x07BTCUSDT" + b"\x22\x02id"
    created, sent = b"\x28" + varint(NOW_MS - 5), b"\x30" + varint(NOW_MS)
    body = b"\xda\x13\x02ab"
    stamp = stamps_of("mexc")
    assert stamp(channel + created + sent + body) == NOW_MS / 1e3
    assert stamp(channel + created + body) == (NOW_MS - 5) / 1e3
    assert stamp(channel + body + sent) is None


@given(st.one_of(st.text(max_size=700), st.binary(max_size=700), st.binary(max_size=60).map(lambda b: b"\n" + b)))
def test_any_message_is_taken(message: str | bytes) -> None:
    """No message makes the scan raise, and what it finds is a number."""
    for venue in ("gateio", "mexc", None):
        found = stamps_of(venue)(message)
        assert found is None or isinstance(found, float)


@given(milliseconds=st.integers(10**12, 10**13 - 1), field=st.sampled_from(["E", "ts", "T"]), quoted=st.booleans())
def test_a_stamp_is_read_exactly(*, milliseconds: int, field: str, quoted: bool) -> None:
    """Milliseconds come back as they were written, in quotes or not."""
    value = f'"{milliseconds}"' if quoted else str(milliseconds)
    assert stamps_of(None)(f'{{"{field}":{value}}}') == pytest.approx(milliseconds / 1e3, abs=1e-4)


def test_an_extractor_of_the_program_may_fail() -> None:
    """What the program's own extractor raises, or gives that is no number, means that there is no stamp."""

    def broken(message: str | bytes) -> float:
        raise KeyError(message)

    assert guarded(broken)("{}") is None
    assert guarded(lambda _: "tomorrow")("{}") is None  # type: ignore[arg-type,return-value]
    assert guarded(lambda _: 17)("{}") == 17.0


@pytest.mark.skipif(not RECORDED.exists(), reason="recorded sessions are not beside this checkout")
@pytest.mark.parametrize(
    ("name", "venue", "least"),
    [
        ("GATEIO", "gateio", 0.8),  # of 2021: tickers and candles had whole seconds only
        ("GATEIO_FUTURES", "gateio", 0.95),
        ("BINANCE", "binance", 0.65),  # bookTicker of the spot market has no stamp
        ("BINANCE_FUTURES", "binance", 0.95),
        ("OKX", "okx", 0.95),
    ],
)
def test_recorded_sessions_have_ages(name: str, venue: str, least: float) -> None:
    """In real sessions nearly all pushes have a stamp, and it is within a minute of when they were received."""
    stamp, found, pushes = stamps_of(venue), 0, 0
    for line in (RECORDED / f"{name}.ws.1.0").read_text(encoding="utf-8").splitlines():
        received = re.match(r"([0-9.]+): (\{.*)", line)
        if received is None or '"subscribe"' in line[:300]:
            continue
        pushes += 1
        sent = stamp(received[2])
        if sent is not None:
            found += 1
            assert abs(float(received[1]) - sent) < 60, line[:300]
    assert pushes > 20
    assert found / pushes >= least
