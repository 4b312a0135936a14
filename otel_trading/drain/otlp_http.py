"""OTLP requests over http, by the stock exporters' client: its session, compression, headers, time limits, retries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from otel_trading.drain import protobuf
from otel_trading.drain.otlp import MOST_REQUEST, Sent, partial
from otel_trading.drain.plain_http import PlainTransport, plain
from otel_trading.drain.wire import HttpTransport

if TYPE_CHECKING:
    from otel_trading._native import Batch
    from otel_trading.drain.otlp import Encoded
    from otel_trading.drain.wire import Wire


class Outcome(NamedTuple):
    """What became of a request, and for the exporter's own metrics what went wrong."""

    sent: Sent
    error: Exception | None = None
    status: int | None = None


class HttpSender:
    """Does what the stock exporter's ``export`` does, but for the encoding."""

    def __init__(self, client: Any, wire: Wire, most: int = MOST_REQUEST) -> None:
        """Take the client's transport's place; ``wire`` is told what is sent, no request of more than ``most`` bytes.

        Where plain http does, a transport of ours takes the stock one's place.
        """
        transport = plain(client._transport, client._endpoint)  # noqa: SLF001 - private, and tested for
        self._client = client
        self._most = most
        self._plain = transport if isinstance(transport, PlainTransport) else None
        self._answers = _Answers(transport, wire)
        client._transport = self._answers  # noqa: SLF001

    def send(self, request: Encoded, batch: Batch | None = None) -> Sent:
        """Send, and try again while the exporter's time allows it.

        ``batch`` is marked as sent with the request's last byte, as long as there is no answer but a yes; not where the
        session of ``requests`` sends it.
        """
        plain = self._plain
        if plain is None or batch is None:
            return self._send(request)
        plain.hand_over, plain.not_taken = batch.hand_over, batch.unsent
        try:
            return self._send(request)
        finally:
            plain.hand_over = plain.not_taken = None

    def _send(self, request: Encoded) -> Sent:
        return self._export(request).sent

    def _export(self, request: Encoded) -> Outcome:
        if self._client._shutdown:  # noqa: SLF001
            return Outcome(Sent(taken=False, reason="it is shut down"))
        if 0 < self._most < len(request.body):
            reason = f"a request of {len(request.body)} bytes is larger than its limit of {self._most}"
            return Outcome(Sent(taken=False, reason=reason), self._too_large(reason))
        try:
            result = self._client.export(request.body)
            if result.success:
                return Outcome(self._answers.of(request))
        finally:
            self._answers.last = None
        return Outcome(Sent(taken=False, reason=_reason(result)), result.error, result.status_code)

    @staticmethod
    def _too_large(reason: str) -> Exception:
        return ValueError(reason)

    def give_up(self) -> None:
        """End a wait for the next try, now and from now on."""
        self._client._shutdown_event.set()  # noqa: SLF001


def _reason(result: Any) -> str:
    known = " ".join(str(part) for part in (result.status_code, result.reason or result.error) if part)
    return known or "no answer in time"


class _Answers(HttpTransport):
    """A transport that remembers the last answer too, as the stock client gives no one its body."""

    last: Any = None

    def request(self, *arguments: Any, **options: Any) -> Any:
        """Send."""
        self.last = super().request(*arguments, **options)
        return self.last

    def of(self, request: Encoded) -> Sent:
        """Read the last answer; one that cannot be read is taken for a plain yes, as the stock exporter takes it."""
        try:
            return _partial_success(self.last.content(), request.spans)
        except Exception:  # noqa: BLE001 - a proxy may answer anything
            return Sent(taken=True)


def _partial_success(body: bytes, count: int) -> Sent:
    """Read an ExportTraceServiceResponse.  Raises ValueError for what is none."""
    said = protobuf.read(protobuf.bytes_of(protobuf.read(body), 1))
    rejected = protobuf.whole_of(said, 1)
    return partial(rejected - (1 << 64) if rejected >> 63 else rejected, protobuf.bytes_of(said, 2).decode(), count)
