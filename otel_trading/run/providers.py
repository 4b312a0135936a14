"""The global providers of an instrumented process: ours for traces, the stock SDK's for metrics and logs.

What a signal does not need is not imported: without exporters of API metrics or logs, the API's own no-op providers
stay.  A provider that the program has set already is left alone.
"""

from __future__ import annotations

import atexit
import os

from otel_trading._version import __version__
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from opentelemetry.sdk.resources import Resource

    from otel_trading.config import Settings

_OURS = "otel_trading"
_SDK = "sdk_tracer_provider"
_PROMETHEUS = "prometheus"


def install(settings: Settings, auto_version: str | None = None) -> None:
    """Configure the recorder and set the global providers.

    Raises OtelTradingError for what cannot be configured.
    """
    file = os.environ.get("OTEL_CONFIG_FILE", "").strip()
    if file:
        from otel_trading.run import declarative

        declarative.install(file)
        return
    resource = make_resource(settings, auto_version)
    configure(resource)
    set_tracing(resource)
    for signal, step in (("metrics", _set_metrics), ("logs", _set_logs)):
        try:
            step(settings, resource)
        except Exception as error:  # noqa: BLE001  the spans are recorded all the same
            report(
                f"providers:{signal}", f"{signal} that libraries make with OpenTelemetry's API go nowhere: {error!r}"
            )


def make_resource(settings: Settings, auto_version: str | None) -> Resource:
    """Make the resource as the SDK does, detectors included, with what our configuration adds."""
    from opentelemetry.sdk.resources import Resource

    attributes: dict[str, Any] = {**settings.resource}
    if settings.service is not None:
        attributes["service.name"] = settings.service
    if auto_version:
        attributes.setdefault("telemetry.auto.version", auto_version)
    attributes.setdefault("telemetry.distro.name", "otel-trading")
    attributes.setdefault("telemetry.distro.version", __version__)
    return Resource.create(attributes)


def configure(resource: Resource, **changes: object) -> None:
    """Start recording, with the resource of the providers; ``changes`` are further keys, ``_`` for a dot."""
    from otel_trading import lifecycle

    plain = {key: _plain(value) for key, value in resource.attributes.items() if value is not None}
    lifecycle.configure(config={"resource": plain, **{key.replace("_", "."): item for key, item in changes.items()}})


def _plain(value: Any) -> Any:
    """Make of a detector's attribute what the segment's resource takes."""
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (list, tuple)) and len({type(item) for item in value}) <= 1:
        return [_plain(item) for item in value]
    return str(value)


def wants_ours() -> bool:
    """Tell whether the environment names our tracer provider."""
    return os.environ.get("OTEL_PYTHON_TRACER_PROVIDER", "").strip() == _OURS


def set_tracing(resource: Resource) -> None:
    """Set our tracer provider, or have the one that the environment names write into the segment."""
    from opentelemetry import trace

    name = os.environ.get("OTEL_PYTHON_TRACER_PROVIDER", "").strip()
    if not name or wants_ours():
        from otel_trading.api import TracerProvider

        if _is_set(trace, "_TRACER_PROVIDER"):
            if not isinstance(trace.get_tracer_provider(), TracerProvider):
                report("provider", "the program has set a tracer provider of its own, so API spans are not recorded")
            return
        trace.set_tracer_provider(TracerProvider(resource=resource))
        return
    if name == _SDK and not _is_set(trace, "_TRACER_PROVIDER"):
        # As the SDK's own configurator, but for the exporters: those are the recorder's.
        from opentelemetry.sdk import _configuration as sdk

        sdk._init_tracing(  # noqa: SLF001  there is no public way to do as the SDK does
            {},
            id_generator=sdk._import_id_generator(sdk._get_id_generator()),  # noqa: SLF001
            sampler=sdk._import_sampler(sdk._get_sampler()),  # noqa: SLF001
            resource=resource,
            tracer_configurator=sdk._import_tracer_configurator(sdk._get_tracer_configurator()),  # noqa: SLF001
        )
    attach_processor(trace.get_tracer_provider())


