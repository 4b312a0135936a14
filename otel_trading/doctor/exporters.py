"""A real span, sent by each configured exporter to where the program would send its own."""

from __future__ import annotations

import logging
import os
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from otel_trading.config.masking import masked
from otel_trading.doctor import endpoint
from otel_trading.doctor.check import FAIL, OK, WARN, Check
from otel_trading.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_trading.doctor.check import Situation

_OTLP = {"otlp_proto_http": "http", "otlp_proto_grpc": "grpc"}


def checks(situation: Situation) -> Iterator[Check]:
    """Send a span by each OTLP exporter; of others, tell whether they can be made."""
    names = situation.settings.export_traces
    given = situation.settings.sources["export.traces"] != "default"
    if not names and given:
        yield Check("exporter", OK, f"none, as {situation.settings.sources['export.traces']} says")
        return
    for name in names or ("otlp",):
        try:
            point, protocol = resolved(name, given=given)
        except ConfigurationError as error:
            yield Check(f"exporter {name}", FAIL, str(error), "pip install otel-trading[otlp]")
            continue
        if point is None:
            yield Check(
                f"exporter {name}", FAIL if given else WARN, "is not installed", "pip install otel-trading[otlp]"
            )
        elif protocol is None:
            yield _made(name, point)
        else:
            found = _round_trip(name, point, protocol, situation.timeout)
            if not given and found.state == FAIL:
                # Nobody has asked for it: run would try it all the same.
                found = found._replace(state=WARN, message=f"{found.message} (the default of otel-trading run)")
            yield found


def resolved(name: str, *, given: bool) -> tuple[Any, str | None]:
    """Give an exporter's entry point, None where there is none, and "http" or "grpc" for OTLP.

    Without ``given`` and a protocol it is the one that the distro takes.  Raises ConfigurationError.
    """
    from otel_trading.drain import exporters
    from otel_trading.run import defaults

    points = entry_points(group="opentelemetry_traces_exporter")
    wanted = exporters.resolved(name, exporters.TRACES)
    told = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if not given and not any(os.environ.get(variable) for variable in told):
        wanted = "otlp_proto_http" if defaults.protocol_of_endpoint() != "grpc" else "otlp_proto_grpc"
    return next((point for point in points if point.name == wanted), None), _OTLP.get(wanted)


def _made(name: str, point: Any) -> Check:
    try:
        exporter = point.load()()
        exporter.shutdown()
    except Exception as error:  # noqa: BLE001  whatever it is, that is what the check is for
        return Check(f"exporter {name}", FAIL, f"it cannot be made: {type(error).__name__}: {error}", "see its manual")
    return Check(f"exporter {name}", OK, f"{point.value} can be made; nothing was sent by it")


def _round_trip(name: str, point: Any, protocol: str, timeout: float) -> Check:
    title = f"exporter {name}"
    said = _Said()
    logger = logging.getLogger("opentelemetry.exporter")
    logger.addHandler(said)
    propagate, logger.propagate = logger.propagate, False
    try:
        exporter = point.load()(timeout=timeout)
        place = endpoint.of(exporter, protocol)
        shown = f"{protocol} to {masked('endpoint', place.url)}"
        trouble = endpoint.trouble(place, timeout)
        if trouble is not None:
            return Check(title, FAIL, f"{shown}: {trouble.message}", trouble.remedy)
        result = exporter.export([_span()])
        exporter.shutdown()
    except Exception as error:  # noqa: BLE001  whatever it is, that is what the check is for
        return Check(
            title, FAIL, f"{protocol}: {type(error).__name__}: {error}", "correct the OTEL_EXPORTER_OTLP_* variables"
        )
    finally:
        logger.removeHandler(said)
        logger.propagate = propagate
    if result.name == "SUCCESS":
        return Check(title, OK, f"{shown}: a span was taken")
    reason = said.lines[-1] if said.lines else "the exporter reports a failure without a reason"
    return Check(title, FAIL, f"{shown}: {reason}", endpoint.remedy(reason, protocol, place))


def _span() -> Any:
    """Make one finished span of the stock SDK."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

    provider = TracerProvider(resource=Resource.create({"service.name": "otel-trading-doctor"}), shutdown_on_exit=False)
    span = provider.get_tracer("otel_trading.doctor").start_span("otel-trading doctor")
    span.end()
    assert isinstance(span, ReadableSpan)  # noqa: S101
    return span


class _Said(logging.Handler):
    """Keeps what the exporter logs: its only way to tell a reason."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first line of the message, and the error's own where there is one."""
        text = record.getMessage().splitlines()[0] if record.getMessage() else ""
        self.lines.append(text[:500])
