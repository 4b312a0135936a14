"""The environment variables that the distro sets, each only where the user has set nothing."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading.config import Settings

PROVIDER = "OTEL_PYTHON_TRACER_PROVIDER"
_NAME = "otel_trading"
_HTTP, _GRPC = "http/protobuf", "grpc"
_HTTP_PORT = 4318
_PACKAGES = {_HTTP: "opentelemetry.exporter.otlp.proto.http", _GRPC: "opentelemetry.exporter.otlp.proto.grpc"}
_SIGNALS = ("TRACES", "METRICS")


def put(settings: Settings) -> bool:
    """Set them; ``settings`` is what file and environment say.  Gives whether the tracer provider was among them.

    The configurator is ours where the distro is.  Spans and metrics go to OTLP where an exporter for it is installed
    and the file names no other, over http/protobuf unless an endpoint was given that says otherwise.  With
    ``OTEL_CONFIG_FILE`` that file says all of this.
    """
    os.environ.setdefault("OTEL_PYTHON_CONFIGURATOR", _NAME)
    if os.environ.get("OTEL_CONFIG_FILE"):
        return False
    ours = PROVIDER not in os.environ
    os.environ.setdefault(PROVIDER, _NAME)
    installed = [protocol for protocol, package in _PACKAGES.items() if _is_there(package)]
    wanted = protocol_of_endpoint()
    chosen = wanted if wanted in installed else installed[0] if installed else None
    if chosen is not None:
        os.environ.setdefault("OTEL_EXPORTER_OTLP_PROTOCOL", chosen)
        for signal in _SIGNALS:
            if settings.sources[f"export.{signal.lower()}"] == "default":
                os.environ.setdefault(f"OTEL_{signal}_EXPORTER", "otlp")
    return ours


def withdraw() -> None:
    """Take the tracer provider's variable back.

    The API raises into the program where it cannot load what that names: here, where the provider cannot be made; and
    in a child process of another Python that has not got our package.
    """
    if os.environ.get(PROVIDER) == _NAME:
        del os.environ[PROVIDER]


def protocol_of_endpoint() -> str:
    """Choose the protocol where none is set: http/protobuf, or what OpenTelemetry's Python SDK takes an endpoint for.

    An endpoint that was set without a protocol has been spoken to in grpc until now, unless its port is http's.
    """
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint:
        return _HTTP
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")
        http = parts.port == _HTTP_PORT or len(parts.path) > 1
    except ValueError:  # a port that is none; the exporter tells
        return _HTTP
    return _HTTP if http else _GRPC


def _is_there(package: str) -> bool:
    """Tell whether an exporter's package is installed, as its entry point would, and for a hundredth of the memory."""
    from importlib.util import find_spec

    try:
        return find_spec(package) is not None
    except ImportError:  # not even the packages around it
        return False