def attach_processor(provider: Any) -> bool:
    """Have the spans of an SDK's provider written into the segment as they end; False where it is none.  Idempotent."""
    from otel_trading.sdk.processor import BudgetSpanProcessor

    if not hasattr(provider, "add_span_processor"):
        report(
            "provider",
            f"the tracer provider is a {type(provider).__module__}.{type(provider).__qualname__}, which takes no span "
            "processors: its spans are not recorded",
        )
        return False
    there = getattr(getattr(provider, "_active_span_processor", None), "_span_processors", ())
    if not any(isinstance(processor, BudgetSpanProcessor) for processor in there):
        provider.add_span_processor(BudgetSpanProcessor())
    return True


def _is_set(module: Any, name: str) -> bool:
    """Tell whether a global provider is set; asking the API itself would set one."""
    return getattr(module, name, None) is not None


def _set_metrics(settings: Settings, resource: Resource) -> None:
    """Export the metrics that libraries make with the API, to the exporters that the recorder's own metrics go to."""
    # /metrics is served by the recorder, and a second server on that port cannot be.
    names = [name for name in settings.export_metrics if name != _PROMETHEUS]
    if not names:
        return
    from opentelemetry.metrics import _internal as api

    if _is_set(api, "_METER_PROVIDER"):
        return
    from opentelemetry import metrics
    from opentelemetry.sdk import _configuration as sdk
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

    points = [sdk._get_exporter_entry_point(name, "metrics") for name in names]  # noqa: SLF001
    _, found, _ = sdk._import_exporters([], points, [])  # noqa: SLF001
    made: list[Any] = [one() for one in found.values()]
    provider = MeterProvider(
        resource=resource,
        metric_readers=[one if isinstance(one, MetricReader) else PeriodicExportingMetricReader(one) for one in made],
        shutdown_on_exit=False,
        _meter_configurator=sdk._import_meter_configurator(sdk._get_meter_configurator()),  # noqa: SLF001
    )
    metrics.set_meter_provider(provider)
    atexit.register(_end, provider, settings.shutdown_timeout)


def _set_logs(settings: Settings, resource: Resource) -> None:
    """Export the logs that libraries make with the API, where ``OTEL_LOGS_EXPORTER`` asks for it."""
    if os.environ.get("OTEL_LOGS_EXPORTER", "").strip().lower() in {"", "none"}:
        return
    from opentelemetry._logs import _internal as api
    from opentelemetry._logs import get_logger_provider

    if _is_set(api, "_LOGGER_PROVIDER"):
        return
    from opentelemetry.sdk import _configuration as sdk

    handler = os.environ.get("OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED", "").strip().lower() == "true"
    _, _, found = sdk._import_exporters([], [], sdk._get_exporter_names("logs"))  # noqa: SLF001
    sdk._init_logging(  # noqa: SLF001
        found,
        resource,
        handler,
        logger_configurator=sdk._import_logger_configurator(sdk._get_logger_configurator()),  # noqa: SLF001
    )
    provider: Any = get_logger_provider()
    if provider._at_exit_handler is not None:  # noqa: SLF001  it would wait for 30 s
        atexit.unregister(provider._at_exit_handler)  # noqa: SLF001
        provider._at_exit_handler = None  # noqa: SLF001
    atexit.register(_end, provider, settings.shutdown_timeout)


def _end(provider: Any, timeout: float) -> None:
    """Shut a provider of the SDK down, in bounded time: a collector that is down must not hold the exit up."""
    if getattr(provider, "_shutdown", False):
        return
    from threading import Thread

    thread = Thread(target=_shut_down, args=(provider,), name="otel-trading-exit", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # too late for threads
        return
    thread.join(timeout)


def _shut_down(provider: Any) -> None:
    try:
        provider.shutdown()
    except Exception as error:  # noqa: BLE001  nothing of ours may be seen at the exit
        report("providers:end", f"{type(provider).__name__} could not be shut down: {error!r}")
