"""``OTEL_CONFIG_FILE``: the stock SDK is configured by that file, and our processor attached to it after."""

from __future__ import annotations

from otel_trading.errors import ConfigurationError
from otel_trading.run import providers


def install(path: str) -> None:
    """Configure the SDK by the file, then the recorder.

    The file's processors export the SDK's spans, so the recorder exports none: with it they are in the metrics, the
    accounts and the segment.  A file without ``tracer_provider`` leaves spans to us: those of probes, and the API's too
    where ``OTEL_PYTHON_TRACER_PROVIDER`` names our provider; the recorder's own exporters export them.
    Raises ConfigurationError where the file cannot be used.
    """
    try:
        from opentelemetry.configuration import configure_sdk, load_config_file
        from opentelemetry.configuration._resource import create_resource
    except ImportError as error:
        raise ConfigurationError(
            f"OTEL_CONFIG_FILE={path}: declarative configuration cannot be read ({error}): "
            "pip install otel-trading[declarative], or unset it"
        ) from error
    from opentelemetry import trace

    try:
        configured = load_config_file(path)
        if configured.disabled:
            return
        configure_sdk(configured)
        resource = create_resource(configured.resource)
    except Exception as error:
        raise ConfigurationError(f"OTEL_CONFIG_FILE={path}: {error}") from error
    if configured.tracer_provider is not None:
        providers.configure(resource, export_traces="none")
        providers.attach_processor(trace.get_tracer_provider())
        return
    providers.configure(resource)
    if providers.wants_ours():
        providers.set_tracing(resource)
