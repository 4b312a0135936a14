"""Which venue a host belongs to."""

from __future__ import annotations

import pytest

from otel_trading.instrument.venues import venue_of


@pytest.mark.parametrize(
    ("host", "venue"),
    [
        ("api.gateio.ws", "gateio"),
        ("fx-ws.gateio.ws", "gateio"),
        ("stream.binance.com", "binance"),
        ("Stream.Binance.COM.", "binance"),
        ("ws.okx.com", "okx"),
        ("wbs-api.mexc.com", "mexc"),
        ("notbinance.com", "notbinance.com"),
        ("binance.com.evil.example", "binance.com.evil.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("", ""),
    ],
)
def test_exchanges_are_known_by_their_domains(host: str, venue: str) -> None:
    """Any host of a known domain is the venue; an unknown one is its own name."""
    assert venue_of(host) == venue


def test_the_program_names_its_own_hosts() -> None:
    """A name with the port wins over one without, and both over the domain."""
    named = {"127.0.0.1:9001": "paper", "127.0.0.1": "local", "ws.okx.com": "okx-eu"}
    assert venue_of("127.0.0.1", 9001, named) == "paper"
    assert venue_of("127.0.0.1", 9002, named) == "local"
    assert venue_of("ws.okx.com", 8443, named) == "okx-eu"


def test_names_are_bounded() -> None:
    """An endless host name does not become an endless attribute."""
    assert len(venue_of("x" * 5000)) == 100
