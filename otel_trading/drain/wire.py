"""How many bytes the exporters put on the wire, counted where their stock transports hand them over."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from otel_trading import faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_REQUEST_LINE = 19  # "POST … HTTP/1.1", "Host: …" and the empty line, without the path and the host of the URL
_USUAL_HEADERS = 190  # those that a transport adds, where it does not tell what it sent
_FRAMES = 80  # HTTP/2: two frames' heads, the message's prefix, and header fields that its table knows already
_SAMPLE_EVERY = 64
_SAMPLE_BYTES = 1 << 16
# An error of which no byte has left: there never was a connection.
_UNSENT = (
    "NotConnectedError",
    "NewConnectionError",
    "ConnectTimeout",
    "NameResolutionError",
    "failed to connect",
    "ProxyError",
)


class Wire:
    """Bytes that have been sent; added to by the transports of one exporting thread, taken by that thread."""

    def __init__(self) -> None:
        """Begin with none."""
        self._bytes = 0

    def add(self, size: int) -> None:
        """Count bytes that are on their way."""
        self._bytes += size

    def taken(self) -> int:
        """Return what was sent since the last call."""
        size, self._bytes = self._bytes, 0
        return size


def unsent(error: object) -> bool:
    """Tell whether a request failed before there was a connection."""
    text = repr(error)
    return any(name in text for name in _UNSENT)


class HttpTransport:
    """A stock exporter's http transport that counts requests as they are sent: each try, body and head."""

    def __init__(self, transport: Any, wire: Wire) -> None:
        """Take the transport in whose place this one is put."""
        self._transport = transport
        self._wire = wire

    def request(self, *arguments: Any, **options: Any) -> Any:
        """Send."""
        result = self._transport.request(*arguments, **options)
        try:
            if not unsent(getattr(result, "error", None)):
                self._wire.add(_http_bytes(arguments, options, result))
        except Exception as error:  # noqa: BLE001 - private parts of another package: the request itself went well
            faults.report("export.wire", f"the bytes of a request can not be counted: {error!r}")
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _http_bytes(arguments: tuple[Any, ...], options: Mapping[str, Any], result: Any) -> int:
    exact = getattr(result, "sent", 0)
    if exact:
        return int(exact)
    sent = getattr(getattr(result, "response", None), "request", None)
    headers = getattr(sent, "headers", None)
    url = options.get("url") or (arguments[1] if len(arguments) > 1 else "")
    head = _REQUEST_LINE + len(str(url))
    if headers is None:
        head += _USUAL_HEADERS
        headers = options.get("headers") or {}
    # "name: value", and the line's end.
    head += sum(len(str(name)) + len(str(value)) + 4 for name, value in headers.items())
    return head + len(options.get("data") or b"")


class GrpcWire:
    """Counts the messages of a grpc exporter.

    Compression happens behind the interface, where nobody sees its result: it is learnt from a sample now and then.
    """

    def __init__(self, wire: Wire, compressed: bool) -> None:  # noqa: FBT001 - one obvious argument
        """Take where to count, and whether the channel compresses."""
        self._wire = wire
        self._compressed = compressed
        self._share = 1.0
        self._messages = 0

    def add(self, size: int, message: Callable[[], bytes], metadata: Iterable[tuple[str, str | bytes]] | None) -> None:
        """Count a message of ``size`` bytes, which ``message`` gives where it is wanted as a sample."""
        try:
            if self._compressed and not self._messages % _SAMPLE_EVERY:
                sample = message()[:_SAMPLE_BYTES]
                self._share = min(1.0, len(zlib.compress(sample)) / max(1, len(sample)))
            fields = sum(len(name) + len(value) + 2 for name, value in metadata or ())
            # Fields that are sent again and again take two bytes, or one, from the second time on.
            head = _FRAMES + (fields + 200 if not self._messages else 0)
            self._messages += 1
            self._wire.add(head + round(size * self._share))
        except Exception as error:  # noqa: BLE001 - as above
            faults.report("export.wire", f"the bytes of a request can not be counted: {error!r}")
