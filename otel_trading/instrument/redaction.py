"""What of a library's arguments, addresses and errors may be recorded: only what is on a list here.

API keys, secrets, signatures, passphrases, listen keys and tokens come in headers, bodies, query strings, path
segments, user information, subprotocols and exceptions' texts.  So nothing is searched for secrets: of each of these
nothing is taken, but for the parts that are known words.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HIDDEN = "*"
"""What stands in the place of a part that is not known to be harmless."""

_MOST_SEGMENTS = 12
_HOST = re.compile(r"[A-Za-z0-9._:\-\[\]%]{1,255}")
_VERSION = re.compile(r"v?[0-9]{1,2}(\.[0-9]{1,2})?")
# Of the exchanges' addresses, and what services of one's own are called.
_SEGMENTS = frozenset(
    """
    account api book btc business candles contract control dapi data delivery eapi edge endpoint events fapi feed
    feeds futures gateway health healthz index ingest inverse kline level2 linear live market markets metrics mix
    option options order orders pap papi perp perpetual portfolio positions prices private public quote quotes raw
    realtime risk sapi signals socket socket.io spot status stream streams swap ticker tickers trade trades trading
    unified usdc usdt user websocket ws ws-api ws-fapi wsapi wss
    """.split()  # noqa: SIM905
)
# Of the IANA registry, and in wide use.
_SUBPROTOCOLS = frozenset(
    """
    binary cbor graphql-transport-ws graphql-ws json jsonrpc mqtt mqttv3.1 msgpack protobuf soap stomp v10.stomp
    v11.stomp v12.stomp wamp wamp.2.cbor wamp.2.json wamp.2.msgpack
    """.split()  # noqa: SIM905
)
_SCHEMES = frozenset(("http", "https", "ws", "wss"))


def path(text: str) -> str:
    """Give a path without its query, each segment that is not known as ``*``: ``/ws/*``."""
    text = text.partition("?")[0].partition("#")[0]
    if text in ("", "/"):
        return "/"
    segments = text.strip("/").split("/", _MOST_SEGMENTS)
    return "/" + "/".join(one if one in _SEGMENTS or _VERSION.fullmatch(one) else HIDDEN for one in segments)


def host(text: str) -> str:
    """Give a host name in lower case, ``*`` where it cannot be one."""
    return text.lower() if _HOST.fullmatch(text) else HIDDEN


def url(scheme: str, host_name: str, port: int | None, path_text: str) -> str:
    """Put an address together from its harmless parts."""
    where = host(host_name)
    if ":" in where and not where.startswith("["):
        where = f"[{where}]"
    at = f":{port}" if port else ""
    return f"{scheme if scheme in _SCHEMES else HIDDEN}://{where}{at}{path(path_text)}"


def subprotocol(text: str) -> str:
    """Give a websocket subprotocol; some programs send a token as one, so ``*`` for all but the known ones."""
    return text if text in _SUBPROTOCOLS else HIDDEN


def shaped(pattern: str) -> Callable[[object], str | None]:
    """Make a function that gives text of that shape, whole, and None for all else."""
    matches = re.compile(pattern).fullmatch

    def take(value: object) -> str | None:
        return value if isinstance(value, str) and matches(value) else None

    return take


symbol = shaped(r"[A-Za-z0-9]{1,16}([/:_\-.][A-Za-z0-9.]{1,16}){0,5}")
"""BTC/USDT, BTC/USDT:USDT-231229, BTC_USDT, btcusdt."""

order_id = shaped(r"[A-Za-z0-9._:/|#\-]{1,64}")
"""Order ids, the client's and the venue's."""

word = shaped(r"[A-Za-z][A-Za-z_\-]{0,31}")
"""Sides, types and states of orders."""

identifier = shaped(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
"""Names of methods, exchanges and API sections."""


# ---- exceptions ----

_MARK = "_otel_trading_may_carry_secrets"
_MOST_CAUSES = 32
WITHHELD = "(withheld: it may carry secrets)"
"""What stands in the place of the text of an exception that is marked."""


def mark(error: BaseException) -> None:
    """Say that an exception's text may carry secrets, so that no span records it, of whomever the span is."""
    try:
        setattr(error, _MARK, True)
    except Exception:  # noqa: BLE001, S110  of a class that takes no attributes
        pass


def is_marked(error: BaseException) -> bool:
    """Tell whether an exception, or one that it was raised from or in the handling of, is marked."""
    waiting, seen = [error], 0
    while waiting and seen < _MOST_CAUSES:
        one = waiting.pop()
        seen += 1
        if getattr(one, _MARK, False) is True:
            return True
        waiting += [other for other in (one.__cause__, one.__context__) if other is not None]
    return False


def stacktrace(error: BaseException) -> str:
    """Give the trace of a marked exception: where it was raised, without a text of it or of its causes."""
    import traceback

    frames = "".join(traceback.format_tb(error.__traceback__))
    return (
        f"Traceback (most recent call last):\n{frames}{type(error).__module__}.{type(error).__qualname__}: {WITHHELD}\n"
    )
