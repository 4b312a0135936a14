"""What of addresses, names and exceptions may be recorded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_trading.instrument import redaction


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("", "/"),
        ("/", "/"),
        ("/ws/v4/", "/ws/v4"),
        ("/ws/v5/public", "/ws/v5/public"),
        ("/ws/pqia91ma19a5s61cv6a81va65sdf19v8", "/ws/*"),
        ("/ws/btcusdt@trade", "/ws/*"),
        ("/stream?streams=btcusdt@trade&listenKey=s3cr3t", "/stream"),
        ("/api/v1.2/orders#s3cr3t", "/api/v1.2/orders"),
        ("/a/b/c/../s3cr3t", "/*/*/*/*/*"),
    ],
)
def test_paths_keep_the_words_that_are_known(path: str, shown: str) -> None:
    """Unknown segments, the query and the fragment go."""
    assert redaction.path(path) == shown


def test_an_address_is_put_together_from_harmless_parts() -> None:
    """Scheme, host, port and path; what is none of these is hidden."""
    assert redaction.url("wss", "Stream.Binance.com", 9443, "/ws/abc?x=y") == "wss://stream.binance.com:9443/ws/*"
    assert redaction.url("ws", "::1", 80, "") == "ws://[::1]:80/"
    assert redaction.url("s3cr3t", "user:pass@host", None, "/") == "*://*/"


def test_subprotocols_that_are_not_known_are_hidden() -> None:
    """Some programs send a token as subprotocol."""
    assert redaction.subprotocol("graphql-ws") == "graphql-ws"
    assert redaction.subprotocol("bearer.abcdef") == "*"


@given(st.text())
def test_a_path_shows_nothing_that_is_not_on_the_list(text: str) -> None:
    """Whatever the path, each segment that is shown is a known word, a version, or a star."""
    shown = redaction.path(text)
    segments = [one for one in shown.split("/") if one]
    assert all(one == "*" or one in redaction._SEGMENTS or redaction._VERSION.fullmatch(one) for one in segments)


@pytest.mark.parametrize("name", ["BTC/USDT", "BTC/USDT:USDT-231229", "BTC_USDT", "btcusdt", "1INCH/USD"])
def test_symbols_have_their_shape(name: str) -> None:
    """Symbols as exchanges and ccxt write them pass."""
    assert redaction.symbol(name) == name


@pytest.mark.parametrize("value", [None, 5, "", "a b", "x" * 40, "https://x?key=1", b"BTC"])
def test_what_has_not_the_shape_is_left_out(value: object) -> None:
    """All else is None, of any type."""
    assert redaction.symbol(value) is None


def raised(*, marked: bool, chained: bool) -> Exception:
    """Raise and catch an exception with a secret."""
    try:
        try:
            raise ValueError("https://x/?signature=s3cr3t")
        except ValueError as error:
            if marked:
                redaction.mark(error)
            if not chained:
                raise
            raise RuntimeError("failed: s3cr3t") from error
    except Exception as error:  # noqa: BLE001
        return error


@pytest.mark.parametrize("chained", [False, True])
def test_marked_exceptions_show_where_and_what_and_no_text(*, chained: bool) -> None:
    """A marked exception, or one that was raised from it, has a trace without its text."""
    error = raised(marked=True, chained=chained)
    assert redaction.is_marked(error)
    trace = redaction.stacktrace(error)
    assert "in raised" in trace
    assert type(error).__name__ in trace
    assert "failed" not in trace.splitlines()[-1]
    assert trace.endswith(f"{redaction.WITHHELD}\n")
    assert not redaction.is_marked(raised(marked=False, chained=chained))


def test_marking_takes_any_exception_and_any_chain() -> None:
    """An exception that refuses attributes, and a chain that bites its tail, do no harm."""

    class Slotted(BaseException):
        def __setattr__(self, name: str, value: object) -> None:
            raise TypeError(name)

    redaction.mark(Slotted())
    first, second = ValueError(), ValueError()
    first.__context__, second.__context__ = second, first
    assert not redaction.is_marked(first)
