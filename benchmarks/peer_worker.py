"""Measure one peer, in its own environment: ``python peer_worker.py MEASURE.PY PEER ROUNDS BLOCK_NS``.

Only the peer and the standard library are here. The measuring is otel_trading/bench/measure.py, loaded by its path.
Prints one JSON object.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def load(path: str) -> ModuleType:
    """Load measure.py from where it lies."""
    spec = importlib.util.spec_from_file_location("measure", path)
    if spec is None or spec.loader is None:
        message = f"cannot load {path}"
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules["measure"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def otel(form: Callable[..., Any]) -> list[Any]:
    """The OpenTelemetry SDK: a batch processor whose exporter takes everything and does nothing."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002  its interface
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    names = {
        "t": provider.get_tracer("bench"),
        "off": TracerProvider(sampler=ALWAYS_OFF).get_tracer("bench"),
        "noop": trace.NoOpTracer(),
    }
    start = 'start_as_current_span("bench.span")'
    attributes = 'attributes={"symbol": "BTCUSDT", "qty": 1.5}'
    return [
        form("root", "start_as_current_span, root", f"with t.{start}:\n    pass", names),
        form("child", "start_as_current_span, child", f"with t.{start}:\n    pass", names, around=f"t.{start}"),
        form(
            "attributes",
            "start_as_current_span, child, two attributes",
            f'with t.start_as_current_span("bench.span", {attributes}):\n    pass',
            names,
            around=f"t.{start}",
        ),
        form("flat", "start_span / end, not current", 't.start_span("bench.span").end()', names),
        form("off", "sampled out", f"with off.{start}:\n    pass", names),
        form("noop", "no-op tracer", f"with noop.{start}:\n    pass", names),
    ]


def ddtrace(form: Callable[..., Any]) -> list[Any]:
    """Datadog's tracer, without an agent to send to."""
    from ddtrace.trace import tracer

    names = {"t": tracer}
    return [
        form("root", "tracer.trace, root", 'with t.trace("bench.span"):\n    pass', names),
        form(
            "child", "tracer.trace, child", 'with t.trace("bench.span"):\n    pass', names, around='t.trace("parent")'
        ),
    ]


def logfire(form: Callable[..., Any]) -> list[Any]:
    """Logfire, sending nothing and printing nothing."""
    import logfire as peer

    peer.configure(send_to_logfire=False, console=False)
    names = {"span": peer.span}
    return [
        form("root", "logfire.span, root", 'with span("bench.span"):\n    pass', names),
        form("child", "logfire.span, child", 'with span("bench.span"):\n    pass', names, around='span("parent")'),
    ]


def prometheus(form: Callable[..., Any]) -> list[Any]:
    """Prometheus' client: a histogram that times a block; no trace, no context."""
    from prometheus_client import Histogram

    names = {"h": Histogram("bench_seconds", "Bench.")}
    return [form("time", "Histogram.time()", "with h.time():\n    pass", names)]


def _call(value: int) -> int:
    return value


def viztracer(form: Callable[..., Any]) -> list[Any]:
    """VizTracer: it traces every function call while it is on, and has events of its own; no context."""
    from viztracer import VizTracer

    tracer = VizTracer(tracer_entries=1_000_000, verbose=0)
    names = {"v": tracer, "f": _call}
    switches = {"before": tracer.start, "after": tracer.stop}
    return [
        form("call", "every call, one Python function", "f(1)", names, baseline="f(1)", **switches),
        form("event", "log_event", 'with v.log_event("bench.span"):\n    pass', names, **switches),
    ]


PEERS = {
    "otel": (otel, "opentelemetry-sdk"),
    "ddtrace": (ddtrace, "ddtrace"),
    "logfire": (logfire, "logfire"),
    "prometheus": (prometheus, "prometheus-client"),
    "viztracer": (viztracer, "viztracer"),
}


def main(path: str, peer: str, rounds: str, block_ns: str) -> None:
    """Measure, and print."""
    logging.disable(logging.CRITICAL)  # a missing agent is not news each second
    measure = load(path)
    prepare, distribution = PEERS[peer]
    forms = prepare(measure.Form)
    timings = measure.measure(forms, rounds=int(rounds), block_ns=int(block_ns))
    result = {
        "peer": peer,
        "version": metadata.version(distribution),
        "forms": {form.key: {"label": form.label, "timing": asdict(timings[form.key])} for form in forms},
    }
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
