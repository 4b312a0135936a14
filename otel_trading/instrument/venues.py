"""Which venue a host name belongs to."""

from __future__ import annotations

from collections.abc import Mapping

# By the last parts of the host name.
_DOMAINS = {
    "binance.com": "binance",
    "binance.us": "binanceus",
    "binance.vision": "binance",
    "binancefuture.com": "binance",
    "bitfinex.com": "bitfinex",
    "bitget.com": "bitget",
    "bitmex.com": "bitmex",
    "bitstamp.net": "bitstamp",
    "bybit.com": "bybit",
    "bytick.com": "bybit",
    "coinbase.com": "coinbase",
    "crypto.com": "cryptocom",
    "deribit.com": "deribit",
    "dydx.exchange": "dydx",
    "dydx.trade": "dydx",
    "gate.io": "gateio",
    "gate.com": "gateio",
    "gateapi.io": "gateio",
    "gateio.ws": "gateio",
    "gemini.com": "gemini",
    "hbdm.com": "htx",
    "htx.com": "htx",
    "huobi.pro": "htx",
    "hyperliquid.xyz": "hyperliquid",
    "kraken.com": "kraken",
    "kucoin.com": "kucoin",
    "mexc.com": "mexc",
    "okex.com": "okx",
    "okx.com": "okx",
    "upbit.com": "upbit",
}

_LONGEST = 100


def venue_of(host: str, port: int | None = None, named: Mapping[str, str] | None = None) -> str:
    """Give the venue of a host: by ``named``, by the exchanges' domains, else the host name itself.

    ``named`` has hosts, with a port or without: ``{"127.0.0.1:9001": "paper", "feed.internal": "reuters"}``.
    """
    host = host.lower().rstrip(".")[:_LONGEST]
    if named:
        found = named.get(f"{host}:{port}") or named.get(host)
        if found:
            return str(found)[:_LONGEST]
    parts = host.split(".")
    return _DOMAINS.get(".".join(parts[-2:]), host)
