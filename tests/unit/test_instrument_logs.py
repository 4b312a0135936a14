"""Log records that carry the current trace."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

import otel_trading as ot
from otel_trading.instrument import logs

probe = ot.probe("logs.test")


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        """Begin empty."""
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)


@pytest.fixture
def logger() -> Iterator[tuple[logging.Logger, list[Any]]]:
    """Give a logger and the list of its records; correlation is off again afterwards."""
    factory = logging.getLogRecordFactory()
    one, handler = logging.getLogger("test.correlation"), Kept()
    one.addHandler(handler)
    yield one, handler.records
    one.removeHandler(handler)
    logs.disable()
    assert logging.getLogRecordFactory() is factory


@pytest.mark.usefixtures("recorder")
def test_records_in_a_span_have_its_ids(logger: tuple[logging.Logger, list[Any]]) -> None:
    """Trace and span are those of the current span, under our names and OpenTelemetry's."""
    log, records = logger
    logs.enable()
    logs.enable()
    with probe.span() as span:
        log.warning("in %s", "span")
    log.warning("outside")
    inside, outside = records
    assert inside.getMessage() == "in span"
    assert inside.trace_id == inside.otelTraceID == f"{span.trace_id:032x}"
    assert inside.span_id == inside.otelSpanID == f"{span.span_id:016x}"
    assert inside.otelTraceSampled is True
    assert inside.otelServiceName == outside.otelServiceName == "test"
    assert (outside.trace_id, outside.span_id) == ("", "")
    assert (outside.otelTraceID, outside.otelSpanID, outside.otelTraceSampled) == ("0", "0", False)


@pytest.mark.usefixtures("recorder")
def test_disabled_records_are_as_they_were(logger: tuple[logging.Logger, list[Any]]) -> None:
    """After ``disable`` records have nothing of ours, also where another factory was put on top."""
    log, records = logger
    original = logging.getLogRecordFactory()
    logs.enable()
    ours = logging.getLogRecordFactory()

    def on_top(*args: Any, **kwargs: Any) -> logging.LogRecord:
        return ours(*args, **kwargs)

    logging.setLogRecordFactory(on_top)
    logs.disable()
    logs.disable()
    log.warning("plain")
    assert not hasattr(records[0], "trace_id")
    assert logging.getLogRecordFactory() is on_top
    logging.setLogRecordFactory(original)


@pytest.mark.usefixtures("recorder")
def test_a_remote_parent_counts(logger: tuple[logging.Logger, list[Any]]) -> None:
    """A parent from elsewhere is current too, and may be unsampled."""
    log, records = logger
    logs.enable()
    with ot.extract({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}):
        log.warning("x")
    assert records[0].trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert records[0].otelTraceSampled is False


def test_spans_of_the_stock_sdk_are_seen(run_python: Callable[..., Any]) -> None:
    """Where a program keeps the SDK, the ids are those of the SDK's current span."""
    done = run_python(
        """
import logging
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from otel_trading.instrument import logs
trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
logs.enable()
logging.basicConfig(format="%(trace_id)s %(span_id)s %(otelServiceName)s")
with trace.get_tracer("x").start_as_current_span("y") as span:
    logging.warning("z")
    context = span.get_span_context()
    print(trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id))
""",
        OTEL_SERVICE_NAME="bot",
    )
    assert done.stderr.strip() == f"{done.stdout.strip()} bot"


@pytest.mark.usefixtures("recorder")
def test_structlog_events_get_the_trace() -> None:
    """The processor adds the ids inside a span, nothing outside, and overwrites nothing."""
    with structlog.testing.capture_logs(processors=[logs.add_trace_context]) as events:
        log = structlog.get_logger()
        with probe.span() as span:
            log.info("in")
            log.info("own", trace_id="mine")
        log.info("out")
    assert events[0]["trace_id"] == f"{span.trace_id:032x}"
    assert events[0]["span_id"] == f"{span.span_id:016x}"
    assert events[0]["trace_sampled"] is True
    assert events[1]["trace_id"] == "mine"
    assert "trace_id" not in events[2]


def test_the_setting_enables_it(make_recorder: Callable[..., Any], logger: tuple[logging.Logger, list[Any]]) -> None:
    """``logs.correlation`` in the configuration is enough."""
    log, records = logger
    make_recorder("configured", logs__correlation=True)
    log.warning("x")
    assert records[0].otelServiceName == "configured"
