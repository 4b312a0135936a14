"""What the asyncio connections of both of websockets' implementations have in common: ``send`` and ``close``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from otel_trading.instrument import redaction
from otel_trading.instrument.streams import Stream, release, with_context


def sending_in_task(
    stream_of: Callable[[Any], Stream | None],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put a span around ``send``; ``stream_of`` finds a connection's stream."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def send(self: Any, message: Any, *args: Any, **kwargs: Any) -> None:
            stream = stream_of(self)
            if stream is None:
                await original(self, message, *args, **kwargs)
                return
            span = stream.sending(message)
            try:
                if stream.propagates:
                    message = with_context(span, message)
                await original(self, message, *args, **kwargs)
            except BaseException as error:
                redaction.mark(error)
                span.finish(error)
                raise
            span.finish()

        return send

    return make


def closing_in_task(original: Callable[..., Any]) -> Callable[..., Any]:
    """Let the last message's span be current no longer."""

    async def close(self: Any, *args: Any, **kwargs: Any) -> None:
        release()
        await original(self, *args, **kwargs)

    return close
