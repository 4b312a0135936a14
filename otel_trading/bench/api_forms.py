"""OpenTelemetry's API, the same forms on our provider and on the stock SDK's, each in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_trading.bench.measure import Form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.trace import TracerProvider

SDK = "sdk"
"""The stock SDK, among the backends."""

TARGETS: dict[str, dict[str, float]] = {
    "native": {"api_plain": 12.0, "api_attributes": 18.0, "api_off": 6.0},
}
"""What the forms may cost, in floors, by backend and key."""

_START = 't.start_as_current_span("bench.span")'
_ATTRIBUTES = '{"symbol": "BTCUSDT", "qty": 1.5}'


def _ours(**options: Any) -> TracerProvider:
    from otel_trading.api import TracerProvider

    return TracerProvider(shutdown_on_exit=False, **options)


def _stock(**options: Any) -> TracerProvider:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002 - its interface
            return SpanExportResult.SUCCESS

    provider = TracerProvider(shutdown_on_exit=False, **options)
    if not options:
        provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    return provider


def forms(backend: str) -> Sequence[Form]:
    """Every form; ``backend`` is the one that runs in this process, configured, or ``SDK``."""
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    make = _stock if backend == SDK else _ours
    names = {
        "t": make().get_tracer("bench", "1.0"),
        "off": make(sampler=ALWAYS_OFF).get_tracer("bench", "1.0"),
    }
    targets = TARGETS.get(backend, {})

    def form(key: str, label: str, statement: str, *, child: bool = True) -> Form:
        return Form(key, label, statement, names, around=_START if child else "", target=targets.get(key))

    return [
        form("api_plain", "start_as_current_span, child", f"with {_START}:\n    pass"),
        form("api_root", "start_as_current_span, root", f"with {_START}:\n    pass", child=False),
        form(
            "api_attributes",
            "start_as_current_span, child, two attributes",
            f'with t.start_as_current_span("bench.span", attributes={_ATTRIBUTES}):\n    pass',
        ),
        form("api_flat", "start_span / end, not current", 't.start_span("bench.span").end()'),
        form("api_off", "sampled out", 'with off.start_as_current_span("bench.span"):\n    pass', child=False),
    ]
