"""What it costs to get spans out of a process: the child that records, and tells what else took CPU time in it."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import Tracer

PORTION_S = 0.01
_PATIENCE = 60.0
_SDK_QUEUE = 1 << 18


def _ours() -> tuple[Tracer, Callable[[], bool]]:
    import otel_trading as ot
    from otel_trading.api import TracerProvider

    ot.configure(service="bench", config={"export.traces": "otlp", "export.metrics": "none", "budget.enabled": False})
    return TracerProvider(shutdown_on_exit=False).get_tracer("bench", "1.0"), lambda: ot.flush(_PATIENCE)


def _stock() -> tuple[Tracer, Callable[[], bool]]:
    import os

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

    if os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        exporter: SpanExporter = Grpc()
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

        exporter = Http()
    provider = TracerProvider(shutdown_on_exit=False)
    # Its own batches of 512; a queue in which nothing is lost.
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=_SDK_QUEUE))
    return provider.get_tracer("bench", "1.0"), lambda: provider.force_flush(round(_PATIENCE * 1000))


def record(tracer: Tracer, spans: int, rate: int) -> tuple[int, int]:
    """Record ``spans``, every other one with two attributes, in portions, at ``rate`` a second at most.

    Gives the number and the nanoseconds of this thread's CPU time.
    """
    began = time.thread_time_ns()
    portion = max(1, round(rate * PORTION_S / 2))
    done, due = 0, time.perf_counter()
    while done < spans:
        for number in range(portion):
            with (
                tracer.start_as_current_span("order.send", attributes={"symbol": "BTCUSDT", "number": number}),
                tracer.start_as_current_span("gateway.write"),
            ):
                pass
        done += 2 * portion
        due = max(due + PORTION_S, time.perf_counter())
        time.sleep(max(0.0, due - time.perf_counter()))
    return done, time.thread_time_ns() - began


def measure_export(*, stock: bool, spans: int, rate: int) -> dict[str, Any]:
    """Record ``spans`` at ``rate``, flush, and give the CPU nanoseconds that went to other things than recording.

    That is the process's CPU time from the first span to the end of the flush, all threads, less the recording loop's
    own: the drain, the encoding, the exporter and the libraries that it goes through.  ``sent`` counts what the
    receiver should have at the end, the spans of the warm-up included.
    """
    tracer, flush = (_stock if stock else _ours)()
    sent, _ = record(tracer, max(2, min(spans, rate // 10)), rate)  # first connections, first imports
    flushed = flush()
    gc.collect()
    gc.freeze()
    process = time.process_time_ns()
    done, recording = record(tracer, spans, rate)
    flushed = flush() and flushed
    others = time.process_time_ns() - process - recording
    if not stock:
        import otel_trading as ot

        ot.shutdown()
    return {"spans": done, "sent": sent + done, "flushed": flushed, "cpu_ns": others, "recording_ns": recording}
