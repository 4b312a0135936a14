"""Finding exporters by name, as the OpenTelemetry SDK does: entry points, with ``otlp`` resolved by the protocol.

For OTLP over plain http there are exporters of our own, which need none of the libraries that the stock ones load.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from otel_trading import faults
from otel_trading.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.metadata import EntryPoint
    from typing import Any, TypeAlias

    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter

    from otel_trading.drain.otlp_way import Signal
    from otel_trading.drain.own_otlp import OwnMetrics, OwnSpans

    Spans: TypeAlias = SpanExporter | OwnSpans
    Metrics: TypeAlias = MetricExporter | OwnMetrics

TRACES: Signal = "traces"
METRICS: Signal = "metrics"

_HTTP = "otlp_proto_http"
_PROTOCOLS = {"grpc": "otlp_proto_grpc", "http/protobuf": _HTTP}
_DISTRIBUTIONS = {
    "otlp": "opentelemetry-exporter-otlp",
    "otlp_proto_grpc": "opentelemetry-exporter-otlp-proto-grpc",
    _HTTP: "opentelemetry-exporter-otlp-proto-http",
}


def resolved(name: str, signal: str) -> str:
    """Return the entry point's name: ``otlp`` becomes that of the protocol asked for, grpc by default.

    Raises ConfigurationError for a protocol that the Python exporters do not speak.
    """
    if name != "otlp":
        return name
    for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = os.environ.get(variable, "").strip()
        if protocol:
            if protocol not in _PROTOCOLS:
                message = f"{variable}={protocol!r} is not spoken here: use {' or '.join(_PROTOCOLS)}"
                raise ConfigurationError(message)
            return _PROTOCOLS[protocol]
    return _PROTOCOLS["grpc"]


def load(names: Sequence[str], signal: Signal, *, stock: bool = False) -> list[tuple[str, Any]]:
    """Return (name, exporter) for each name, made without arguments: they read their settings from ``OTEL_*``.

    A name given twice is loaded once.  ``stock``: OpenTelemetry's own also where ours do.  Raises ConfigurationError
    that names every exporter that could not be had, and why.
    """
    found: list[tuple[str, Any]] = []
    problems: list[str] = []
    for name in dict.fromkeys(names):
        try:
            point = resolved(name, signal)
            own = None if stock or point != _HTTP else _own(signal)
            found.append((name, own or _made(point, signal)))
        except ConfigurationError as error:
            problems.append(f"{name}: {error}")
    if problems:
        shut_down(found)
        message = f"exporters of {signal} that cannot be had:\n  " + "\n  ".join(problems)
        raise ConfigurationError(message)
    return found


def _own(signal: Signal) -> Spans | Metrics | None:
    """Make an exporter of our own; None where plain http does not do, or the stock packages are not as expected."""
    try:
        from otel_trading.drain.own_otlp import exporter_of

        return exporter_of(signal)
    except Exception:  # noqa: BLE001  the stock one tells what is wrong, if anything is
        return None


def is_own(exporter: object) -> bool:
    """Tell whether an exporter takes what the drain has, and not the SDK's objects."""
    return getattr(exporter, "OWN", False) is True


def _made(name: str, signal: Signal) -> SpanExporter | MetricExporter:
    from importlib.metadata import entry_points

    points = entry_points(group=f"opentelemetry_{signal}_exporter")
    point = next((point for point in points if point.name == name), None)
    if point is None:
        raise ConfigurationError(_unknown(name, sorted({point.name for point in points})))
    kind: Any
    if signal == TRACES:
        from opentelemetry.sdk.trace.export import SpanExporter as kind  # noqa: N813  one of the two
    else:
        from opentelemetry.sdk.metrics.export import MetricExporter as kind  # noqa: N813  as above
    try:
        loaded: Any = point.load()
        exporter = loaded()
    except Exception as error:
        message = f"{point.value} failed: {type(error).__name__}: {error}{_package(point)}"
        raise ConfigurationError(message) from error
    if not isinstance(exporter, kind):
        message = f"{point.value} is no {kind.__name__}, so nothing can be pushed to it"
        raise ConfigurationError(message)
    return exporter  # type: ignore[no-any-return]


def _unknown(name: str, known: list[str]) -> str:
    if name in _DISTRIBUTIONS:
        return f"not installed: pip install {_DISTRIBUTIONS[name]}"
    others = [f"{other} (pip install {package})" for other, package in _DISTRIBUTIONS.items() if other not in known]
    message = f"no installed package has it; there are {', '.join(known) or 'none'}"
    return f"{message}, and to be had are {', '.join(others)}" if others else message


def _package(point: EntryPoint) -> str:
    return f" (from package {point.dist.name})" if point.dist is not None else ""


def took(name: str, signal: str, export: Callable[..., object], *arguments: object, **options: object) -> bool:
    """Call an exporter's ``export``; whether it took what it was given.  A failure is reported, whatever it is."""
    reason = "it reports a failure"
    try:
        # SpanExportResult and MetricExportResult have this name in common, and nothing else.
        if getattr(export(*arguments, **options), "name", None) == "SUCCESS":
            return True
    except Exception as error:  # noqa: BLE001 - an exporter's mistake stays here
        reason = f"{type(error).__name__}: {error}"
    not_taken(name, signal, reason)
    return False


def writes(exporter: object) -> bool:
    """Tell whether an exporter writes to a stream or a file, as far as that can be seen: the SDK's console does."""
    return callable(getattr(getattr(exporter, "out", None), "write", None))


def not_taken(name: str, signal: str, reason: str) -> None:
    """Report, once an exporter and signal, that it did not take what it was given."""
    faults.report(
        f"export.{signal}.{name}",
        f"exporter {name!r} did not take {signal} ({reason}); "
        "what it does not take is counted, and this is not said again",
    )


def shut_down(found: Sequence[tuple[str, Any]]) -> None:
    """Shut exporters down, each on its own; a failure is reported."""
    for name, exporter in found:
        try:
            exporter.shutdown()
        except Exception as error:  # noqa: BLE001 - the next one is to be shut down all the same
            faults.report(f"export.shutdown.{name}", f"exporter {name!r} failed to shut down: {error!r}")
