"""OpenTelemetry's tracing API on the recorder: ``TracerProvider``, and the context that both share.

Loading this package loads nothing: OpenTelemetry's own start-up may ask for ``otel_trading.api.context`` while
``opentelemetry.context`` is half imported.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading.api.context import RecorderContext
    from otel_trading.api.provider import TracerProvider

__all__ = ["RecorderContext", "TracerProvider"]


def __getattr__(name: str) -> object:
    if name == "TracerProvider":
        from otel_trading.api.provider import TracerProvider

        return TracerProvider
    if name == "RecorderContext":
        from otel_trading.api.context import RecorderContext

        return RecorderContext
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
